"""Distributions of codes: they sum to 1, and likelihood, gradients and samples agree with them."""

import math
from itertools import product

import pytest
import torch

from datasets.batches import IGNORED, Batch
from models import compiled, distributions
from models.distributions import Logistics, Softmax, output_distribution
from models.distributions.logistics import log_masses
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from training import likelihood

LEVELS = (2, 3, 5, 256, 65536)
LOGISTICS = dict(distribution="logistics", mixtures=4)


def mixtures(count, k, dtype=torch.float64, seed=0):
    """Parameters (count, 3k): scales from 1e-7 to 1e3, and means from within to far outside."""
    torch.manual_seed(seed)
    logits = 3 * torch.randn(count, k, dtype=torch.float64)
    means = torch.randn(count, k, dtype=torch.float64)
    means *= torch.logspace(-3, 6, count, dtype=torch.float64)[:, None]
    log_scales = torch.rand(count, k, dtype=torch.float64) * math.log(1e10) + math.log(1e-7)
    return torch.cat((logits, means, log_scales), dim=1).to(dtype)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("dtype, within", [(torch.float64, 1e-9), (torch.float32, 1e-2)])
def test_probabilities_sum_to_1(levels, dtype, within):
    parameters = mixtures(24, 5, dtype)[::6 if levels > 256 else 1]
    sums = Logistics(levels, 5).probabilities(parameters).double().sum(-1)
    assert (sums - 1).abs().max() < within
    # The same without the clamping of scales.
    _, means, log_scales = parameters.unflatten(1, (3, 5)).unbind(1)
    codes = torch.arange(levels)
    masses = log_masses(means[:, None], log_scales[:, None], codes, levels).double().exp().sum(1)
    assert masses.isfinite().all() and (masses - 1).abs().max() < (within if within < 1e-3 else 1)


@pytest.mark.parametrize("levels", LEVELS)
def test_cumulative_probabilities_are_sums_of_the_probabilities(levels):
    for distribution, parameters in (
            (Logistics(levels, 5), mixtures(16, 5)[::5 if levels > 256 else 1]),
            (Softmax(levels), torch.randn(3, levels, dtype=torch.float64))):
        sums = distribution.probabilities(parameters).cumsum(-1)
        codes = torch.arange(levels).expand(len(parameters), -1)
        cumulative = distribution.cumulative(parameters[:, None], codes)
        assert (cumulative - sums).abs().max() < 1e-9
        assert (cumulative[:, -1] == 1).all()
        middle = distribution.probabilities(parameters, levels // 2, levels)
        assert torch.equal(middle, distribution.probabilities(parameters)[:, levels // 2:])


@pytest.mark.parametrize("levels", LEVELS)
def test_gradients_are_those_of_finite_differences(levels):
    distribution = Logistics(levels, 3)
    parameters = torch.randn(12, 9, dtype=torch.float64)
    parameters[:, 6:] = torch.rand(12, 3) * 4 - 5
    codes = torch.randint(levels, (12,))
    codes[:4] = torch.tensor([0, 0, levels - 1, levels - 1])
    assert torch.autograd.gradcheck(lambda x: distribution.nll(x, codes),
                                    parameters.requires_grad_())


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_compiled_likelihood_equals_the_plain_one(levels, threads, monkeypatch):
    torch.set_num_threads(threads)
    distribution, parameters = Logistics(levels, 7), mixtures(3000, 7, torch.float32)
    codes = torch.randint(levels, (3000,))
    codes[::7], codes[1::7] = 0, levels - 1
    nearest = ((parameters[:, 7] + 1) / 2 * (levels - 1)).clamp(0, levels - 1).round().long()
    codes[2::7], codes[3::7] = nearest[2::7], IGNORED
    results = []
    for dtype in (torch.float32, torch.float64):  # the latter is for the plain form
        x = parameters.clone().to(dtype).requires_grad_()
        losses = distribution.nll(x, codes)
        weights = torch.linspace(-1, 2, 3000).to(dtype)
        (losses * weights).sum().backward()
        results += [losses.detach().double(), x.grad.double()]
    losses, gradient, expected, expected_gradient = results
    assert (losses[3::7] == 0).all() and (gradient[3::7] == 0).all()
    assert ((losses - expected).abs() <= 1e-6 * (1 + expected.abs())).all()
    assert ((gradient - expected_gradient).abs() <= 1e-5 * (1e-2 + expected_gradient.abs())).all()
    # The plain form in single precision loses digits, but never breaks down.
    monkeypatch.setattr(compiled, "enabled", False)
    x = parameters.requires_grad_()
    plain = distribution.nll(x, codes)
    plain.sum().backward()
    assert plain.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_compiled_likelihood_of_broken_parameters_is_the_plain_ones(value):
    distribution, codes = Logistics(256, 3), torch.full((40,), 100)
    for place in range(9):
        parameters = torch.zeros(40, 9)
        parameters[7, place] = value
        torch.testing.assert_close(
            distribution.nll(parameters, codes),
            distribution.nll(parameters.double(), codes).float(), equal_nan=True)


def test_reductions_ignore_codes_without_a_target():
    parameters, codes = mixtures(40, 5)[:20], torch.randint(256, (20,))
    codes[5:9] = IGNORED
    for distribution, x in ((Logistics(256, 5), parameters), (Softmax(256), torch.randn(20, 256))):
        each = distribution.nll(x, codes)
        assert each.shape == (20,) and (each[5:9] == 0).all() and (each[:5] > 0).all()
        assert torch.allclose(distribution.nll(x, codes, "sum"), each.sum())
        assert torch.allclose(distribution.nll(x, codes, "mean"), each.sum() / 16)


def test_half_precision_parameters_are_computed_in_single():
    parameters = mixtures(40, 5).bfloat16()
    codes = torch.randint(256, (40,))
    assert torch.equal(Logistics(256, 5).nll(parameters, codes),
                       Logistics(256, 5).nll(parameters.float(), codes))


# ------------------------------------------------------------------------------ sampling

@pytest.mark.parametrize("levels", LEVELS)
def test_a_sample_is_the_first_code_that_exceeds_the_uniform_number(levels):
    distribution, parameters = Logistics(levels, 5), mixtures(4000, 5)
    uniforms = torch.rand(4000, dtype=torch.float64)
    uniforms[:50], uniforms[50:100] = 0, 1 - 2 ** -40
    codes = distribution.sample(parameters, uniforms)
    assert codes.dtype == torch.long and 0 <= codes.min() and codes.max() < levels
    assert (uniforms < distribution.cumulative(parameters, codes)).all()
    below = distribution.cumulative(parameters, (codes - 1).clamp(min=0))
    assert (torch.where(codes == 0, 0, below) <= uniforms).all()


def test_temperature_divides_the_weights_logits_and_multiplies_the_scales():
    distribution, parameters = Logistics(256, 5), mixtures(500, 5)[:200]
    parameters[:, 10:] = parameters[:, 10:].clamp(-4, -1)
    uniforms = torch.rand(200, dtype=torch.float64)
    for temperature in (0.3, 2.5):
        changed = parameters.clone()
        changed[:, :5] /= temperature
        changed[:, 10:] += math.log(temperature)
        assert torch.equal(distribution.sample(parameters, uniforms, temperature),
                           distribution.sample(changed, uniforms))
    codes = distribution.sample(parameters, uniforms, 0)
    mean = parameters[:, 5:10].gather(1, parameters[:, :5].argmax(1, keepdim=True))[:, 0]
    assert torch.equal(codes, ((mean + 1) * 127.5).clamp(0, 255).round().long())
    assert torch.equal(distribution.sample(parameters, uniforms, 1e-9), codes)


def test_top_p_keeps_the_middle_of_the_distribution():
    distribution, parameters = Logistics(65536, 5), mixtures(500, 5)[:200]
    for top_p in (0.9, 0.2, 1e-9):
        def drawn(u, top_p=1.0):
            uniforms = torch.full((200,), u, dtype=torch.float64)
            return distribution.sample(parameters, uniforms, 1, top_p)

        ends = [drawn(u, top_p) for u in (0, 0.5, 1 - 2 ** -40)]
        expected = [drawn((1 - top_p) / 2), drawn(0.5), drawn((1 + top_p) / 2 * (1 - 2 ** -40))]
        for end, wanted in zip(ends, expected, strict=True):
            assert (end - wanted).abs().max() <= 1


# ------------------------------------------------------------------------------ initial outputs

def test_initial_components_spread_over_the_range():
    for levels in (64, 256, 65536):
        distribution = Logistics(levels, 10)
        weight, bias = torch.ones(60, 3), torch.zeros(60)
        distribution.initialize(weight, bias)
        means = bias.view(2, 3, 10)[:, 1]
        assert torch.allclose(means[0], torch.linspace(-0.9, 0.9, 10)) and torch.equal(*means)
        assert distribution.probabilities(bias.view(2, 30)).min() > 0.4 / levels
        assert (weight.view(2, 3, 10, 3)[:, 1] < 0.1).all()


def test_initial_components_fit_the_data_and_cover_the_rest():
    distribution = Logistics(65536, 10)
    torch.manual_seed(0)
    codes = (32768 + 300 * torch.randn(20_000)).long()
    results = []
    for read_codes in (None, lambda: codes):
        weight, bias = torch.ones(30, 4), torch.zeros(30)
        distribution.initialize(weight, bias)
        if read_codes:
            distribution.initialize(weight, bias, read_codes)
        results.append(distribution.nll(bias.expand(len(codes), -1), codes, "mean"))
        assert distribution.probabilities(bias[None]).min() > 1e-8
        assert torch.allclose(weight[10:20, 0], bias[20:].exp())  # in proportion to the scales
    assert results[1] < results[0] - 3


def test_a_softmax_has_torchs_initial_output():
    torch.manual_seed(3)
    expected = torch.nn.Linear(6, 16)
    torch.manual_seed(3)
    layer = torch.nn.Linear(6, 16)
    Softmax(16).initialize(layer.weight, layer.bias, lambda: 1 / 0)  # no data is read
    assert torch.equal(layer.weight, expected.weight) and torch.equal(layer.bias, expected.bias)


# ------------------------------------------------------------------------------ in the networks

def test_tiny_images_sum_to_1():
    torch.manual_seed(0)
    for channels, height, width in ((1, 2, 3), (3, 1, 2)):
        model = PixelCNN(PixelCNNConfig(3, channels, 6, 6, 2, **LOGISTICS)).double()
        shape = channels, height, width
        codes = torch.tensor(list(product(range(3), repeat=math.prod(shape)))).view(-1, *shape)
        nats = distributions.nll(model.distribution, model(codes), codes).flatten(1).sum(1)
        assert abs((-nats).exp().sum().item() - 1) < 1e-9
        assert nats.std() > 0.01


def test_short_sequences_sum_to_1():
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(4, 5, 5, 1, 2, prediction=True, **LOGISTICS)).double()
    codes = torch.tensor(list(product(range(4), repeat=5)))
    before = torch.full((len(codes), model.config.receptive_field), 2)
    outputs = model(torch.cat((before, codes[:, :-1]), dim=1))
    nats = distributions.nll(model.distribution, outputs, codes).sum(1)
    assert abs((-nats).exp().sum().item() - 1) < 1e-9


def test_the_networks_likelihood_is_of_their_distribution():
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(256, 3, 6, 6, 2, **LOGISTICS))
    codes = torch.randint(256, (4, 3, 5, 6))
    outputs = model(codes)
    assert outputs.shape == (4, 12, 3, 5, 6)
    each = likelihood.nll(model, Batch(codes, codes, None), "each")
    table = model.distribution.probabilities(outputs.movedim(1, -1))
    expected = -table.gather(-1, codes[..., None]).log()[..., 0].flatten(1).sum(1)
    assert torch.allclose(each, expected, rtol=1e-5)
    assert torch.allclose(likelihood.nll(model, Batch(codes, codes, None)), each.sum() / 360)


@pytest.mark.parametrize("config", [PixelCNNConfig, WaveNetConfig])
@pytest.mark.parametrize("values, message", [
    (dict(distribution="logistics"), "mixtures 0: the least is 1"),
    (dict(mixtures=3), "mixtures 3: goes with distribution logistics")])
def test_impossible_distributions(config, values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_a_softmax_has_no_prediction():
    with pytest.raises(ValueError, match="prediction True: goes with distribution logistics"):
        WaveNetConfig(prediction=True)
    with pytest.raises(TypeError, match="can't be shifted"):
        Softmax(8).shift(torch.zeros(1, 8), torch.zeros(1))


def test_names_of_distributions():
    assert output_distribution("softmax", 8) == Softmax(8)
    assert output_distribution("logistics", 8, 3) == Logistics(8, 3)
    assert Logistics(8, 3).parameters == 9 and Softmax(8).parameters == 8


# ------------------------------------------------------------------------------ beginning well

@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer, rate", [("adam", 1e-3), ("muon", 6e-3)])
def test_training_begins_well_from_any_seed(precision, optimizer, rate):
    """At the recommended learning rates, losses are finite and fall: pictures and 16-bit sound."""
    from training.optimization import embedding_weights, make_optimizer
    for seed in range(20):
        torch.manual_seed(seed)
        images = (torch.randn(16, 3, 8, 8).cumsum(3) * 20 + 128).clamp(0, 255).long()
        sound = (32768 + 3000 * torch.randn(4, 600).cumsum(1)).clamp(0, 65535).long()
        picture_model = PixelCNN(PixelCNNConfig(256, 3, 24, 24, 3, **LOGISTICS))
        sound_model = WaveNet(WaveNetConfig(65536, 16, 16, 2, 5, **LOGISTICS))
        field = sound_model.config.receptive_field
        for model, batch in ((picture_model, Batch(images, images, None)),
                             (sound_model, Batch(sound[:, :-1], sound[:, field:], None))):
            steps = make_optimizer(optimizer, model.parameters(), rate, 1e-4,
                                   embedding_weights(model))
            losses = []
            for _ in range(40):
                steps.zero_grad()
                with likelihood.matmul_precision(model, precision):
                    loss = likelihood.nll(model, batch)
                    loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                assert norm.isfinite()
                steps.step()
                losses.append(loss.item())
            assert losses[-1] < losses[0] < math.log(model.config.levels) + 3
