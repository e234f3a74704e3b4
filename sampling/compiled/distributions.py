"""Sampling a code from a mixture of logistics, or from a softmax, in compiled loops.

A network's kernels call `sample_code`. `mixtures` tells the distribution: the number of components
of `models.distributions.logistics`, or 0 for a softmax over the codes.
"""

import math

import numpy as np

from models.distributions.logistics import NARROWEST, TINY, WIDEST
from models.kernels.compiling import inlined
from sampling.compiled.categorical import sample_categorical


def mixture_buffer(mixtures: int) -> np.ndarray:
    """The buffer that `sample_code` takes: weights, means and scales, in double precision."""
    return np.zeros(3 * mixtures)


@inlined
def sample_code(parameters, at, levels, mixtures, uniform, temperature, top_p, probs, mixture):
    """The code that the distribution's `sample` returns for one row of parameters.

    parameters: the row begins at `at`, and is padded as `sample_categorical` says. probs, mixture:
    buffers, of a padded row and a `mixture_buffer`.
    """
    if mixtures == 0:
        return sample_categorical(parameters, at, levels, uniform, temperature, top_p, probs)
    return sample_logistics(parameters, at, levels, mixtures, uniform, temperature, top_p, mixture)


@inlined
def sample_logistics(parameters, at, levels, mixtures, uniform, temperature, top_p, mixture):
    """As `models.distributions.logistics.Logistics.sample`, in double precision too."""
    heaviest = 0
    for k in range(1, mixtures):
        if parameters[at + k] > parameters[at + heaviest]:
            heaviest = k
    if temperature == 0:
        position = (np.float64(parameters[at + mixtures + heaviest]) + 1) * ((levels - 1) / 2)
        return np.int64(round_half_even(position, levels))
    highest, total = np.float64(parameters[at + heaviest]), 0.0
    lowest_scale = math.log(NARROWEST / (levels - 1))
    for k in range(mixtures):
        weight = math.exp((parameters[at + k] - highest) / temperature)
        total += weight
        log_scale = np.float64(parameters[at + 2 * mixtures + k])
        scale = math.exp(min(max(log_scale, lowest_scale), math.log(WIDEST))) * temperature
        mixture[k] = weight
        mixture[mixtures + k] = parameters[at + mixtures + k]
        mixture[2 * mixtures + k] = max(scale, TINY)
    uniform = (uniform * top_p + (1 - top_p) / 2) * total
    low, high = np.int64(0), np.int64(levels - 1)
    while low < high:
        middle = (low + high) // 2
        border, below = (2 * middle + 1) / (levels - 1) - 1, 0.0
        for k in range(mixtures):
            z = (mixture[mixtures + k] - border) / mixture[2 * mixtures + k]
            below += mixture[k] / (1 + math.exp(z))
        if below > uniform:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def round_half_even(position, levels):
    """The code nearest to a position, within the levels; 0 for NaN."""
    if not position > 0:
        return 0.0
    return np.rint(min(position, levels - 1.0))
