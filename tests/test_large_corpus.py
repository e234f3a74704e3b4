"""Training on a memory map beyond 4 GiB equals training on an array."""

import numpy as np
import torch

from datasets.corpus.reader import Recording, Split
from datasets.corpus.windows import Windows
from models.wavenet import WaveNet, WaveNetConfig
from training import likelihood
from training.stopping import StopCondition
from training.trainer import Trainer

CONFIG = WaveNetConfig(levels=256, hidden_dim=4, out_hidden_dim=4, stacks_num=1, layers_num=4)
TARGETS = 16
BEGIN = 2 ** 32 - 1008  # of what is not silence: on both sides of 4 GiB
CODES = np.random.default_rng(0).integers(0, 256, 3000).astype(np.uint8)


def mapped(path):
    """A sparse shard of 4 GiB."""
    shard = np.lib.format.open_memmap(path, "w+", np.uint8, (BEGIN + len(CODES),))
    shard[BEGIN:] = CODES
    shard.flush()
    assert path.stat().st_blocks * 512 < 2 ** 24, "this disk has no sparse files"
    return np.load(path, mmap_mode="r")


def windows(shard, offset):
    """Windows of one long recording that ends in silence and 1,000 codes, and one of 2,000."""
    lengths = BEGIN - offset + 1000, 2000
    recordings = [Recording("long", None, 0, 0, lengths[0]),
                  Recording("short", None, 0, lengths[0], lengths[1])]
    return Windows(Split(recordings, [shard]), TARGETS, CONFIG.receptive_field, 256)


def step(dataset, indices):
    """The loss and the weights after one update on some windows."""
    torch.manual_seed(0)
    model = WaveNet(CONFIG)
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), fused=True), dataset,
                      batchsize=len(indices), seed=0, clip=1.0, stop=StopCondition(),
                      device=torch.device("cpu"), samples=likelihood.count_targets, unit="samples")
    trainer.update(dataset[indices])
    return trainer.observation["main/nll"], [*model.parameters()]


def test_training_on_a_map_beyond_4_gib_equals_training_on_an_array(tmp_path):
    offset = BEGIN - 4096  # whole windows of silence before
    large = windows(mapped(tmp_path / "shard.npy"), 0)
    small = windows(np.concatenate((np.zeros(BEGIN - offset, np.uint8), CODES)), offset)
    shift = len(large) - len(small)
    assert shift * TARGETS == offset
    indices = np.arange(200, len(small))  # from the last silence to the end of the short recording
    assert small[indices].targets.max() > 200, "the windows must hold more than silence"
    on_map, on_array = step(large, indices + shift), step(small, indices)
    assert on_map[0] == on_array[0]
    assert all(torch.equal(a, b) for a, b in zip(on_map[1], on_array[1], strict=True))
