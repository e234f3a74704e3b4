"""Images drawn with caches are those that running the whole network a sub-pixel draws."""

import pytest
import torch

from models.pixelcnn import PixelCNN, PixelCNNConfig
from sampling import pixelcnn
from sampling.compiled.pixelcnn import Compiled
from sampling.pixelcnn import Cached, Naive, sample
from sampling.random_streams import Draws


@pytest.fixture
def logits(record_logits):
    """A list that the logits of every code drawn are added to."""
    return record_logits(pixelcnn)


def network(seed=0, gain=4, **config):
    """A random network in double precision, its weights large enough for the past to matter."""
    torch.manual_seed(seed)
    model = PixelCNN(PixelCNNConfig(**{"levels": 4, "out_hidden_dim": 6, **config})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    return model.eval()


def labels_for(model, batch):
    """A label or a vector for each image, or None, as the network is to have it."""
    if model.config.vector:
        return torch.sin(torch.arange(batch * model.config.vector)).view(batch, -1)
    return torch.arange(batch) % model.config.labels if model.config.labels else None


def both(model, logits, size, seed=0, batch=3, **options):
    """Codes and logits (steps, B, levels) of the cached and of the naive sampler."""
    results = []
    for sampler in (Cached, Naive):
        logits.clear()
        codes = sample(model, Draws(seed, range(batch)), labels_for(model, batch), *size,
                       sampler=sampler, **options)
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
                                    dict(channels=3, hidden_dim=7, blocks_num=3),
                                    dict(channels=1, hidden_dim=7, blocks_num=3, vector=4),
                                    dict(channels=3, hidden_dim=9, blocks_num=3, position=True)],
                         ids=str)
def test_completion(config, rows, logits):
    model = network(**config)
    given = torch.randint(4, (3, model.config.channels, rows, 5))
    if rows == 6:
        for sampler in (Cached, Naive):
            codes = sample(model, Draws(0, range(3)), labels_for(model, 3), 6, 5, given=given,
                           sampler=sampler)
            assert torch.equal(codes, given) and not logits
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


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_top_p(temperature, logits):
    model = network(channels=3, hidden_dim=7, blocks_num=2, levels=9)
    options = dict(temperature=temperature, top_p=0.5)
    cached, cached_logits, naive, _ = both(model, logits, (5, 4), **options)
    assert torch.equal(cached, naive)
    # Those at least as probable as the one drawn leave out a half that is less probable.
    odds = (cached_logits / temperature).softmax(-1)
    drawn = odds.gather(-1, cached.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None])
    assert (torch.where(odds > drawn, odds, 0).sum(-1) < 0.5).all()
    assert (drawn[:, :, 0] < odds.amax(-1)).any()
    whole, whole_logits, _, _ = both(model, logits, (5, 4), temperature=temperature)
    odds = (whole_logits / temperature).softmax(-1)
    drawn = odds.gather(-1, whole.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None])
    assert (torch.where(odds > drawn, odds, 0).sum(-1) >= 0.5).any()
    # So little is always held by one code.
    cached, _, naive, _ = both(model, logits, (5, 4), temperature=temperature, top_p=1e-6)
    likeliest, _, _, _ = both(model, logits, (5, 4), temperature=0)
    assert torch.equal(cached, likeliest) and torch.equal(naive, likeliest)


def test_which_sampler_is_the_default(monkeypatch):
    used = []
    for sampler in (Cached, Compiled):
        def begin(self, *args, sampler=sampler, original=sampler.__init__):
            used.append(sampler)
            original(self, *args)

        monkeypatch.setattr(sampler, "__init__", begin)
    model = network(hidden_dim=5, blocks_num=2)
    for precision in (torch.float64, torch.float32, torch.bfloat16):
        sample(model.to(precision), Draws(0, range(2)), None, 2, 2)
    assert used == [Cached, Compiled, Cached]


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


@pytest.mark.parametrize("sampler", [Naive, Cached, None])
def test_single_precision_and_a_training_model(sampler):
    """As the scripts use it: float32; and without leaving gradients or the mode behind."""
    model = network(channels=1, hidden_dim=8, blocks_num=3).float().train()
    codes = sample(model, Draws(0, range(2)), None, 8, 8, sampler=sampler)
    assert codes.dtype == torch.long and codes.min() >= 0 and codes.max() < 4
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
