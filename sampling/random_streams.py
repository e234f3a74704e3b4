"""Random numbers for sampling, and how a uniform number selects a code.

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


def sample_categorical(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0,
                       top_p: float = 1.0) -> torch.Tensor:
    """Sample a code per row by inverting the cumulative distribution function.

    The code is the first whose cumulative probability exceeds u. Computes in double precision, so
    that the sum over 65,536 levels is exact enough. Never returns a code of probability 0.

    Args:
        logits: (B, levels).
        uniforms: (B,), u in [0, 1), float64.
        temperature: divides the logits; 0 is the limit, the most probable code.
        top_p: in (0, 1]; below 1, sample only among the most probable codes that together have this
            probability, and the codes as probable as the last of them.

    Returns (B,), int64.
    """
    if temperature == 0:
        return logits.argmax(dim=1)
    logits = logits.double()
    # Unnormalised. The highest logit becomes 0 before the division, because a low temperature could
    # overflow.
    probs = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).exp_()
    if top_p < 1:
        descending = probs.sort(dim=1, descending=True).values
        sums = descending.cumsum(dim=1)
        last = (sums < top_p * sums[:, -1:]).sum(dim=1, keepdim=True)
        probs = probs * (probs >= descending.gather(1, last))
    cumulative = probs.cumsum(dim=1)
    total = cumulative[:, -1:]
    # u < 1, but u · total may round up to the total, which no code exceeds.
    threshold = torch.minimum(uniforms[:, None] * total, total * (1 - 2 ** -52))
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]
