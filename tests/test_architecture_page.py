"""docs/architecture.md: files that it names are there, and its examples do what it says."""

import re
from pathlib import Path

import pytest
import torch
from test_commands import write_mnist
from test_optimization import trainer_of

from datasets.batches import Batch
from datasets.images import published
from datasets.images.dataset import load_images
from models import compiled, dilated, gated
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling.pixelcnn import CachedPixelCNNSampler, NaivePixelCNNSampler, sample_images
from sampling.random_streams import RandomStreams
from training import likelihood
from training.stopping import StopCondition

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")


def example(heading):
    """What the Python block below a heading defines."""
    found = {}
    section = PAGE[PAGE.index(f"### {heading}\n"):]
    block = re.search(r"```python\n(.*?)```", section, re.S)[1]
    exec(compile(block, heading, "exec"), found)
    return found


def test_every_file_that_is_named_is_there():
    for row in re.findall(r"^\|.*\|$", PAGE, re.M):
        folder = ROOT
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", row.split("|")[3]):
            path = ROOT / name if "/" in name else folder / name
            assert path.exists(), path
            folder = path.parent
    folders = "models|training|datasets|sampling|cli|common|tests"
    for name in re.findall(rf"`((?:{folders})/[\w/.]*)`", PAGE):
        assert (ROOT / name).exists(), name


def test_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "SETS", dict(published.SETS))
    monkeypatch.setattr("datasets.images.dataset.SETS", published.SETS)
    example("A data set")
    write_mnist(tmp_path / "KMNIST/raw")
    images = load_images("kmnist", tmp_path)
    assert images.label_names == [str(number) for number in range(10)] and len(images.train.pixels)


def test_another_distribution():
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(8, 1, 6, 6, 2)).double()
    model.logits.weight.data *= 50
    codes = torch.randint(8, (3, 1, 4, 5))
    sharp = likelihood.nll(model, Batch(codes, codes, None)).item()
    model.distribution = example("Another distribution")["MixedWithUniform"](8, 0.5)
    assert likelihood.nll(model, Batch(codes, codes, None)).item() < sharp
    drawn = [sample_images(model, RandomStreams(0, range(3)), None, 4, 5, sampler=sampler)
             for sampler in (NaivePixelCNNSampler, CachedPixelCNNSampler)]
    assert torch.equal(*drawn)
    probs = model.distribution.probabilities(model(codes).movedim(1, -1))
    assert probs.min() > 0.06 and torch.allclose(probs.sum(-1), torch.ones(()).double())


def test_an_extension():
    first, second = (example("An extension")["CountUpdates"]() for _ in range(2))
    trainer = trainer_of(StopCondition(iterations=3))
    trainer.extend(first, trigger=(1, "iteration"))
    trainer.run()
    resumed = trainer_of(StopCondition(iterations=5))
    resumed.extend(second, trigger=(1, "iteration"))
    resumed.load_state_dict(trainer.state_dict())
    resumed.run()
    assert first.updates >= 3 and second.updates >= first.updates + 2


@pytest.fixture
def other_gate():
    before = gated.gate_forward_, gated.gate_backward
    example("Another gate")
    yield
    compiled.enabled = True
    for module in (gated, dilated):
        module.gate_forward_, module.gate_backward = before


@pytest.mark.parametrize("network, codes", [
    (PixelCNN(PixelCNNConfig(4, 1, 4, 4, 3)), torch.randint(4, (2, 1, 5, 5))),
    (WaveNet(WaveNetConfig(4, 3, 3, 1, 3)), torch.randint(4, (2, 14)))],
    ids=["pixelcnn", "wavenet"])
def test_another_gate(other_gate, network, codes):
    network = network.double()
    a, b = torch.randn(2, 5, 3, dtype=torch.float64)
    y = gated.gate(torch.cat((a, b), dim=-1))
    torch.testing.assert_close(y, a.sigmoid() * b.sigmoid())
    # The gradient is that of what is computed: a step along it changes the loss as it says.
    loss = network(codes).log_softmax(1)[:, 0].mean()
    loss.backward()
    weights, step = list(network.parameters()), 1e-6
    slope = sum(float((weight.grad ** 2).sum()) for weight in weights if weight.grad is not None)
    with torch.no_grad():
        for weight in weights:
            if weight.grad is not None:
                weight.add_(weight.grad, alpha=step)
        moved = network(codes).log_softmax(1)[:, 0].mean()
    assert float(moved - loss.detach()) == pytest.approx(step * slope, rel=1e-3)


def test_the_naive_sampler_draws_with_another_gate(other_gate):
    torch.manual_seed(0)
    network = PixelCNN(PixelCNNConfig(4, 1, 4, 4, 3)).eval()
    codes = sample_images(network, RandomStreams(0, [0]), None, 4, 4, sampler=NaivePixelCNNSampler)
    assert codes.shape == (1, 1, 4, 4)
