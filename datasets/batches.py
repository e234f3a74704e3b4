"""Batches in a fixed, seeded order that can resume anywhere.

The order of an epoch depends only on (seed, epoch). So a run resumes in the middle of an epoch by
its position alone, without the state of a generator.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

from datasets.workers import map_fields, read_ahead
from models.local_conditioning import Frames

IGNORED = -100  # marks outputs without a target: torch's own `ignore_index`


class Batch(NamedTuple):
    """A batch to train either network on.

    codes: (B, C, H, W) or (B, T), int64: the network's input.
    targets: (B, C, H, W) or (B, outputs), int64: what it predicts; IGNORED marks no target.
    label: (B,), int64; or vectors, (B, width), float32; or None without global conditioning.
    frames: Frames, or None without local conditioning.
    """

    codes: torch.Tensor
    targets: torch.Tensor
    label: torch.Tensor | None
    frames: Frames | None = None

    def to(self, device):
        """The same batch on `device`."""
        return Batch(*(None if part is None else part.to(device, non_blocking=True)
                       for part in self))


Shard = Callable[[np.ndarray], np.ndarray]  # selects a process's indices from a batch's


class BatchDataset(Protocol):
    """A dataset that returns a batch for a list of indices."""

    epoch: int  # selects the random draws of an epoch, such as those of a binarisation

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, indices: Any) -> Batch:
        """Return the batch of the items `indices`."""


class EpochOrder(Sampler):
    """Yields the indices of each batch, from item `position` of one epoch's order on.

    Without `shuffle`, for validation, items keep their order. share: a function that selects this
    process's indices from those of a batch.
    """

    def __init__(self, items: int, batchsize: int, share: Shard, *, seed: int = 0, epoch: int = 0,
                 position: int = 0, shuffle: bool = True):
        self.batchsize, self.position, self.share = batchsize, position, share
        if shuffle:
            self.order = np.random.default_rng((seed, epoch)).permutation(items)
        else:
            self.order = np.arange(items)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(self.position, len(self.order), self.batchsize):
            yield self.share(self.order[start:start + self.batchsize])

    def __len__(self) -> int:
        return math.ceil((len(self.order) - self.position) / self.batchsize)


def all_indices(indices: np.ndarray) -> np.ndarray:
    """Select all of a batch: the share of a single process."""
    return indices


class Batches:
    """`dataset[indices]` for the indices of each batch in `order`; can be iterated repeatedly.

    workers: processes that read ahead, 0 for none. pinned: use page-locked memory, which a GPU
    copies asynchronously. Raises what `datasets.workers.read_ahead` raises.
    """

    def __init__(self, dataset: BatchDataset, order: EpochOrder, workers: int = 0,
                 pinned: bool = False):
        self.dataset, self.order, self.workers, self.pinned = dataset, order, workers, pinned

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self):
        batches = (read_ahead(self.dataset, self.order, self.workers) if self.workers else
                   (self.dataset[indices] for indices in self.order))
        return map(_pinned, batches) if self.pinned else batches


def _pinned(batch):
    return (batch.pin_memory() if isinstance(batch, torch.Tensor) else
            map_fields(_pinned, batch))


def training_batches(dataset: BatchDataset, batchsize: int, *, seed: int, epoch: int,
                     position: int = 0, share: Shard = all_indices, **loading: Any) -> Batches:
    """Return the batches of one epoch, the last one smaller, from item `position` on.

    share: see `EpochOrder`; a process's share of a small batch may be empty. loading: workers and
    pinned, see `Batches`. Sets `dataset.epoch`.
    """
    dataset.epoch = epoch
    order = EpochOrder(len(dataset), batchsize, share, seed=seed, epoch=epoch, position=position)
    return Batches(dataset, order, **loading)


def evaluation_batches(dataset: BatchDataset, batchsize: int, share: Shard = all_indices,
                       **loading: Any) -> Batches:
    """Return all items once, in order; share and loading as in `training_batches`."""
    return Batches(dataset, EpochOrder(len(dataset), batchsize, share, shuffle=False), **loading)
