"""Random numbers for sampling. A distribution's `sample` turns each into a code.

Each image and each sound has its own stream of random numbers, a function of the seed and of the
stream's number alone. So a sample depends neither on what is drawn beside it nor on the batches,
and two samplers must draw the same codes from the same streams.

The compiled samplers guarantee this to the last bit. PyTorch's matrix products do not: the batch
size can change the last digit of a probability in single precision. That changes perhaps one code
in a million.
"""

from collections.abc import Iterable

import numpy as np
import torch

REFILL = 4096  # numbers that a stream generates at a time, which amortises numpy's call


class RandomStreams:
    """Independent streams of uniform random numbers in [0, 1).

    Philox is a counter-based generator: streams with different keys do not overlap.

    Args:
        seed: a non-negative integer.
        numbers: the non-negative number of each stream, such as the number of an image or a sound.
    """

    def __init__(self, seed: int, numbers: Iterable[int]) -> None:
        self._generators = [np.random.Generator(np.random.Philox(
            np.random.SeedSequence(seed, spawn_key=(number,)))) for number in numbers]
        self._buffer = np.empty((len(self._generators), 0))

    def __len__(self) -> int:
        """The number of streams."""
        return len(self._generators)

    def next_uniforms(self, n: int) -> torch.Tensor:
        """The next `n` numbers of each stream: (streams, n), float64, on the CPU."""
        missing = n - self._buffer.shape[1]
        if missing > 0:
            more = [generator.random(max(missing, REFILL)) for generator in self._generators]
            self._buffer = np.concatenate((self._buffer, np.stack(more)), axis=1)
        uniforms, self._buffer = self._buffer[:, :n], self._buffer[:, n:]
        return torch.from_numpy(uniforms.copy())
