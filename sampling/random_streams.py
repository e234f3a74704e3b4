"""Chance: the uniform random numbers that samples are made of, and how one picks a code.

Every image and every sound has a stream of random numbers of its own, a function of the seed and
of its number alone. So what is drawn for it depends neither on how many are drawn beside it nor on
how they are put into batches, and two samplers given the same streams must give the same codes.

The compiled samplers keep that to the last bit. PyTorch's matrix products don't: there a batch's
size can change the last digit of a probability in single precision, and then, perhaps once in a
million codes, another one is chosen.
"""

import numpy as np
import torch

BLOCK = 4096  # numbers of a stream made at a time


class Draws:
    """One stream of uniform random numbers in [0, 1) for each number in `streams`.

    Philox is a counter-based generator: streams of different keys don't overlap.

    Args:
        seed: a whole number from 0 up.
        streams: the numbers, from 0 up, of the images or sounds to draw.
    """

    def __init__(self, seed, streams):
        self._generators = [np.random.Generator(np.random.Philox(
            np.random.SeedSequence(seed, spawn_key=(stream,)))) for stream in streams]
        self._ready = np.empty((len(self._generators), 0))

    def __len__(self):
        return len(self._generators)

    def next(self, n):
        """The next `n` numbers of each stream: (streams, n), float64, on the CPU."""
        missing = n - self._ready.shape[1]
        if missing > 0:
            more = [generator.random(max(missing, BLOCK)) for generator in self._generators]
            self._ready = np.concatenate((self._ready, np.stack(more)), axis=1)
        taken, self._ready = self._ready[:, :n], self._ready[:, n:]
        return torch.from_numpy(taken.copy())


def choose(logits, uniforms, temperature=1.0, top_p=1.0):
    """The codes at which the cumulative distributions of softmax(logits / temperature) pass u.

    Temperature 0 is its limit, the most probable code. Where top_p is below 1 codes are drawn among
    the most probable ones that together have that probability, and those as probable as the last of
    them. In double precision, in which the sum over 65,536 levels is still exact enough. A code of
    probability 0 is never chosen.

    logits: (B, levels); uniforms: (B,), u in [0, 1), float64 -> (B,), int64.
    """
    if temperature == 0:
        return logits.argmax(dim=1)
    logits = logits.double()
    # The highest logit is made 0 before the division, lest a small temperature overflow.
    odds = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).exp_()
    if top_p < 1:
        falling = odds.sort(dim=1, descending=True).values
        sums = falling.cumsum(dim=1)
        last = (sums < top_p * sums[:, -1:]).sum(dim=1, keepdim=True)
        odds = odds * (odds >= falling.gather(1, last))
    cumulative = odds.cumsum(dim=1)
    total = cumulative[:, -1:]
    # u < 1, but u · total may be rounded up to the total, which no code passes.
    threshold = torch.minimum(uniforms[:, None] * total, total * (1 - 2 ** -52))
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]
