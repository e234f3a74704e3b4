"""Sound drawn with caches is that which running the network over the whole field draws."""

import pytest
import torch

from models.wavenet import WaveNet, WaveNetConfig
from sampling import wavenet
from sampling.draws import Draws
from sampling.wavenet import sample, sample_naive


@pytest.fixture
def logits(record_logits):
    """A list that the logits of every code drawn are added to."""
    return record_logits(wavenet)


def network(seed=0, **config):
    """A random network in double precision, its weights large enough for the past to matter."""
    torch.manual_seed(seed)
    model = WaveNet(WaveNetConfig(**{"levels": 16, "hidden_dim": 6, "out_hidden_dim": 5,
                                     **config})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
        for embedding in (model.embed_past, model.embed_now):
            embedding.weight.normal_(std=2)  # rougher than fresh ones: a code is soon forgotten
    return model.eval()


def labels_for(model, batch):
    return torch.arange(batch) % model.config.labels if model.config.labels else None


def both(model, logits, length, batch=3, **options):
    """Codes and logits (length, B, levels) of the cached and of the naive sampler."""
    results = []
    for sampler in (sample, sample_naive):
        logits.clear()
        codes = sampler(model, Draws(0, range(batch)), labels_for(model, batch), length, **options)
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
    # Had the past no influence, caches with an error could give the same codes. Where nothing
    # but the past differs, from sample to sample, the probabilities differ widely.
    assert cached_logits.softmax(-1).std(0).max() > 0.1
    # Even the oldest code of the field moves the logits by far more than the 1e-9 above.
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
    for given in (1, 2, field - 1, field, field + 1, 3 * field):
        prime = torch.randint(16, (3, given))
        cached, cached_logits, naive, naive_logits = both(model, logits, field + 2, prime=prime)
        assert torch.equal(cached, naive)
        assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
        _, others, _, _ = both(model, logits, 1, prime=15 - prime)
        assert (others[0] - cached_logits[0]).abs().max() > 1e-3


def test_silence_as_a_prime_changes_nothing():
    model = network(stacks_num=2, layers_num=3)
    silent = torch.full((2, 7), 8)
    assert torch.equal(sample(model, Draws(0, range(2)), None, 40),
                       sample(model, Draws(0, range(2)), None, 40, prime=silent))


@pytest.mark.parametrize("length", [1, 2, 128, 129, 300])
def test_lengths(length, logits):
    model = network(stacks_num=1, layers_num=2)
    counted = []
    cached, cached_logits, naive, naive_logits = both(model, logits, length,
                                                      on_block=counted.append)
    assert torch.equal(cached, naive) and cached.shape == (3, length)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
    assert sum(counted) == 2 * length and max(counted) <= 128


@pytest.mark.parametrize("temperature", [0, 0.3, 3])
def test_temperature(temperature, logits):
    model = network(stacks_num=2, layers_num=3)
    cached, cached_logits, naive, _ = both(model, logits, 50, temperature=temperature)
    assert torch.equal(cached, naive)
    if temperature == 0:
        assert torch.equal(cached.t(), cached_logits.argmax(-1))


def test_a_sound_depends_on_its_seed_and_number_alone():
    model = network(stacks_num=2, layers_num=3, labels=2)

    def sounds(seed, streams):
        label = torch.tensor([stream % 2 for stream in streams])
        return sample(model, Draws(seed, streams), label, 60)

    whole = sounds(1, range(7))
    assert torch.equal(whole, sounds(1, range(7)))
    assert torch.equal(whole, torch.cat((sounds(1, range(2)), sounds(1, range(2, 7)))))
    assert not torch.equal(whole, sounds(2, range(7)))
    assert len({sound.numpy().tobytes() for sound in whole}) == 7


def test_single_precision_and_a_training_model():
    """As the scripts use it: float32; and without leaving gradients or the mode behind."""
    model = network(stacks_num=2, layers_num=3).float().train()
    codes = sample(model, Draws(0, range(2)), None, 100)
    assert codes.min() >= 0 and codes.max() < 16
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
