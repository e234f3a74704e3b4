"""Batches in a fixed, seeded order that can be taken up again anywhere.

The order of an epoch is a function of (seed, epoch) alone, so a run is resumed in the middle of an
epoch by its position, with no generator state to carry along.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from datasets.workers import each_part, read_ahead
from models.local_conditioning import Frames

IGNORED = -100  # a target that is none: torch's own `ignore_index`


class Batch(NamedTuple):
    """What both networks are trained on.

    codes: (B, C, H, W) or (B, T), int64: what the network sees.
    targets: (B, C, H, W) or (B, outputs), int64: what it has to predict; IGNORED is no target.
    label: (B,), int64; or vectors, (B, width), float32; or None for a network without global
        conditioning.
    frames: Frames, or None for one without local conditioning.
    """

    codes: torch.Tensor
    targets: torch.Tensor
    label: torch.Tensor | None
    frames: Frames | None = None

    def to(self, device):
        """The same batch on `device`."""
        return Batch(*(None if part is None else part.to(device, non_blocking=True)
                       for part in self))


class EpochOrder(Sampler):
    """Lists of indices, one for each batch, from item `position` of one epoch's order on.

    With `shuffle` off the items come as they lie; for validation. share: a function of a batch's
    indices that picks this process's share of them.
    """

    def __init__(self, items, batchsize, share, *, seed=0, epoch=0, position=0, shuffle=True):
        self.batchsize, self.position, self.share = batchsize, position, share
        if shuffle:
            self.order = np.random.default_rng((seed, epoch)).permutation(items)
        else:
            self.order = np.arange(items)

    def __iter__(self):
        for start in range(self.position, len(self.order), self.batchsize):
            yield self.share(self.order[start:start + self.batchsize])

    def __len__(self):
        return math.ceil((len(self.order) - self.position) / self.batchsize)


def whole(indices):
    """All of a batch: the share of a process that is the only one."""
    return indices


class Batches:
    """`dataset[indices]` for each list of indices in `order`; can be iterated over again.

    workers: processes that read ahead, 0 for none. pinned: in memory that a GPU copies from by
    itself. Raises what `datasets.workers.read_ahead` does.
    """

    def __init__(self, dataset: Dataset, order: Sampler, workers: int = 0, pinned: bool = False):
        self.dataset, self.order, self.workers, self.pinned = dataset, order, workers, pinned

    def __len__(self):
        return len(self.order)

    def __iter__(self):
        batches = (read_ahead(self.dataset, self.order, self.workers) if self.workers else
                   (self.dataset[indices] for indices in self.order))
        return map(_pinned, batches) if self.pinned else batches


def _pinned(batch):
    return (batch.pin_memory() if isinstance(batch, torch.Tensor) else
            each_part(_pinned, batch))


def training_batches(dataset: Dataset, batchsize, *, seed, epoch, position=0, share=whole,
                     **loading):
    """The batches of one epoch, the last one smaller, from item `position` on.

    `dataset[indices]` makes a whole `Batch`; `dataset.epoch` tells it which epoch's random draws
    (such as those of a binarisation) are wanted. share: see `EpochOrder`; what is left of a small
    batch may be no item at all. loading: workers and pinned, see `Batches`.
    """
    dataset.epoch = epoch
    order = EpochOrder(len(dataset), batchsize, share, seed=seed, epoch=epoch, position=position)
    return Batches(dataset, order, **loading)


def evaluation_batches(dataset: Dataset, batchsize, share=whole, **loading):
    """All items once, as they lie; share and loading as in `training_batches`."""
    return Batches(dataset, EpochOrder(len(dataset), batchsize, share, shuffle=False), **loading)
