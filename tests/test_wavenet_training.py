"""WaveNet's layers as one operation equal plain autograd in outputs and in all gradients."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from test_wavenet import DEPTHS, labels_for, network, sounds

from datasets.batches import IGNORED, Batch
from models import dilated
from models.dropout import dropout_mask
from training import likelihood


def plain(model, codes, label=None, masks=None):
    """The network in plain operations, layer by layer, at all times: padded dilated convolutions of
    one-hot codes. masks: factors of each layer's gated features."""
    config = model.config

    def causal(x, past, now, d):
        return F.conv1d(F.pad(x, (d, 0)), torch.stack((past, now), dim=2), dilation=d)

    x = F.one_hot(codes.long(), config.levels).to(model.logits.weight.dtype).mT
    x = causal(x, model.embed_past.weight.t(), model.embed_now.weight.t(), 1)
    skips = 0
    for n, (layer, d) in enumerate(zip(model.layers, config.dilations, strict=True)):
        a = causal(x, layer.past.weight, layer.now.weight, d) + layer.now.bias[:, None]
        if label is not None:
            a = a + layer.gate.condition(label)[:, :, None]
        a, b = a.chunk(2, dim=1)
        y = (a.tanh() * b.sigmoid()).mT  # (B, T, p)
        if masks is not None:
            y = F.pad(y[:, -masks[n].shape[1]:] * masks[n], (0, 0, y.shape[1], 0))[:, -y.shape[1]:]
        skips = skips + layer.skip(y)
        if layer.residual is not None:
            x = x + layer.residual(y).mT
    logits = model.logits(F.relu(model.hidden(F.relu(skips))))
    return logits.mT[:, :, config.receptive_field - 1:]


def gradients(logits, model, direction):
    """{name: gradient} of every parameter; None for unused ones."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad((logits * direction).sum(), parameters, allow_unused=True)
    return dict(zip(names, grads, strict=True))


def assert_same(model, codes, label=None):
    before = codes.clone()
    actual, wanted = model(codes, label), plain(model, codes, label)
    assert torch.equal(codes, before)
    assert_same_gradients(model, actual, wanted)


def assert_same_gradients(model, actual, wanted):
    """Two computations of the logits have equal values and equal gradients."""
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(actual)
    wanted = gradients(wanted, model, direction)
    for name, grad in gradients(actual, model, direction).items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-9, atol=1e-9,
                                   msg=lambda text, name=name: f"gradient of {name}: {text}")


# ------------------------------------------------------------------------------ equal to plain

@pytest.mark.parametrize("chunk", [1, 7, 2048])
@pytest.mark.parametrize("hidden_dim, out_hidden_dim, labels", [(6, 8, 0), (5, 3, 3), (1, 1, 2)])
@pytest.mark.parametrize("stacks_num, layers_num", DEPTHS)
def test_outputs_and_all_gradients_equal_plain_autograd(
        stacks_num, layers_num, hidden_dim, out_hidden_dim, labels, chunk, monkeypatch):
    monkeypatch.setattr(dilated, "CHUNK_COLUMNS", chunk)
    model = network(levels=6, hidden_dim=hidden_dim, out_hidden_dim=out_hidden_dim,
                    stacks_num=stacks_num, layers_num=layers_num, labels=labels)
    for batch, outputs in ((1, 1), (3, 1), (2, 10)):
        codes = sounds(batch, model.config.receptive_field + outputs - 1, model.config)
        assert_same(model, codes, labels_for(batch, model.config) if labels else None)


@pytest.mark.parametrize("chunk", [1, 5, 2048])
@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_they_also_do_after_silence_of_any_length(stacks_num, layers_num, labels, chunk,
                                                  monkeypatch):
    monkeypatch.setattr(dilated, "CHUNK_COLUMNS", chunk)
    model = network(levels=6, stacks_num=stacks_num, layers_num=layers_num, labels=labels)
    for outputs in (1, 6):
        length = model.config.receptive_field + outputs - 1
        for silent in range(0, length + 1, 2):
            codes = sounds(3, length, model.config)
            codes[:, :silent] = 3
            codes[1, :silent + 3] = 3
            assert_same(model, codes, labels_for(3, model.config))


def test_many_layers_equal_plain_autograd():
    """The backward pass subtracts from 30 layers' inputs what the forward pass added."""
    model = network(levels=6, hidden_dim=8, stacks_num=5, layers_num=6)
    with torch.no_grad():
        for layer in model.layers[:-1]:  # `network` doubles the weights, so sums would explode
            layer.residual.weight.mul_(0.3)
    assert_same(model, sounds(2, model.config.receptive_field + 20, model.config))


def test_dropout_zeroes_gated_features_in_training_only(monkeypatch):
    model, masks = network(levels=5, stacks_num=2, layers_num=3), []

    def recorded(*args):
        masks.append(dropout_mask(*args))
        return masks[-1]

    monkeypatch.setattr(dilated, "dropout_mask", recorded)
    codes = sounds(2, model.config.receptive_field + 40, model.config)
    without = model(codes)
    assert not masks
    model.dropout = 0.25
    with_dropout = model(codes)
    assert len(masks) == 6
    assert torch.cat(masks).gt(0).double().mean().item() == pytest.approx(0.75, abs=0.05)
    each = [mask.view(-1, 2, 6).transpose(0, 1).contiguous() for mask in masks]  # (B, n, p)
    wanted = plain(model, codes, masks=each)
    torch.testing.assert_close(with_dropout, wanted, rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(wanted)
    expected = gradients(wanted, model, direction)
    for name, grad in gradients(with_dropout, model, direction).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.eval()(codes), without, rtol=0, atol=0)


# ------------------------------------------------------------------------------ autograd

@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_outputs_have_the_same_bits(mode):
    model = network(levels=6, stacks_num=2, layers_num=3, labels=2)
    codes, label = sounds(2, model.config.receptive_field + 9, model.config), torch.tensor([1, 0])
    wanted = model(codes, label)
    with mode():
        for _ in range(2):
            assert torch.equal(model(codes, label), wanted)
    wanted.sum().backward()
    with mode():
        assert torch.equal(model(codes, label), wanted)
    model(codes, label).sum().backward()  # the workspace is not an inference tensor


def test_the_same_input_gives_the_same_bits_twice():
    model = network(levels=6, stacks_num=2, layers_num=4, labels=2).float()
    codes, label = sounds(2, model.config.receptive_field + 99, model.config), torch.tensor([1, 0])
    runs = []
    for _ in range(3):
        logits = model(codes, label)
        runs.append([logits, *gradients(logits, model, torch.ones_like(logits)).values()])
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_two_batches_at_once_keep_their_own_gradients():
    model = network(levels=6, stacks_num=2, layers_num=3)
    first, second = (sounds(2, model.config.receptive_field + 5, model.config) for _ in range(2))
    direction = torch.randn_like(model(first))
    wanted = [gradients(plain(model, codes), model, direction) for codes in (first, second)]
    logits = model(first), model(second)
    for i in (1, 0):
        for name, grad in gradients(logits[i], model, direction).items():
            torch.testing.assert_close(grad, wanted[i][name], rtol=1e-9, atol=1e-9)


def test_a_retained_graph_can_be_differentiated_again_until_the_next_batch():
    model = network(levels=6, stacks_num=2, layers_num=3)
    codes = sounds(2, model.config.receptive_field + 5, model.config)
    loss = model(codes).square().sum()
    weight = model.layers[1].now.weight
    first, = torch.autograd.grad(loss, weight, retain_graph=True)
    again, = torch.autograd.grad(loss, weight, retain_graph=True)
    assert torch.equal(first, again)
    model(codes)  # overwrites the workspace that the first call gave back
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, weight)


def test_a_second_derivative_is_refused():
    model = network(levels=6, stacks_num=1, layers_num=2)
    codes = sounds(1, model.config.receptive_field, model.config)
    weight = model.layers[0].now.weight
    grad, = torch.autograd.grad(model(codes).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_frozen_parameters_get_no_gradient_and_the_others_do():
    model = network(levels=6, stacks_num=2, layers_num=2, labels=2)
    codes, label = sounds(2, model.config.receptive_field + 5, model.config), torch.tensor([1, 0])
    plain(model, codes, label).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    for trained in ("layers.2.past", "layers.0.residual.bias", "condition", "embed_now", "hidden"):
        model.zero_grad()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained in name)
        model(codes, label).square().sum().backward()
        for name, parameter in model.named_parameters():
            if trained in name:
                torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-9, atol=1e-9)
            else:
                assert parameter.grad is None


def test_distributed_data_parallel_gives_the_same_gradients(tmp_path):
    model = network(levels=6, stacks_num=2, layers_num=2)
    codes = sounds(2, model.config.receptive_field + 5, model.config)
    model(codes).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{os.path.join(tmp_path, 'store')}",
                            rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            model.zero_grad()
            wrapped(codes).square().sum().backward()
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-12, atol=1e-12)
    finally:
        dist.destroy_process_group()


def test_a_copy_of_a_network_does_not_share_its_workspace():
    model = network(levels=6, stacks_num=2, layers_num=2)
    codes = sounds(2, model.config.receptive_field + 5, model.config)
    loss = model(codes).square().sum()
    loss.backward(retain_graph=True)
    wanted = model.logits.weight.grad.clone()
    model.zero_grad()
    copy.deepcopy(model)(sounds(2, model.config.receptive_field + 5, model.config))
    loss.backward()
    torch.testing.assert_close(model.logits.weight.grad, wanted, rtol=0, atol=0)


# ------------------------------------------------------------------------------ precision and loss

def test_bfloat16_is_close_and_gradients_have_the_weights_type(monkeypatch):
    monkeypatch.setitem(dilated.WIDEST_COMPILED, torch.bfloat16, 0)
    model = network(levels=6, hidden_dim=16, out_hidden_dim=16, stacks_num=2, layers_num=4).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # the initial size
    codes = sounds(2, model.config.receptive_field + 50, model.config)
    wanted = model(codes)
    direction = torch.randn_like(wanted)
    expected = gradients(wanted, model, direction)
    model.compute_dtype = torch.bfloat16
    actual = model(codes)
    assert actual.dtype == torch.float32
    assert not torch.equal(actual, wanted), "computed in single precision"
    assert (actual - wanted).norm() < 0.02 * wanted.norm()
    for name, grad in gradients(actual, model, direction).items():
        assert grad.dtype == torch.float32
        assert (grad - expected[name]).norm() < 0.05 * expected[name].norm(), name


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 4, 5)])
def test_nll_is_the_mean_over_real_targets_for_any_memory_layout(shape):
    torch.manual_seed(0)
    targets = torch.randint(6, shape)
    targets[0, -1] = IGNORED
    for order in (range(len(shape) + 1), range(len(shape), -1, -1)):
        # (B, levels, …), laid out in another order
        sizes = (shape[0], 6, *shape[1:])
        base = torch.randn([sizes[d] for d in order], dtype=torch.double, requires_grad=True)
        logits = base.permute([list(order).index(d) for d in range(len(sizes))])
        wanted = -logits.log_softmax(1).gather(1, targets.clamp(min=0)[:, None])[:, 0]
        wanted = wanted[targets != IGNORED].mean()
        actual = likelihood.nll(lambda codes, label, logits=logits: logits,
                                Batch(targets, targets, None))
        torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(*(torch.autograd.grad(loss, base, retain_graph=True)[0]
                                     for loss in (actual, wanted)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("labels", [0, 2])
def test_an_empty_batch_has_gradients_of_zero(labels):
    model = network(labels=labels)
    T = model.config.receptive_field + 3
    batch = Batch(torch.zeros(0, T, dtype=torch.long), torch.zeros(0, 4, dtype=torch.long),
                  torch.zeros(0, dtype=torch.long) if labels else None)
    likelihood.nll(model, batch, "sum").backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
