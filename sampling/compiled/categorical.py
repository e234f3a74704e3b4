"""Sampling a code from its distribution, in compiled loops.

`probs` are unnormalised probabilities: the highest is 1. Arrays have a multiple of TILE entries.
"""

import numpy as np

from models.kernels.compiling import inlined
from models.kernels.layout import round_up
from models.kernels.vectors import (
    TILE,
    exponential,
    float_from_bits,
    load,
    max_lane,
    store,
    sum_lanes,
    zero_below,
)


@inlined
def sample_categorical(logits, at, levels, uniform, temperature, top_p, probs):
    """The code that `sampling.random_streams.sample_categorical` returns for one row of logits.

    logits: the row begins at `at`; beyond `levels` it is -inf up to a multiple of TILE. probs: a
    buffer for as many floats.
    """
    size = round_up(levels)
    best = -np.inf
    for i in range(0, size, TILE):
        best = max(best, max_lane(load(logits, at + i)))
    best = np.float32(best)
    if temperature == 0:
        for code in range(levels):
            if logits[at + code] == best:
                return code
    # A reciprocal beyond 1e30 would overflow; at such temperatures only the best code remains.
    scale = np.float32(min(1 / temperature, 1e30)) if temperature > 0 else np.float32(1e30)
    for i in range(0, size, TILE):
        store(probs, i, exponential(load(logits, at + i), best, scale))
    if top_p < 1:
        threshold = top_p_threshold(probs, size, top_p)
        for i in range(0, size, TILE):
            store(probs, i, zero_below(load(probs, i), threshold))
    total = sum_at_least(probs, size, np.float32(0))
    return inverse_cdf(probs, size, levels, uniform * total)


@inlined
def sum_at_least(probs, size, threshold):
    """The sum of all probabilities that are at least `threshold`."""
    total = 0.0
    for i in range(0, size, TILE):
        total += sum_lanes(zero_below(load(probs, i), threshold))
    return total


@inlined
def inverse_cdf(probs, size, levels, target):
    """The first code whose cumulative probability exceeds `target`.

    Skips whole tiles first. If rounding leaves the total at the target, returns the last code whose
    probability is large enough not to vanish in that rounding.
    """
    i, cumulative = 0, 0.0
    while i + TILE < size and cumulative + sum_lanes(load(probs, i)) <= target:
        cumulative += sum_lanes(load(probs, i))
        i += TILE
    for code in range(i, levels):
        cumulative += probs[code]
        if cumulative > target:
            return code
    code = levels - 1
    while code > 0 and probs[code] <= cumulative * 2 ** -24:
        code -= 1
    return code


@inlined
def top_p_threshold(probs, size, top_p):
    """The highest threshold such that the probabilities from there up make `top_p` of the total.

    Bisects the bits of the threshold, because positive floats are ordered like their bits.
    """
    enough = top_p * sum_at_least(probs, size, np.float32(0))
    low, high = np.int32(0), np.int32(0x3F800001)  # just above the highest probability, which is 1
    while high - low > 1:
        middle = np.int32((low + high) // 2)
        if sum_at_least(probs, size, float_from_bits(middle)) >= enough:
            low = middle
        else:
            high = middle
    return float_from_bits(low)
