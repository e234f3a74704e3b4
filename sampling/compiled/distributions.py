"""Sampling a code from a mixture of logistics, or from a softmax, in compiled loops.

A network's kernels call `sample_code`. `mixtures` tells the distribution: the number of components
of `models.distributions.logistics`, or 0 for a softmax over the codes.

A mixture's code is found in two searches. The first bisects all codes with sums in single
precision, all components at once in a vector. The second begins there and is in double precision;
two sums usually confirm that code. So the result is that of `Logistics.sample`, in a third of the
time of bisecting in double precision.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from models.distributions.logistics import NARROWEST, TINY, WIDEST
from models.kernels.compiling import inlined
from models.kernels.layout import aligned_zeros, round_up
from models.kernels.vectors import (
    LOG2_E,
    TILE,
    broadcast,
    clamp,
    constant,
    exp2,
    load,
    sum_lanes,
)
from sampling.compiled.categorical import sample_categorical

STEEPEST = 120.0  # the largest exponent of 2 that `exp2` computes, and a margin


class SamplingBuffers(NamedTuple):
    """The buffers of `sample_code`.

    probs: for a softmax, of a padded row; for a mixture (3 · padded K,), its components' weights,
    means and reciprocal scales. mixture: (3K,), the same in double precision, but the scales.
    """

    probs: np.ndarray
    mixture: np.ndarray


def sampling_buffers(parameters: int, mixtures: int) -> SamplingBuffers:
    """Make the buffers for a row of so many padded parameters."""
    size = 3 * round_up(mixtures) if mixtures else parameters
    return SamplingBuffers(aligned_zeros(size), np.zeros(3 * mixtures))


@inlined
def sample_code(parameters, at, levels, mixtures, uniform, temperature, top_p, buffers):
    """The code that the distribution's `sample` returns for one row of parameters.

    parameters: the row begins at `at`, and is padded as `sample_categorical` says.
    """
    if mixtures == 0:
        return sample_categorical(parameters, at, levels, uniform, temperature, top_p,
                                  buffers.probs)
    return sample_logistics(parameters, at, levels, mixtures, uniform, temperature, top_p, buffers)


@inlined
def sample_logistics(parameters, at, levels, mixtures, uniform, temperature, top_p, buffers):
    """The code of `models.distributions.logistics.Logistics.sample`."""
    heaviest = 0
    for k in range(1, mixtures):
        if parameters[at + k] > parameters[at + heaviest]:
            heaviest = k
    if temperature == 0:
        mean = np.float64(parameters[at + mixtures + heaviest])
        return nearest_code((mean + 1) * ((levels - 1) / 2), levels)
    set_mixture(parameters, at, levels, mixtures, temperature,
                np.float64(parameters[at + heaviest]), buffers)
    target = uniform * top_p + (1 - top_p) / 2
    low, high = np.int64(0), np.int64(levels - 1)
    while low < high:  # in single precision
        middle = (low + high) // 2
        if mass_below(buffers.probs, levels, middle) > target:
            high = middle
        else:
            low = middle + 1
    step, code = np.int64(1), low
    if code == levels - 1 or exact_mass_below(buffers.mixture, levels, mixtures, code) > target:
        high = code  # the code, or one below it
        while code > 0 and exact_mass_below(buffers.mixture, levels, mixtures, code - 1) > target:
            high, code = code - 1, max(code - step, 0)
            step *= 2
        low = code
    else:  # one above it
        while code < levels - 1 and not exact_mass_below(buffers.mixture, levels, mixtures,
                                                         code) > target:
            low, code = code + 1, min(code + step, levels - 1)
            step *= 2
        high = code
    while low < high:
        middle = (low + high) // 2
        if exact_mass_below(buffers.mixture, levels, mixtures, middle) > target:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def set_mixture(parameters, at, levels, mixtures, temperature, highest, buffers):
    """Write the components to the buffers. highest: the highest logit of their weights."""
    lowest_scale, widest, total = math.log(NARROWEST / (levels - 1)), math.log(WIDEST), 0.0
    padded = round_up(mixtures)
    for k in range(mixtures):
        weight = math.exp((parameters[at + k] - highest) / temperature)
        mean = np.float64(parameters[at + mixtures + k])
        log_scale = min(max(np.float64(parameters[at + 2 * mixtures + k]), lowest_scale), widest)
        scale = max(math.exp(log_scale) * temperature, TINY)
        total += weight
        buffers.mixture[k] = weight
        buffers.mixture[mixtures + k], buffers.probs[padded + k] = mean, mean
        buffers.mixture[2 * mixtures + k] = scale
        buffers.probs[2 * padded + k] = min(1 / scale, 1e30)
    for k in range(mixtures):
        buffers.mixture[k] /= total
        buffers.probs[k] = buffers.mixture[k]


@inlined
def nearest_code(position, levels):
    """The code nearest to a position, within the levels; 0 for NaN."""
    if not position > 0:
        return np.int64(0)
    return np.int64(np.rint(min(position, levels - 1.0)))


@inlined
def exact_mass_below(mixture, levels, mixtures, code):
    """The mass below the upper border of `code`."""
    border, below = (2 * code + 1) / (levels - 1) - 1, 0.0
    for k in range(mixtures):
        z = (mixture[mixtures + k] - border) / mixture[2 * mixtures + k]
        below += mixture[k] / (1 + math.exp(z))
    return below


@inlined
def mass_below(probs, levels, code):
    """The same in single precision."""
    border, padded, below = np.float32((2 * code + 1) / (levels - 1) - 1), probs.size // 3, 0.0
    for i in range(0, padded, TILE):
        below += sum_lanes(_masses_below(load(probs, i), load(probs, padded + i),
                                         load(probs, 2 * padded + i), border))
    return below


@intrinsic
def _masses_below(context, weights, means, inverses, border):
    """weights · σ((border - means) · inverses), lane by lane."""
    def generate(context, builder, signature, args):
        weights, means, inverses, border = args
        like = weights.type
        z = builder.fmul(builder.fsub(means, broadcast(builder, border, like)), inverses)
        exponent = clamp(builder, builder.fmul(z, constant(like, LOG2_E)), STEEPEST)
        return builder.fdiv(weights, builder.fadd(exp2(builder, exponent), constant(like, 1)))

    return weights(weights, means, inverses, types.float32), generate
