"""WaveNet: normalised likelihoods, and a plain reference: padded convolutions of one-hot codes."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.dilated import Workspace
from models.wavenet import WaveNet, WaveNetConfig

DEPTHS = [(1, 1), (1, 2), (2, 1), (3, 1), (2, 2), (1, 4), (3, 2), (2, 4)]  # stacks, layers


def network(seed=0, **config):
    """A random network in double precision, with weights large enough for distant layers to have an
    effect."""
    torch.manual_seed(seed)
    model = WaveNet(WaveNetConfig(**{"hidden_dim": 6, "out_hidden_dim": 8, **config})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def sounds(batch, length, config):
    return torch.randint(config.levels, (batch, length))


def labels_for(count, config):
    return torch.arange(count) % config.labels if config.labels else None


# ------------------------------------------------------------------------------ likelihood

@pytest.mark.parametrize("labels", [0, 2])
@pytest.mark.parametrize("levels, length, stacks_num, layers_num", [
    (2, 8, 1, 1), (2, 8, 2, 2), (3, 5, 1, 3), (5, 3, 3, 1), (256, 1, 1, 2)])
def test_probabilities_of_all_sequences_after_silence_sum_to_one(
        levels, length, stacks_num, layers_num, labels):
    model = network(levels=levels, stacks_num=stacks_num, layers_num=layers_num, labels=labels)
    field = model.config.receptive_field
    codes = torch.cartesian_prod(*[torch.arange(levels)] * length).view(-1, length)
    assert len(codes) == levels ** length
    silence = torch.full((len(codes), field), levels // 2)
    with torch.no_grad():
        for label in range(labels) if labels else [None]:
            each = None if label is None else torch.full((len(codes),), label)
            # Output k predicts code k + R. The last output predicts a code after the sequence.
            log_p = model(torch.cat((silence, codes), 1), each)[:, :, :-1].log_softmax(1)
            p = log_p.gather(1, codes[:, None]).sum((1, 2)).exp()
            assert p.std() > 0.01 * p.mean(), "the sum would prove nothing for a flat distribution"
            assert p.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 4, 256])
@pytest.mark.parametrize("labels", [0, 2])
def test_a_network_of_zeros_scores_log2_levels_bits_per_sample(levels, labels):
    model = network(levels=levels, stacks_num=2, layers_num=2, labels=labels)
    for parameter in model.parameters():
        parameter.data.zero_()
    field = model.config.receptive_field
    codes = sounds(3, field + 6, model.config)
    logits = model(codes, labels_for(3, model.config))[:, :, :-1]
    nll = F.cross_entropy(logits, codes[:, field:])
    assert nll.item() / math.log(2) == pytest.approx(math.log2(levels), abs=1e-12)


def test_fresh_default_network_is_near_the_uniform_distribution():
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig())
    field = model.config.receptive_field
    codes = sounds(1, field + 64, model.config)
    with torch.no_grad():
        nll = F.cross_entropy(model(codes)[:, :, :-1], codes[:, field:]).item()
    assert nll == pytest.approx(math.log(256), rel=0.1)


# ------------------------------------------------------------------------------ labels

@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (2, 3)])
def test_another_label_changes_the_logits_at_every_time(stacks_num, layers_num):
    changed = 0
    for seed in range(3):
        model = network(seed, levels=4, stacks_num=stacks_num, layers_num=layers_num, labels=3)
        codes = sounds(1, model.config.receptive_field + 5, model.config).repeat(3, 1)
        logits = model(codes, torch.arange(3))
        changed = changed + (logits - logits[[1, 2, 0]]).abs().sum(1)
    assert (changed > 1e-9).all()


def test_the_label_reaches_every_layer_and_the_other_labels_do_not():
    model = network(levels=4, out_hidden_dim=16, stacks_num=2, layers_num=3, labels=3)
    field = model.config.receptive_field
    codes = sounds(4, field + 8, model.config)
    F.cross_entropy(model(codes, torch.full((4,), 1))[:, :, :-1], codes[:, field:]).backward()
    for layer in model.layers:
        grad = layer.gate.condition.weight.grad
        assert (grad[1] != 0).all()
        assert (grad[[0, 2]] == 0).all()


@pytest.mark.parametrize("extra", [0, 2, 5])
def test_each_sequence_has_its_own_label(extra):
    model = network(levels=4, stacks_num=1, layers_num=1, labels=5)
    codes, label = sounds(3, model.config.receptive_field + extra, model.config), [4, 0, 3]
    together = model(codes, torch.tensor(label))
    for i in range(3):
        torch.testing.assert_close(together[i:i + 1],
                                   model(codes[i:i + 1], torch.tensor(label[i:i + 1])),
                                   rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------ plain reference

def slow_reference(model, codes, label=None):
    """Figure 4 of the paper with padded causal convolutions of one-hot codes.

    Returns the logits of the times whose receptive field contains no padding.
    """
    config = model.config

    def causal(x, past, now, dilation):
        kernel = torch.stack((past, now), dim=2)  # (out, in, 2): the tap at t - d, that at t
        return F.conv1d(F.pad(x, (dilation, 0)), kernel, dilation=dilation)

    def one_by_one(x, layer):
        return F.conv1d(x, layer.weight[:, :, None], layer.bias)

    x = F.one_hot(codes, config.levels).double().transpose(1, 2)  # (B, levels, T)
    x = causal(x, model.embed_past.weight.t(), model.embed_now.weight.t(), 1)
    skips = torch.zeros(len(codes), config.out_hidden_dim, codes.shape[1], dtype=torch.double)
    layers = iter(model.layers)
    for _ in range(config.stacks_num):
        for i in range(config.layers_num):
            layer = next(layers)
            a = causal(x, layer.past.weight, layer.now.weight, 2 ** i) + layer.now.bias[:, None]
            if label is not None:
                a = a + layer.gate.condition.weight[label][:, :, None]
            z = a[:, :config.hidden_dim].tanh() * a[:, config.hidden_dim:].sigmoid()
            skips = skips + one_by_one(z, layer.skip)
            x = x + one_by_one(z, layer.residual) if layer.residual is not None else None
    assert x is None and next(layers, None) is None
    return one_by_one(one_by_one(skips.relu(), model.hidden).relu(), model.logits)[
        :, :, config.receptive_field - 1:]


@pytest.mark.parametrize("hidden_dim, out_hidden_dim, labels", [(6, 8, 0), (5, 3, 3), (1, 1, 2)])
@pytest.mark.parametrize("stacks_num, layers_num", DEPTHS)
def test_outputs_and_all_gradients_equal_plain_convolutions(
        stacks_num, layers_num, hidden_dim, out_hidden_dim, labels):
    model = network(levels=6, hidden_dim=hidden_dim, out_hidden_dim=out_hidden_dim,
                    stacks_num=stacks_num, layers_num=layers_num, labels=labels)
    codes = sounds(3, model.config.receptive_field + 9, model.config)
    label = labels_for(3, model.config)
    actual, wanted = model(codes, label), slow_reference(model, codes, label)
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)

    direction, parameters = torch.randn_like(actual), dict(model.named_parameters())
    grads, wanted_grads = (
        torch.autograd.grad((out * direction).sum(), list(parameters.values()))
        for out in (actual, wanted))
    for name, grad, wanted_grad in zip(parameters, grads, wanted_grads, strict=True):
        torch.testing.assert_close(grad, wanted_grad, rtol=1e-9, atol=1e-9,
                                   msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_sequences_that_begin_with_a_repeated_code_equal_plain_convolutions(stacks_num, layers_num):
    """The model saves work on initial silence, which may differ in length within a batch."""
    model = network(levels=6, stacks_num=stacks_num, layers_num=layers_num, labels=3)
    field, label = model.config.receptive_field, torch.tensor([2, 0, 1])
    for outputs, code in ((1, 3), (2, 0), (6, 3)):
        length = field + outputs - 1
        for silent in range(length + 1):
            codes = sounds(3, length, model.config)
            codes[:, :silent] = code
            codes[1, :silent + 3] = code
            if silent % 3 == 2:
                codes[2, 0] = 5  # one sequence does not begin with it at all
            actual, wanted = model(codes, label), slow_reference(model, codes, label)
            assert actual.shape == (3, 6, outputs)
            torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)
            if silent % 2:
                continue
            direction, parameters = torch.randn_like(actual), list(model.parameters())
            for grad, wanted_grad in zip(
                    torch.autograd.grad((actual * direction).sum(), parameters),
                    torch.autograd.grad((wanted * direction).sum(), parameters), strict=True):
                torch.testing.assert_close(grad, wanted_grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("following", [0, 1, 6])
def test_no_layer_computes_the_silence_before_the_beginning(following, monkeypatch):
    model = network(levels=4, stacks_num=2, layers_num=4)
    field, taken = model.config.receptive_field, []
    take = Workspace.take

    def recording(workspace, like, rows, width):
        taken.append(rows)  # one for each column of each layer
        return take(workspace, like, rows, width)

    monkeypatch.setattr(Workspace, "take", recording)
    silence = torch.full((2, field), 2)
    codes = torch.cat((silence, (silence[:, :following] + 1) % 4), 1)
    assert model(codes).shape[2] == following + 1
    assert len(taken) == 1 and taken[0] <= 8 * len(codes) * (following + 2)


@pytest.mark.parametrize("code", [0, 3])
def test_a_batch_of_silence_has_all_its_outputs(code):
    model = network(levels=4, stacks_num=2, layers_num=3)
    codes = torch.full((2, model.config.receptive_field + 5), code)
    torch.testing.assert_close(model(codes), slow_reference(model, codes), rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------ parameters

@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (1, 2), (2, 3)])
def test_every_weight_learns(stacks_num, layers_num, labels):
    grads = {}
    for seed in range(12):
        model = network(seed, levels=5, stacks_num=stacks_num, layers_num=layers_num, labels=labels)
        field = model.config.receptive_field
        codes = sounds(6, field + 20, model.config)
        logits = model(codes, labels_for(6, model.config))[:, :, :-1]
        F.cross_entropy(logits, codes[:, field:]).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} is unused"
            grads[name] = grads.get(name, 0) + parameter.grad.abs()
    for name, grad in grads.items():
        assert (grad != 0).all(), f"{name} has dead weights"


def test_in_a_fresh_default_network_all_layers_gradients_have_similar_size():
    """The largest gradient of a layer is less than a thousand times the smallest."""
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(layers_num=6))  # 30 layers
    field = model.config.receptive_field
    codes = sounds(2, field + 64, model.config)
    F.cross_entropy(model(codes)[:, :, :-1], codes[:, field:]).backward()
    for part in ("past", "now", "skip"):
        norms = [getattr(layer, part).weight.grad.norm().item() for layer in model.layers]
        assert max(norms) < 1e3 * min(norms), f"{part}: {norms}"


# ------------------------------------------------------------------------------ shapes and refusals

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch, levels", [(1, 2), (1, 256), (4, 256)])
def test_logits_have_the_shape_batch_levels_outputs(batch, levels, dtype):
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(levels=levels, hidden_dim=4, out_hidden_dim=5, stacks_num=2,
                                  layers_num=3)).to(dtype)
    logits = model(sounds(batch, model.config.receptive_field + 2, model.config))
    assert logits.shape == (batch, levels, 3)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


def test_single_precision_is_close_to_double():
    model = network(levels=16, stacks_num=2, layers_num=3, labels=2)
    codes, label = sounds(2, model.config.receptive_field + 5, model.config), torch.tensor([1, 0])
    double = model(codes, label)
    single = model.float()(codes, label)
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_codes_of_any_integer_type_give_the_same_logits(dtype):
    model = network(levels=256, stacks_num=1, layers_num=2)
    codes = sounds(2, model.config.receptive_field, model.config)
    assert torch.equal(model(codes.to(dtype)), model(codes))


def test_in_a_fresh_network_neighbouring_codes_have_similar_embeddings():
    torch.manual_seed(0)
    embed = WaveNet(WaveNetConfig(levels=256, hidden_dim=32)).embed_now.weight
    steps = (embed[1:] - embed[:-1]).norm(dim=1)
    distances = torch.cdist(embed, embed)
    assert steps.max() < 0.4 * distances.median()
    assert embed.square().mean().item() == pytest.approx(0.5, rel=0.01)
