"""WaveNet's layers in compiled passes equal the plain form in double precision, in single."""

import copy

import numpy as np
import pytest
import torch
from test_local_conditioning import frames_for
from test_wavenet import labels_for, sounds
from test_wavenet_training import plain

from models import compiled, compiled_layers, dilated
from models.wavenet import WaveNet, WaveNetConfig

WIDTHS = [(1, 1), (5, 3), (32, 32), (35, 18), (48, 70)]  # hidden_dim, out_hidden_dim


def network(**config):
    """A network in single precision, and the same in double, which takes the plain form."""
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(**{"levels": 6, **config}))
    return model, copy.deepcopy(model).double()


@pytest.fixture(autouse=True)
def _threads_for_any_work(monkeypatch):
    monkeypatch.setattr(compiled_layers, "LEAST_WORK", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_same(actual, wanted, single, double):
    """The logits and the gradients of all parameters differ by single precision's rounding."""
    assert actual.dtype == torch.float32 and wanted.dtype == torch.float64
    assert_close(actual, wanted, "logits")
    direction = torch.randn_like(wanted)
    (actual * direction.float()).sum().backward()
    (wanted * direction).sum().backward()
    for (name, parameter), expected in zip(single.named_parameters(), double.parameters(),
                                           strict=True):
        if expected.grad is None:
            assert parameter.grad is None, name
        else:
            assert_close(parameter.grad, expected.grad, name)


def assert_close(actual, wanted, name):
    error = (actual - wanted).abs().max().item()
    assert error <= 1e-5 * (wanted.abs().max().item() + 1e-3), f"{name}: {error}"


# ------------------------------------------------------------------------------ equality

@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("hidden_dim, out_hidden_dim", WIDTHS)
@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (3, 1), (2, 4)])
def test_outputs_and_all_gradients_equal_the_plain_form(stacks_num, layers_num, hidden_dim,
                                                        out_hidden_dim, threads):
    torch.set_num_threads(threads)
    for batch, outputs, labels in ((1, 1, 2), (2, 10, 0), (5, 150, 3)):
        single, double = network(hidden_dim=hidden_dim, out_hidden_dim=out_hidden_dim,
                                 stacks_num=stacks_num, layers_num=layers_num, labels=labels)
        codes = sounds(batch, single.config.receptive_field + outputs - 1, single.config)
        label = labels_for(batch, single.config)
        assert_same(single(codes, label), double(codes, label), single, double)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (1, 5), (3, 1), (2, 7)])
def test_they_also_do_after_silence_of_any_length(stacks_num, layers_num, threads):
    torch.set_num_threads(threads)
    for outputs in (1, 120):
        length = 2 * stacks_num * 2 ** layers_num + outputs
        for silent in {0, 1, 2, 3, 2 ** layers_num, length // 2, length - outputs, length}:
            single, double = network(hidden_dim=9, stacks_num=stacks_num, layers_num=layers_num)
            codes = sounds(3, length, single.config)
            codes[:, :silent] = 3
            codes[1, :silent + 3] = 3
            assert_same(single(codes), double(codes), single, double)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("hop", [1, 4, 50])
def test_local_conditioning_equals_the_plain_form(hop, threads):
    torch.set_num_threads(threads)
    single, double = network(hidden_dim=20, stacks_num=2, layers_num=5, features=3, hop=hop,
                             labels=2)
    codes = sounds(4, single.config.receptive_field + 199, single.config)
    frames = frames_for(codes, single.config, [0, 5, -30, 2])
    label = labels_for(4, single.config)
    as_single = frames._replace(values=frames.values.float())
    assert_same(single(codes, label, as_single), double(codes, label, frames), single, double)


def test_a_network_of_many_layers_equals_the_plain_form():
    """The backward pass subtracts from 50 layers' inputs what the forward pass added."""
    single, double = network(hidden_dim=16, levels=256, stacks_num=10, layers_num=5)
    codes = sounds(2, single.config.receptive_field + 200, single.config)
    assert_same(single(codes), double(codes), single, double)


def hashed(bits):
    """The hash of `models.kernels.dropout` for an array of uint32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        bits = (bits ^ bits >> np.uint32(shift)) * np.uint32(factor)
    return bits


def dropout_factors(random, row, width):
    """A row's factors (width,)."""
    with np.errstate(over="ignore"):
        key = hashed(hashed(np.array(row + random.seed & 0xFFFFFFFF, np.uint32))
                     ^ np.uint32(random.seed >> 32))
        return np.where(hashed(key + np.arange(width, dtype=np.uint32)) < random.kept,
                        random.factor, 0)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dropout", [0.05, 0.6])
def test_dropout_equals_plain_autograd_with_the_same_factors(dropout, threads, monkeypatch):
    torch.set_num_threads(threads)
    single, double = network(hidden_dim=20, out_hidden_dim=8, stacks_num=2, layers_num=4)
    single.dropout, plans = dropout, []

    class Recorded(compiled_layers._Passes):
        def run(self, call):
            plans.append(self.plan)
            super().run(call)

    randoms = []
    draw = compiled_layers._dropout

    def recorded(*args):
        randoms.append(draw(*args))
        return randoms[-1]

    monkeypatch.setattr(compiled_layers, "_Passes", Recorded)
    monkeypatch.setattr(compiled_layers, "_dropout", recorded)
    codes = sounds(4, single.config.receptive_field + 130, single.config)
    actual = single(codes)
    plan, random = plans[-1], randoms[-1]
    assert len({each.seed for each in random}) == 4, "each sequence has its own seed"
    masks = [torch.from_numpy(np.stack([[dropout_factors(
        each, plan.offset[layer] + row, 20) for row in range(plan.first[layer], plan.rows)]
        for each in random])) for layer in range(len(plan.first))]
    dropped = (masks[0] == 0).double().mean().item()
    assert dropped == pytest.approx(dropout, abs=0.02)
    assert_same(actual, plain(double, codes, masks=masks), single, double)


# ------------------------------------------------------------------------------ which form

@pytest.mark.parametrize("dtype, width, enabled, expected", [
    (torch.float32, 256, True, True), (torch.float32, 256, False, False),
    (torch.float32, 257, True, False), (torch.float64, 8, True, False)])
def test_the_compiled_form_is_for_single_precision_and_narrow_layers(dtype, width, enabled,
                                                                     expected, monkeypatch):
    monkeypatch.setattr(compiled, "enabled", enabled)
    called = []
    run = compiled_layers.run_compiled
    monkeypatch.setattr(compiled_layers, "run_compiled",
                        lambda *args: called.append(args) or run(*args))
    model = WaveNet(WaveNetConfig(levels=4, hidden_dim=width, layers_num=1)).to(dtype)
    model(sounds(1, model.config.receptive_field, model.config))
    assert bool(called) == expected


def test_bfloat16_takes_the_compiled_form_where_that_is_as_fast(monkeypatch):
    single, double = network(hidden_dim=64, stacks_num=1, layers_num=3)
    codes = sounds(2, single.config.receptive_field + 20, single.config)
    single.compute_dtype = torch.bfloat16
    assert_same(single(codes), double(codes), single, double)
    monkeypatch.setitem(dilated.WIDEST_COMPILED, torch.bfloat16, 63)
    difference = (single(codes) - double(codes)).abs().max()
    assert 1e-4 < difference < 0.1, "multiplied in bfloat16"


# ------------------------------------------------------------------------------ repeated calls

@pytest.mark.parametrize("threads", [1, 2, 3])
def test_gradients_repeat_bit_for_bit(threads):
    torch.set_num_threads(threads)
    single, _ = network(hidden_dim=20, stacks_num=2, layers_num=5, labels=2)
    single.dropout = 0.3
    codes = sounds(5, single.config.receptive_field + 300, single.config)

    def gradients():
        torch.manual_seed(1)
        single.zero_grad()
        single(codes, labels_for(5, single.config)).square().sum().backward()
        return [parameter.grad.clone() for parameter in single.parameters()
                if parameter.grad is not None]

    expected = gradients()
    for _ in range(5):
        for actual, wanted in zip(gradients(), expected, strict=True):
            assert torch.equal(actual, wanted)


def test_a_graph_gives_its_gradients_twice():
    single, _ = network(hidden_dim=8, stacks_num=1, layers_num=3)
    loss = single(sounds(2, single.config.receptive_field + 9, single.config)).sum()
    twice = [torch.autograd.grad(loss, single.layers[0].past.weight, retain_graph=True)[0]
             for _ in range(2)]
    assert torch.equal(*twice)


def test_a_sequence_has_the_same_outputs_in_any_batch_and_on_any_threads():
    single, _ = network(hidden_dim=20, stacks_num=2, layers_num=5)
    codes = sounds(5, single.config.receptive_field + 300, single.config)
    with torch.no_grad():
        alone = torch.cat([single(each[None]) for each in codes])
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            assert torch.equal(single(codes), alone)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_weight_that_is_not_a_number_shows(layer):
    """A run that diverges must see it: the gate's clamps pass NaN on."""
    single, _ = network(hidden_dim=8, stacks_num=1, layers_num=3)
    with torch.no_grad():
        single.layers[layer].now.weight[0, 0] = float("nan")
    logits = single(sounds(2, single.config.receptive_field + 9, single.config))
    assert logits.isnan().all()
    logits.sum().backward()
    assert single.layers[0].past.weight.grad.isnan().any()
