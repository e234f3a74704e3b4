"""The cached PixelCNN sampler draws what the whole network per sub-pixel draws."""

import pytest
import torch

from models.pixelcnn import PixelCNN, PixelCNNConfig
from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
from sampling.pixelcnn import CachedPixelCNNSampler, NaivePixelCNNSampler, sample_images
from sampling.random_streams import RandomStreams


@pytest.fixture
def logits(record_logits):
    """A list that collects the logits of every drawn code."""
    return record_logits()


def network(seed=0, gain=4, **config):
    """A random network in double precision, with weights large enough for the past to matter."""
    torch.manual_seed(seed)
    model = PixelCNN(PixelCNNConfig(**{"levels": 4, "out_hidden_dim": 6, **config})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    return model.eval()


def labels_for(model, batch):
    """A label or a vector for each image, or None, depending on the network."""
    if model.config.vector:
        return torch.sin(torch.arange(batch * model.config.vector)).view(batch, -1)
    return torch.arange(batch) % model.config.labels if model.config.labels else None


def both(model, logits, size, seed=0, batch=3, **options):
    """Codes and logits (steps, B, levels) of the cached and the naive sampler."""
    results = []
    for sampler in (CachedPixelCNNSampler, NaivePixelCNNSampler):
        logits.clear()
        codes = sample_images(model, RandomStreams(seed, range(batch)), labels_for(model, batch),
                              *size, sampler=sampler, **options)
        results += [codes, torch.stack(logits)]
    return results


@pytest.mark.parametrize("config", [
    dict(channels=1, hidden_dim=1, out_hidden_dim=1, blocks_num=1),
    dict(channels=1, hidden_dim=5, blocks_num=2, labels=3),
    dict(channels=1, hidden_dim=8, blocks_num=4, levels=2),
    dict(channels=3, hidden_dim=4, out_hidden_dim=3, blocks_num=1, labels=2),
    dict(channels=3, hidden_dim=7, out_hidden_dim=5, blocks_num=2),
    dict(channels=3, hidden_dim=5, out_hidden_dim=7, blocks_num=4, labels=3),
    dict(channels=3, hidden_dim=9, out_hidden_dim=4, blocks_num=4, levels=7),
    dict(channels=1, hidden_dim=5, blocks_num=1, vector=1),
    dict(channels=3, hidden_dim=7, blocks_num=4, vector=11),
    dict(channels=1, hidden_dim=5, blocks_num=1, position=True),
    dict(channels=3, hidden_dim=7, blocks_num=4, labels=3, position=True),
    dict(channels=1, hidden_dim=5, blocks_num=1, embedding=1),
    dict(channels=3, hidden_dim=7, blocks_num=3, labels=3, position=True, embedding=4),
], ids=str)
def test_cached_equals_naive(config, logits):
    model = network(**config)
    cached, cached_logits, naive, naive_logits = both(model, logits, (6, 7))
    assert torch.equal(cached, naive)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
    assert cached.shape == (3, model.config.channels, 6, 7)
    # Without an influence of the past, wrong caches could give the same codes. Between the steps of
    # a channel only the past differs, and the probabilities differ widely.
    probabilities = cached_logits.softmax(-1).unflatten(0, (-1, model.config.channels))
    if model.config.hidden_dim > 1:
        assert probabilities.std(0).max() > 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_small_images(size, logits):
    model = network(channels=3, hidden_dim=5, blocks_num=3)
    cached, cached_logits, naive, naive_logits = both(model, logits, size)
    assert torch.equal(cached, naive)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("config", [dict(channels=1, hidden_dim=5, blocks_num=2, labels=2),
                                    dict(channels=3, hidden_dim=7, blocks_num=3),
                                    dict(channels=1, hidden_dim=7, blocks_num=3, vector=4),
                                    dict(channels=3, hidden_dim=9, blocks_num=3, position=True),
                                    dict(channels=3, hidden_dim=6, blocks_num=2, embedding=3)],
                         ids=str)
def test_completion(config, rows, logits):
    model = network(**config)
    prefix = torch.randint(4, (3, model.config.channels, rows, 5))
    if rows == 6:
        for sampler in (CachedPixelCNNSampler, NaivePixelCNNSampler):
            codes = sample_images(model, RandomStreams(0, range(3)), labels_for(model, 3), 6, 5,
                                  prefix=prefix, sampler=sampler)
            assert torch.equal(codes, prefix) and not logits
        return
    called = []
    cached, cached_logits, naive, naive_logits = both(
        model, logits, (6, 5), prefix=prefix, on_row=lambda: called.append(1))
    assert torch.equal(cached, naive)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
    assert torch.equal(cached[:, :, :rows], prefix)
    assert len(called) == 2 * (6 - rows)
    if rows:
        _, other_logits, _, _ = both(model, logits, (6, 5), prefix=3 - prefix)
        assert (cached_logits[0] - other_logits[0]).abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [0, 0.3, 3])
def test_temperature(temperature, logits):
    model = network(channels=3, hidden_dim=7, blocks_num=2)
    cached, cached_logits, naive, _ = both(model, logits, (5, 4), temperature=temperature)
    assert torch.equal(cached, naive)
    if temperature == 0:
        steps = cached.permute(2, 3, 1, 0).flatten(0, 2)
        assert torch.equal(steps, cached_logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_top_p(temperature, logits):
    model = network(channels=3, hidden_dim=7, blocks_num=2, levels=9)
    options = dict(temperature=temperature, top_p=0.5)
    cached, cached_logits, naive, _ = both(model, logits, (5, 4), **options)
    assert torch.equal(cached, naive)
    # The codes that are more probable than the drawn one have less than `top_p` together.
    probs = (cached_logits / temperature).softmax(-1)
    drawn = probs.gather(-1, cached.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None])
    assert (torch.where(probs > drawn, probs, 0).sum(-1) < 0.5).all()
    assert (drawn[:, :, 0] < probs.amax(-1)).any()
    whole, whole_logits, _, _ = both(model, logits, (5, 4), temperature=temperature)
    probs = (whole_logits / temperature).softmax(-1)
    drawn = probs.gather(-1, whole.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None])
    assert (torch.where(probs > drawn, probs, 0).sum(-1) >= 0.5).any()
    # One code always has so small a probability.
    cached, _, naive, _ = both(model, logits, (5, 4), temperature=temperature, top_p=1e-6)
    most_probable, _, _, _ = both(model, logits, (5, 4), temperature=0)
    assert torch.equal(cached, most_probable) and torch.equal(naive, most_probable)


def test_the_default_sampler(monkeypatch):
    used = []
    for sampler in (CachedPixelCNNSampler, CompiledPixelCNNSampler):
        def begin(self, *args, sampler=sampler, original=sampler.__init__):
            used.append(sampler)
            original(self, *args)

        monkeypatch.setattr(sampler, "__init__", begin)
    model = network(hidden_dim=5, blocks_num=2)
    for precision in (torch.float64, torch.float32, torch.bfloat16):
        sample_images(model.to(precision), RandomStreams(0, range(2)), None, 2, 2)
    assert used == [CachedPixelCNNSampler, CompiledPixelCNNSampler, CachedPixelCNNSampler]


def test_an_image_depends_only_on_its_seed_and_number():
    model = network(channels=3, hidden_dim=7, blocks_num=2, labels=2)

    def images(seed, streams):
        label = torch.tensor([stream % 2 for stream in streams])
        return sample_images(model, RandomStreams(seed, streams), label, 5, 6)

    whole = images(1, range(7))
    assert torch.equal(whole, images(1, range(7)))
    assert torch.equal(whole, torch.cat((images(1, range(2)), images(1, range(2, 7)))))
    assert not torch.equal(whole, images(2, range(7)))
    assert len({image.numpy().tobytes() for image in whole}) == 7


@pytest.mark.parametrize("sampler", [NaivePixelCNNSampler, CachedPixelCNNSampler, None])
def test_single_precision_and_a_training_model(sampler):
    """Sampling leaves no gradients behind, and keeps the mode."""
    model = network(channels=1, hidden_dim=8, blocks_num=3).float().train()
    codes = sample_images(model, RandomStreams(0, range(2)), None, 8, 8, sampler=sampler)
    assert codes.dtype == torch.long and codes.min() >= 0 and codes.max() < 4
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
