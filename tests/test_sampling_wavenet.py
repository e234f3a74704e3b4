"""The cached WaveNet sampler draws what the network on the whole receptive field draws."""

from itertools import islice

import pytest
import torch

from models.wavenet import WaveNet, WaveNetConfig
from sampling import wavenet
from sampling.compiled import wavenet as wavenet_compiled
from sampling.random_streams import RandomStreams
from sampling.wavenet import (
    MAX_CHUNK,
    CachedWaveNetSampler,
    NaiveWaveNetSampler,
    round_to_bf16,
    sample_sounds,
)


@pytest.fixture
def logits(record_logits):
    """A list that collects the logits of every drawn code."""
    return record_logits()


def network(seed=0, **config):
    """A random network in double precision, with weights large enough for the past to matter."""
    torch.manual_seed(seed)
    model = WaveNet(WaveNetConfig(**{"levels": 16, "hidden_dim": 6, "out_hidden_dim": 5,
                                     **config})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
        for embedding in (model.embed_past, model.embed_now):
            embedding.weight.normal_(std=2)  # rougher than initially, so that single codes matter
    return model.eval()


def labels_for(model, batch):
    return torch.arange(batch) % model.config.labels if model.config.labels else None


def sound(model, streams, label, length, **options):
    """The chunks of `sample_sounds` as one tensor (B, length)."""
    return torch.cat(list(sample_sounds(model, streams, label, length, **options)), dim=1)


def both(model, logits, length, batch=3, **options):
    """Codes and logits (length, B, levels) of the cached and the naive sampler."""
    results = []
    for sampler in (CachedWaveNetSampler, NaiveWaveNetSampler):
        logits.clear()
        codes = sound(model, RandomStreams(0, range(batch)), labels_for(model, batch), length,
                      sampler=sampler, **options)
        results += [codes, torch.stack(logits)]
    return results


SHAPES = [dict(stacks_num=1, layers_num=1), dict(stacks_num=3, layers_num=1, labels=2),
          dict(stacks_num=1, layers_num=5), dict(stacks_num=3, layers_num=3, labels=3),
          dict(stacks_num=2, layers_num=4, hidden_dim=5, out_hidden_dim=9)]


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_cached_equals_naive(config, logits):
    model = network(**config)
    field = model.config.receptive_field
    cached, cached_logits, naive, naive_logits = both(model, logits, 3 * field + 2)
    assert torch.equal(cached, naive)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
    assert cached.shape == (3, 3 * field + 2) and cached.dtype == torch.long
    # Without an influence of the past, wrong caches could give the same codes. From sample to
    # sample only the past differs, and the probabilities differ widely.
    assert cached_logits.softmax(-1).std(0).max() > 0.1
    # Even the oldest code of the receptive field changes the logits by far more than 1e-9.
    last = cached[:, -field:].clone()
    changed = last.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 16
    labels = labels_for(model, 3)
    difference = model(changed, labels) - model(last, labels)
    assert difference.abs().max() > 1e-7


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_primed(config, logits):
    model = network(**config)
    field = model.config.receptive_field
    for length in (1, 2, field - 1, field, field + 1, 3 * field):
        prime = torch.randint(16, (3, length))
        cached, cached_logits, naive, naive_logits = both(model, logits, field + 2, prime=prime)
        assert torch.equal(cached, naive)
        assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
        _, others, _, _ = both(model, logits, 1, prime=15 - prime)
        assert (others[0] - cached_logits[0]).abs().max() > 1e-3


def test_naive_logits_equal_those_of_one_run_on_the_drawn_codes(logits):
    model = network(stacks_num=2, layers_num=3, labels=2)
    label, prime = labels_for(model, 3), torch.randint(16, (3, 5))
    codes = sound(model, RandomStreams(0, range(3)), label, 60, sampler=NaiveWaveNetSampler,
                  prime=prime)
    silent = torch.full((3, model.config.receptive_field), 8)
    context = torch.cat((silent, prime, codes), dim=1)
    expected = model(context, label)[:, :, 5:-1].permute(2, 0, 1)
    assert torch.allclose(torch.stack(logits), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", [CachedWaveNetSampler, NaiveWaveNetSampler])
def test_a_prime_of_silence_changes_nothing(sampler):
    model = network(stacks_num=2, layers_num=3)
    for length in (0, 1, 7, 40):
        silent = torch.full((2, length), 8)
        assert torch.equal(sound(model, RandomStreams(0, range(2)), None, 40, sampler=sampler),
                           sound(model, RandomStreams(0, range(2)), None, 40, sampler=sampler,
                                 prime=silent))


@pytest.mark.parametrize("length", [1, 2, 1023, 1024, 1025, 2500])
def test_lengths(length, logits):
    model = network(stacks_num=1, layers_num=2)
    cached, cached_logits, naive, naive_logits = both(model, logits, length, batch=2)
    assert torch.equal(cached, naive) and cached.shape == (2, length)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("double", [False, True])
def test_sound_comes_in_chunks_and_without_end(double):
    model = network(stacks_num=2, layers_num=2).to(torch.float64 if double else torch.float32)
    whole = sound(model, RandomStreams(0, range(2)), None, 3000)
    endless = list(islice(sample_sounds(model, RandomStreams(0, range(2)), None), 14))
    for chunk in endless:
        assert chunk.dtype == torch.long and chunk.device.type == "cpu"
        assert chunk.shape[0] == 2 and 1 <= chunk.shape[1] <= MAX_CHUNK
    assert endless[0].shape[1] == 1  # so that a listener hears the first sample at once
    endless = torch.cat(endless, dim=1)
    assert endless.shape[1] > 14
    assert torch.equal(endless[:, :3000], whole[:, :endless.shape[1]])


def test_chunks_do_not_take_long(monkeypatch):
    """A slow network draws small chunks."""
    clock = iter(range(0, 10 ** 6, 10))  # a chunk takes ten seconds
    monkeypatch.setattr(wavenet.time, "perf_counter", lambda: next(clock))
    model = network(stacks_num=1, layers_num=1)
    sizes = [chunk.shape[1] for chunk in sample_sounds(model, RandomStreams(0, range(2)), None, 20)]
    assert sizes == [1] * 20


@pytest.mark.parametrize("options", [dict(temperature=0), dict(temperature=0.3),
                                     dict(temperature=3), dict(top_p=0.5), dict(top_p=1e-6),
                                     dict(temperature=3, top_p=0.9)], ids=str)
def test_temperature_and_top_p(options, logits):
    model = network(stacks_num=2, layers_num=3)
    cached, cached_logits, naive, _ = both(model, logits, 50, **options)
    assert torch.equal(cached, naive)
    most_probable = torch.equal(cached.t(), cached_logits.argmax(-1))
    assert most_probable == (options in (dict(temperature=0), dict(top_p=1e-6)))
    assert not torch.equal(cached, sound(model, RandomStreams(0, range(3)), None, 50))


@pytest.mark.parametrize("double", [False, True])
def test_a_sound_depends_only_on_its_seed_and_number(double):
    model = network(stacks_num=2, layers_num=3, labels=2)
    model = model if double else model.float()

    def sounds(seed, streams):
        label = torch.tensor([stream % 2 for stream in streams])
        return sound(model, RandomStreams(seed, streams), label, 60)

    whole = sounds(1, range(7))
    assert torch.equal(whole, sounds(1, range(7)))
    assert torch.equal(whole, torch.cat((sounds(1, range(2)), sounds(1, range(2, 7)))))
    assert not torch.equal(whole, sounds(2, range(7)))
    assert len({codes.numpy().tobytes() for codes in whole}) == 7


@pytest.mark.parametrize("sampler", [None, CachedWaveNetSampler])
def test_single_precision_and_a_training_model(sampler):
    """Sampling leaves no gradients behind, and keeps the mode."""
    model = network(stacks_num=2, layers_num=3).float().train()
    codes = sound(model, RandomStreams(0, range(2)), None, 100, sampler=sampler)
    assert codes.min() >= 0 and codes.max() < 16
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_compiled_sampler_is_for_single_precision_on_the_cpu(monkeypatch):
    used = []

    def stand_in(name):
        def sampler(*args):
            used.append(name)
            return NaiveWaveNetSampler(*args)
        return sampler

    monkeypatch.setattr(wavenet, "CachedWaveNetSampler", stand_in("cached"))
    monkeypatch.setattr(wavenet_compiled, "CompiledWaveNetSampler", stand_in("compiled"))
    model = network(stacks_num=1, layers_num=1)
    sound(model, RandomStreams(0, [0]), None, 1)
    sound(model.float(), RandomStreams(0, [0]), None, 1)
    assert used == ["cached", "compiled"]


def test_bf16_weights(logits):
    """Only the weights of the matrix products are rounded."""
    model = network(stacks_num=2, layers_num=3, labels=2)
    coarse = round_to_bf16(model)
    exact = sound(model, RandomStreams(0, range(3)), labels_for(model, 3), 100)
    expected = sound(coarse, RandomStreams(0, range(3)), labels_for(model, 3), 100,
                     sampler=NaiveWaveNetSampler)
    coarse_logits = torch.stack(logits[-100:])
    for sampler in (CachedWaveNetSampler, NaiveWaveNetSampler):
        logits.clear()
        codes = sound(model, RandomStreams(0, range(3)), labels_for(model, 3), 100,
                      precision="bf16", sampler=sampler)
        assert torch.equal(codes, expected)
        assert torch.allclose(torch.stack(logits), coarse_logits, rtol=0, atol=1e-9)
    assert not torch.equal(exact, expected)


def test_rounding_is_to_nearest_and_only_of_matrix_products():
    model = network(stacks_num=2, layers_num=1, labels=2).float()
    with torch.no_grad():  # a bfloat16 has 8 bits: its step is 2^-7 between 1 and 2
        model.hidden.weight[0, :5] = torch.tensor([1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 1e-6,
                                                   -1 - 2 ** -8, 1e-40])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    coarse = round_to_bf16(model).state_dict()
    assert coarse["hidden.weight"][0, :4].tolist() == [1, 1 + 2 ** -6, 1 + 2 ** -7, -1]
    products = [name for name in before
                if name.endswith("weight") and "embed" not in name and "condition" not in name]
    assert len(products) == 4 * 2 - 1 + 2
    for name, value in before.items():
        if name in products:
            assert torch.equal(coarse[name].view(torch.int32) & 0xFFFF, torch.zeros(()).int()
                               .expand(coarse[name].shape))
            assert ((coarse[name] - value).abs() <= value.abs() * 2 ** -8 + 1e-40).all()
            assert not torch.equal(coarse[name], value)
        else:
            assert torch.equal(coarse[name], value)
        assert torch.equal(model.state_dict()[name], value)  # the network itself is unchanged
