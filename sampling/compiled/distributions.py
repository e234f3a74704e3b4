"""Sampling a code from a mixture of logistics, or from a softmax, in compiled loops.

A network's kernels call `sample_code`. `mixtures` tells the distribution: the number of components
of `models.distributions.logistics`, or 0 for a softmax over the codes.

A mixture's code is searched for in single precision, all components at once in a vector. Where the
cumulative probabilities around the result are farther from the uniform number than they can be
wrong, it is the code. Elsewhere a search in double precision begins there. So the code is always
that of `Logistics.sample`, in a fifth of the time.
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
    HALF,
    LOG2_E,
    broadcast,
    clamp,
    constant,
    exp2,
    exponential,
    load_half,
    scaled,
    store,
    sum_lanes,
)
from sampling.compiled.categorical import sample_categorical

STEEPEST = 120.0  # the largest exponent of 2 that `exp2` computes, and a margin


class SamplingBuffers(NamedTuple):
    """The buffers of `sample_code`.

    probs: for a softmax, of a padded row; for a mixture (3 · padded K,), its components' weights,
    means and reciprocal scales. mixture: (3K,), weights, means and scales in double precision.
    """

    probs: np.ndarray
    mixture: np.ndarray


def sampling_buffers(parameters: int, mixtures: int) -> SamplingBuffers:
    """Make the buffers for a row of so many padded parameters."""
    size = 3 * round_up(mixtures, HALF) if mixtures else parameters
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
    highest = np.float64(parameters[at + heaviest])
    target = uniform * top_p + (1 - top_p) / 2
    margin = set_components(parameters, at, levels, mixtures, temperature, highest, buffers.probs)
    code, is_certain = search(buffers.probs, levels, target, margin)
    if is_certain:
        return code
    set_mixture(parameters, at, levels, mixtures, temperature, highest, buffers.mixture)
    return exact_search(buffers.mixture, levels, mixtures, target, code)


@inlined
def nearest_code(position, levels):
    """The code nearest to a position, within the levels; 0 for NaN."""
    if not position > 0:
        return np.int64(0)
    return np.int64(np.rint(min(position, levels - 1.0)))


# ------------------------------------------------------------------------------ single precision

@inlined
def set_components(parameters, at, levels, mixtures, temperature, highest, probs):
    """Write the components to `probs`; return how far `mass_below` may be from the truth.

    highest: the highest logit of their weights.
    """
    lowest_scale, widest = math.log(NARROWEST / (levels - 1)), math.log(WIDEST)
    padded, least, farthest = round_up(mixtures, HALF), np.inf, 0.0
    for k in range(mixtures, padded):
        probs[k] = probs[2 * padded + k] = -np.inf  # of lanes that compute nothing
        probs[padded + k] = 0
    for k in range(mixtures):
        log_scale = min(max(np.float64(parameters[at + 2 * mixtures + k]), lowest_scale), widest)
        probs[k] = parameters[at + k]
        probs[padded + k] = parameters[at + mixtures + k]
        probs[2 * padded + k] = -log_scale
        least = min(least, log_scale)
        farthest = max(farthest, abs(np.float64(parameters[at + mixtures + k])))
    narrowest = max(math.exp(least) * temperature, 1e-30)
    per_weight, total = np.float32(min(1 / temperature, 1e30)), 0.0
    for i in range(0, padded, HALF):
        weights = exponential(load_half(probs, i), np.float32(highest), per_weight)
        store(probs, i, weights)
        total += sum_lanes(weights)
        inverses = exponential(load_half(probs, 2 * padded + i), np.float32(-least), np.float32(1))
        store(probs, 2 * padded + i, scaled(inverses, np.float32(1 / narrowest)))
    for i in range(0, padded, HALF):
        store(probs, i, scaled(load_half(probs, i), np.float32(1 / total)))
    return 4e-6 + 2e-7 * (1 + farthest) / narrowest


@inlined
def search(probs, levels, target, margin):
    """The first code whose `mass_below` exceeds `target`, and whether this is certain.

    Of the codes left, a round leaves a quarter. Its three sums do not wait for each other.
    """
    low, high, under, above = np.int64(0), np.int64(levels - 1), -np.inf, np.inf
    while low < high:
        span = high - low
        a, b, c = low + span // 4, low + span // 2, low + 3 * span // 4
        below_a, below_b, below_c = (mass_below(probs, levels, a), mass_below(probs, levels, b),
                                     mass_below(probs, levels, c))
        if below_a > target:
            high, above = a, below_a
        elif below_b > target:
            low, under, high, above = a + 1, below_a, b, below_b
        elif below_c > target:
            low, under, high, above = b + 1, below_b, c, below_c
        else:
            low, under = c + 1, below_c
    return low, above - target > margin and target - under > margin


@inlined
def mass_below(probs, levels, code):
    """The mass below the upper border of `code`."""
    border, padded, below = np.float32((2 * code + 1) / (levels - 1) - 1), probs.size // 3, 0.0
    for i in range(0, padded, HALF):
        below += sum_lanes(_masses_below(load_half(probs, i), load_half(probs, padded + i),
                                         load_half(probs, 2 * padded + i), border))
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


# ------------------------------------------------------------------------------ double precision

@inlined
def set_mixture(parameters, at, levels, mixtures, temperature, highest, mixture):
    """Write the components to `mixture`, as `Logistics.sample` computes them."""
    lowest_scale, widest, total = math.log(NARROWEST / (levels - 1)), math.log(WIDEST), 0.0
    for k in range(mixtures):
        mixture[k] = math.exp((parameters[at + k] - highest) / temperature)
        mixture[mixtures + k] = parameters[at + mixtures + k]
        log_scale = min(max(np.float64(parameters[at + 2 * mixtures + k]), lowest_scale), widest)
        mixture[2 * mixtures + k] = max(math.exp(log_scale) * temperature, TINY)
        total += mixture[k]
    for k in range(mixtures):
        mixture[k] /= total


@inlined
def exact_search(mixture, levels, mixtures, target, code):
    """The first code whose `exact_mass_below` exceeds `target`. code: one near it."""
    low, high, step = code, code, np.int64(1)
    if code == levels - 1 or exact_mass_below(mixture, levels, mixtures, code) > target:
        while code > 0 and exact_mass_below(mixture, levels, mixtures, code - 1) > target:
            high, code = code - 1, max(code - step, 0)
            step *= 2
        low = code
    else:
        while code < levels - 1 and not exact_mass_below(mixture, levels, mixtures, code) > target:
            low, code = code + 1, min(code + step, levels - 1)
            step *= 2
        high = code
    while low < high:
        middle = (low + high) // 2
        if exact_mass_below(mixture, levels, mixtures, middle) > target:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def exact_mass_below(mixture, levels, mixtures, code):
    """The mass below the upper border of `code`."""
    border, below = (2 * code + 1) / (levels - 1) - 1, 0.0
    for k in range(mixtures):
        z = (mixture[mixtures + k] - border) / mixture[2 * mixtures + k]
        below += mixture[k] / (1 + math.exp(z))
    return below
