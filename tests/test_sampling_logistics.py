"""All samplers draw the same codes from mixtures of logistics, in any batch, on any threads."""

from copy import deepcopy

import numba
import numpy as np
import pytest
import torch

from models.distributions import Logistics
from models.kernels.compiling import OPTIONS
from models.kernels.layout import aligned_zeros, round_up
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling.compiled.distributions import sample_code, sampling_buffers
from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
from sampling.compiled.wavenet import CompiledWaveNetSampler
from sampling.pixelcnn import CachedPixelCNNSampler, NaivePixelCNNSampler, sample_images
from sampling.random_streams import RandomStreams
from sampling.wavenet import CachedWaveNetSampler, NaiveWaveNetSampler, sample_sounds

ALMOST_1 = 1 - 2 ** -53


def sensitive(model, narrower):
    """The network with larger weights, and scales so small that the past matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.5
        model.logits.bias.view(-1, 3, model.config.mixtures)[:, 2] -= narrower
    return model.eval()


def sound_model(levels=65536, narrower=3.0, prediction=True, **config):
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(levels, 8, 9, 2, 4, distribution="logistics", mixtures=5,
                                  prediction=prediction, **config))
    if prediction:
        model.prediction.copy_(torch.tensor([-0.3, 0.7]))
    return sensitive(model, narrower)


def image_model(levels=256, channels=3, **config):
    torch.manual_seed(0)
    return sensitive(PixelCNN(PixelCNNConfig(levels, channels, 12, 12, 3, distribution="logistics",
                                             mixtures=5, **config)), 1.0)


def sound(model, sampler, streams=range(4), length=200, **options):
    label = torch.arange(len(streams)) % 2 if model.config.labels else None
    return torch.cat([*sample_sounds(model, RandomStreams(3, streams), label, length,
                                     sampler=sampler, **options)], dim=1)


# ------------------------------------------------------------------------------ the kernel

@numba.njit(**OPTIONS)
def draw(parameters, size, levels, mixtures, uniforms, temperature, top_p, buffers, codes):
    for i in range(uniforms.size):
        codes[i] = sample_code(parameters, i * size, levels, mixtures, uniforms[i], temperature,
                               top_p, buffers)


def compiled_samples(parameters, levels, uniforms, temperature=1.0, top_p=1.0):
    count, size = len(parameters), round_up(parameters.shape[1])
    rows, codes = aligned_zeros((count, size)), np.empty(count, np.int64)
    rows[:] = -np.inf
    rows[:, :parameters.shape[1]] = parameters
    mixtures = parameters.shape[1] // 3
    draw(rows.ravel(), size, levels, mixtures, uniforms.numpy(), float(temperature), float(top_p),
         sampling_buffers(size, mixtures), codes)
    return torch.from_numpy(codes)


@pytest.mark.parametrize("levels", [2, 3, 256, 65536])
@pytest.mark.parametrize("mixtures", [1, 10, 40])
def test_the_compiled_kernel_draws_the_same_codes(levels, mixtures):
    """Of any mixture that a network can give: the first search must know where it may be wrong."""
    torch.manual_seed(levels + mixtures)
    parameters = torch.randn(6000, 3 * mixtures)
    parameters[:2000, mixtures:2 * mixtures] *= 100
    parameters[:, 2 * mixtures:] = torch.rand(6000, mixtures) * 26 - 18
    parameters[3000:, 2 * mixtures:] = torch.rand(3000, mixtures) * 4 - 6
    uniforms = torch.rand(6000, dtype=torch.float64)
    uniforms[:20], uniforms[20:40] = 0, ALMOST_1
    distribution = Logistics(levels, mixtures)
    # Uniform numbers that are a cumulative probability, or next to it.
    borders = distribution.cumulative(parameters, torch.randint(levels, (6000,)))
    uniforms[1000::5] = (borders + 1e-8 * torch.randn(6000)).clamp(0, ALMOST_1)[1000::5]
    for options in ((1, 1), (0, 1), (0.3, 1), (2, 0.7), (1, 1e-6), (5e-324, 1), (1e300, 1)):
        expected = distribution.sample(parameters, uniforms, *options)
        assert torch.equal(compiled_samples(parameters, levels, uniforms, *options), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_codes_are_in_range_even_for_nan_and_infinite_parameters(value):
    uniforms = torch.tensor([0, 0.3, ALMOST_1], dtype=torch.float64)
    for levels in (2, 65536):
        for where in (slice(None), slice(0, 5), slice(5, 10), slice(10, 15), slice(None, None, 2)):
            parameters = torch.randn(3, 15)
            parameters[:, where] = value
            for temperature in (0, 5e-324, 1, 1e300):
                codes = compiled_samples(parameters, levels, uniforms, temperature, 0.5)
                assert 0 <= codes.min() and codes.max() < levels


# ------------------------------------------------------------------------------ the networks

@pytest.mark.parametrize("options", [{}, dict(temperature=0), dict(temperature=0.5, top_p=0.8)],
                         ids=str)
@pytest.mark.parametrize("channels, config", [(1, dict(labels=2)), (3, dict(embedding=3))])
def test_images(channels, config, options):
    model = image_model(channels=channels, **config)
    label = torch.tensor([0, 1, 1]) if model.config.labels else None
    options["prefix"] = torch.randint(256, (3, channels, 2, 5))
    naive, cached, fast = (
        sample_images(network, RandomStreams(1, range(3)), label, 6, 5, sampler=sampler, **options)
        for network, sampler in ((deepcopy(model).double(), NaivePixelCNNSampler),
                                 (deepcopy(model).double(), CachedPixelCNNSampler),
                                 (model, CompiledPixelCNNSampler)))
    assert torch.equal(naive, cached) and torch.equal(naive, fast)
    assert len(naive.unique()) > 10


@pytest.mark.parametrize("options", [{}, dict(temperature=0), dict(temperature=0.5, top_p=0.8),
                                     dict(prime=5), dict(prime=200), dict(precision="bf16")],
                         ids=str)
@pytest.mark.parametrize("config", [dict(levels=256), dict(levels=256, prediction=False),
                                    dict(levels=256, labels=2)], ids=str)
def test_sounds_of_few_levels(config, options):
    model = sound_model(**config)
    if "prime" in options:
        options = {"prime": torch.randint(256, (4, options["prime"]))}
    naive, cached, fast = (sound(network, sampler, length=120, **options) for network, sampler in (
        (deepcopy(model).double(), NaiveWaveNetSampler),
        (deepcopy(model).double(), CachedWaveNetSampler), (model, CompiledWaveNetSampler)))
    assert torch.equal(naive, cached) and torch.equal(naive, fast)
    assert naive.float().std() > 1 or options.get("temperature") == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sounds_of_65536_levels(precision):
    """In double precision the samplers agree. In single, a rounding may move a sample by a code,
    and what follows differs: the compiled sampler's next sample is the plain network's, given its
    own past."""
    model = sound_model(narrower=1.0)
    naive, cached = (sound(deepcopy(model).double(), sampler, precision=precision)
                     for sampler in (NaiveWaveNetSampler, CachedWaveNetSampler))
    assert torch.equal(naive, cached) and naive.float().std() > 1000
    if precision == "bf16":
        return
    codes = sound(model, CompiledWaveNetSampler)
    before = torch.full((4, model.config.receptive_field), 32768)
    with torch.no_grad():
        outputs = deepcopy(model).double()(torch.cat((before, codes[:, :-1]), dim=1))
    uniforms = RandomStreams(3, range(4)).next_uniforms(200)
    outputs = outputs.permute(0, 2, 1)
    above = model.distribution.cumulative(outputs, codes)
    below = model.distribution.cumulative(outputs, (codes - 1).clamp(min=0))
    below = torch.where(codes == 0, 0, below)
    assert (above > uniforms - 1e-5).all() and (below <= uniforms + 1e-5).all()


def test_sounds_with_features():
    model = sound_model(levels=256, features=3, hop=10)
    frames = [torch.randn(12, 3) for _ in range(4)]
    naive, fast = (sound(network, sampler, length=120,
                         frames=[frame.to(network.logits.weight.dtype) for frame in frames])
                   for network, sampler in ((deepcopy(model).double(), NaiveWaveNetSampler),
                                            (model, CompiledWaveNetSampler)))
    assert torch.equal(naive, fast)


def test_the_same_in_any_batch_on_any_threads():
    model, pictures = sound_model(labels=2), image_model()
    whole = sound(model, CompiledWaveNetSampler, range(9))
    images = sample_images(pictures, RandomStreams(1, range(9)), None, 4, 5)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for streams in (range(9), range(2, 9, 2), [4]):
            label = torch.tensor(streams) % 2
            codes = torch.cat([*sample_sounds(model, RandomStreams(3, streams), label, 200)], dim=1)
            assert torch.equal(codes, whole[list(streams)])
            again = sample_images(pictures, RandomStreams(1, streams), None, 4, 5)
            assert torch.equal(again, images[list(streams)])
    assert len({codes.numpy().tobytes() for codes in whole}) == 9


def test_codes_are_read_as_numbers():
    """Neighbouring codes are read alike, and distant ones are not."""
    model = sound_model()
    codes = torch.tensor([1000, 1001, 64000])
    one, next_one, far = model.embed(codes, codes)
    assert (one - next_one).abs().max() < 1e-3 < (one - far).abs().max()
    assert "embed_past.weight" not in model.state_dict()
