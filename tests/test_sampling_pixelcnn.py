"""Images drawn with caches are those that running the whole network a sub-pixel draws."""

import pytest
import torch

from models.pixelcnn import PixelCNN, PixelCNNConfig
from sampling import pixelcnn
from sampling.draws import Draws
from sampling.pixelcnn import sample, sample_naive


@pytest.fixture
def logits(record_logits):
    """A list that the logits of every code drawn are added to."""
    return record_logits(pixelcnn)


def network(seed=0, **config):
    """A random network in double precision, its weights large enough for the past to matter."""
    torch.manual_seed(seed)
    model = PixelCNN(PixelCNNConfig(**{"levels": 4, "out_hidden_dim": 6, **config})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def labels_for(model, batch):
    return torch.arange(batch) % model.config.labels if model.config.labels else None


def both(model, logits, size, seed=0, batch=3, **options):
    """Codes and logits (steps, B, levels) of the cached and of the naive sampler."""
    results = []
    for sampler in (sample, sample_naive):
        logits.clear()
        codes = sampler(model, Draws(seed, range(batch)), labels_for(model, batch), *size,
                        **options)
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
], ids=str)
def test_cached_equals_naive(config, logits):
    model = network(**config)
    cached, cached_logits, naive, naive_logits = both(model, logits, (6, 7))
    assert torch.equal(cached, naive)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
    assert cached.shape == (3, model.config.channels, 6, 7)
    # Had the past no influence, caches with an error could give the same codes. Where nothing
    # but the past differs, between the steps of a channel, the probabilities differ widely.
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
                                    dict(channels=3, hidden_dim=7, blocks_num=3)], ids=str)
def test_completion(config, rows, logits):
    model = network(**config)
    given = torch.randint(4, (3, model.config.channels, rows, 5))
    if rows == 6:
        codes = sample(model, Draws(0, range(3)), labels_for(model, 3), 6, 5, given=given)
        assert torch.equal(codes, given)
        return
    called = []
    cached, cached_logits, naive, naive_logits = both(
        model, logits, (6, 5), given=given, on_row=lambda: called.append(1))
    assert torch.equal(cached, naive)
    assert torch.allclose(cached_logits, naive_logits, rtol=0, atol=1e-9)
    assert torch.equal(cached[:, :, :rows], given)
    assert len(called) == 2 * (6 - rows)
    if rows:
        _, other_logits, _, _ = both(model, logits, (6, 5), given=3 - given)
        assert (cached_logits[0] - other_logits[0]).abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [0, 0.3, 3])
def test_temperature(temperature, logits):
    model = network(channels=3, hidden_dim=7, blocks_num=2)
    cached, cached_logits, naive, _ = both(model, logits, (5, 4), temperature=temperature)
    assert torch.equal(cached, naive)
    if temperature == 0:
        steps = cached.permute(2, 3, 1, 0).flatten(0, 2)
        assert torch.equal(steps, cached_logits.argmax(-1))


def test_an_image_depends_on_its_seed_and_number_alone():
    model = network(channels=3, hidden_dim=7, blocks_num=2, labels=2)

    def images(seed, streams):
        label = torch.tensor([stream % 2 for stream in streams])
        return sample(model, Draws(seed, streams), label, 5, 6)

    whole = images(1, range(7))
    assert torch.equal(whole, images(1, range(7)))
    assert torch.equal(whole, torch.cat((images(1, range(2)), images(1, range(2, 7)))))
    assert not torch.equal(whole, images(2, range(7)))
    assert len({image.numpy().tobytes() for image in whole}) == 7


def test_single_precision_and_a_training_model():
    """As the scripts use it: float32; and without leaving gradients or the mode behind."""
    model = network(channels=1, hidden_dim=8, blocks_num=3).float().train()
    codes = sample(model, Draws(0, range(2)), None, 8, 8)
    assert codes.dtype == torch.long and codes.min() >= 0 and codes.max() < 4
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
