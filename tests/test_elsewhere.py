"""The scripts' path for a GPU, on one in name only: every tensor is on the device that it is to be.

The arithmetic is the CPU's, so the result is that of the plain form on the CPU, to the last bit;
but for dropout, which a GPU draws in another way. What only a GPU can show is in test_cuda.py
and test_cuda_scripts.py.
"""

from types import SimpleNamespace

import pytest
import torch
from elsewhere import Elsewhere, Remote
from forks import PIXELCNN, WAVENET, difference, forked, snapshot_in

from models import compiled
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, previews, wavenet
from sampling.random_streams import RandomStreams
from training import device

BOTH = pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])
CUDA = torch.device("cuda", 0)


def a_gpu():
    """In a fork of a test: let there be one."""
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1,
                           set_device=lambda number: None,
                           get_device_capability=lambda device: (8, 0))
    device.torch = SimpleNamespace(**{**vars(torch), "cuda": cuda})
    previews.SECONDS, previews.ROWS, previews.COLUMNS = 0, 1, 1  # as few as can be
    Elsewhere().__enter__()


def a_cpu():
    """In a fork of a test: compute on the CPU as a GPU does, in the plain form."""
    compiled.enabled = False


# ------------------------------------------------------------------------------ the check itself

@pytest.mark.parametrize("mistake", [
    lambda there: there + torch.zeros(3), lambda there: torch.zeros(3) * there,
    lambda there: torch.stack((there.sum(), torch.tensor(1.0))),
    lambda there: torch.zeros(3)[there.long()], lambda there: there.numpy(),
    lambda there: there.add_(torch.zeros(3)), lambda there: there @ torch.zeros(3)],
    ids=("sum", "product", "stack", "index", "numpy", "in place", "matrix product"))
def test_mistakes_that_a_gpu_refuses_are_refused(mistake):
    with Elsewhere():
        there = torch.ones(3, device="cuda")
        with pytest.raises((RuntimeError, TypeError), match="cuda:0"):
            mistake(there)


def test_operations_that_a_gpu_allows_work():
    with Elsewhere():
        there = torch.tensor([1.0, 2, 3], device=CUDA)
        there[torch.tensor([0, 2])] *= torch.tensor(2.0)
        here = torch.zeros(3)
        here.copy_(there)
        for same in (here, there.cpu(), there.to("cpu"), torch.tensor(there.tolist())):
            assert type(same) is torch.Tensor and same.tolist() == [2, 2, 6]
        layer = torch.nn.Linear(3, 2).to("cuda")
        layer(there).sum().backward()
        for part in (there, there.new_zeros(2), torch.zeros_like(there), layer.weight.grad):
            assert type(part) is Remote and part.device == CUDA and part.is_cuda


# ------------------------------------------------------------------------------ training

@BOTH
def test_a_run_on_the_gpu_is_the_run_on_the_cpu(world, tmp_path, command):
    """And it is resumed on the other device in the middle: what it keeps is on the new one."""
    command += " --validation 0.5" if command == PIXELCNN else ""
    command += " --ema 0.9 --stats --precision bf16 --sample_every 2"
    devices = {"there": (0, a_gpu), "here": (-1, a_cpu)}
    for name, (gpu, prepare) in devices.items():
        forked(f"{command} --iterations 2 -g{gpu} -o {tmp_path / name}", world, prepare)
    assert difference(*(snapshot_in(tmp_path / name, 2) for name in devices)) == ""
    for name, (gpu, prepare) in zip(devices, reversed(devices.values()), strict=True):
        forked(f"{command} --iterations 4 -g{gpu} -o {tmp_path / name} --resume auto", world,
               prepare)
    assert difference(*(snapshot_in(tmp_path / name, 4) for name in devices)) == ""


@pytest.mark.parametrize("network", [PixelCNN(PixelCNNConfig(2, 1, 4, 4, 2)),
                                     WaveNet(WaveNetConfig(2, 4, 4, 1, 2))], ids=type)
def test_dropout_is_drawn_on_the_gpu(network):
    network.dropout = 0.5
    with Elsewhere():
        network.to(CUDA)
        codes = torch.zeros(1, *([1, 4] if isinstance(network, PixelCNN) else []), 6, dtype=int)
        for train, same in ((True, False), (False, True)):
            logits = [network.train(train)(codes.to(CUDA)).cpu() for _ in range(2)]
            assert torch.equal(*logits) == same


def test_step_counts_of_the_cpu_move_to_the_gpu():
    """A snapshot's Adam may have been another kind of Adam, which counts on the CPU."""
    from test_optimization import trainer_of

    from models.model_file import copy_to_cpu
    from training.stopping import StopCondition
    first = trainer_of(StopCondition(iterations=3))
    first.run()
    state = copy_to_cpu(first.state_dict())
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    with Elsewhere():
        trainer = trainer_of(StopCondition(iterations=6))
        trainer.model.to(CUDA)
        trainer.optimizer = type(trainer.optimizer)(trainer.model.parameters(), lr=3e-3, fused=True)
        trainer.device = CUDA
        trainer.load_state_dict(state)
        trainer.run()
        assert {type(value) for kept in trainer.optimizer.state.values()
                for value in kept.values()} == {Remote}


# ------------------------------------------------------------------------------ sampling

def drawn(draw, network):
    """What draw(network, device) gives on the CPU and there."""
    here = draw(network, torch.device("cpu"))
    with Elsewhere():
        return here, draw(network.to("cuda"), CUDA)


@pytest.mark.parametrize("config", [dict(labels=2), dict(vector=3), dict(position=True)], ids=str)
@pytest.mark.parametrize("sampler", [pixelcnn.CachedPixelCNNSampler, pixelcnn.NaivePixelCNNSampler])
def test_images_drawn_on_the_gpu(config, sampler):
    torch.manual_seed(0)
    network = PixelCNN(PixelCNNConfig(4, 3, 6, 6, 2, **config)).eval()
    label = torch.tensor([0, 1]) if network.config.labels else None
    label = torch.randn(2, 3) if network.config.vector else label
    given = torch.randint(4, (2, 3, 1, 3))

    def draw(network, device):
        return pixelcnn.sample_images(network, RandomStreams(0, [0, 1]),
                                      None if label is None else label.to(device), 3, 3, top_p=0.9,
                                      prefix=given, sampler=sampler)

    here, there = drawn(draw, network)
    assert type(there) is torch.Tensor and torch.equal(here, there)


@pytest.mark.parametrize("config", [dict(labels=2), dict(features=3, hop=10)], ids=str)
@pytest.mark.parametrize("sampler", [wavenet.CachedWaveNetSampler, wavenet.NaiveWaveNetSampler])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sounds_drawn_on_the_gpu(config, sampler, precision):
    torch.manual_seed(0)
    network = WaveNet(WaveNetConfig(16, 4, 4, 2, 2, **config)).eval()
    prime = torch.randint(16, (2, 5))
    frames = [torch.randn(3, 3), torch.randn(2, 3)] if network.config.features else None

    def draw(network, device):
        label = torch.tensor([0, 1], device=device) if network.config.labels else None
        chunks = wavenet.sample_sounds(network, RandomStreams(0, [0, 1]), label, 20, prime=prime,
                                       frames=frames, precision=precision, sampler=sampler)
        return torch.cat([*chunks], 1)

    here, there = drawn(draw, network)
    assert type(there) is torch.Tensor and torch.equal(here, there)


@pytest.mark.parametrize("command", [
    "infer_pixelcnn.py -m {}/colour --label 1 -c 1 --height 2 --width 2 -o {out}/x.png",
    "infer_wavenet.py -m {}/sound --label all -c 1 --length 5 -o {out}"])
def test_the_scripts_draw_on_the_gpu(models, tmp_path, command):
    written = []
    for gpu, prepare in ((-1, None), (0, a_gpu)):
        out = tmp_path / str(gpu)
        out.mkdir()
        forked(f"{command.format(models, out=out)} -g{gpu}", tmp_path, prepare)
        written.append([path.read_bytes() for path in sorted(out.iterdir())
                        if path.suffix != ".html"])
    assert written[0] == written[1] and written[0]
