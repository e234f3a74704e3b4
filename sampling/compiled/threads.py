"""Splits a batch over threads, which run kernels side by side without the GIL."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch


class ThreadShards:
    """Splits `count` sounds or images into one shard per thread, for as many threads as torch uses.

    slices: each thread's slice of an array with one item per sound or image.
    """

    def __init__(self, count: int) -> None:
        threads = min(torch.get_num_threads(), count)
        bounds = [count * i // threads for i in range(threads + 1)]
        self.slices = [slice(*bound) for bound in pairwise(bounds)]
        # A single shard is computed where it is asked for: passing it on would cost as much as two
        # rows of a small image.
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self, work: Callable[..., object], states: Sequence[Any],
            *arrays: np.ndarray) -> None:
        """Call `work` for each shard with its state and its slice of each array; wait for all."""
        shards = ([array[part] for part in self.slices] for array in arrays)
        list((self._pool.map if self._pool else map)(work, states, *shards))
