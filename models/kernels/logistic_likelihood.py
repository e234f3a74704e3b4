"""The likelihood of codes under mixtures of logistics, and its gradient, in one compiled pass.

In torch's operations, `models.distributions.logistics` passes over the components forty times. Here
the components of BLOCK codes stay in some buffers of a few kilobytes, in double precision, and the
loop over them has no branch and calls nothing, so LLVM makes vector instructions of it. Codes that
are too far from all components for that are computed one by one, with logarithms.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.kernels.compiling import KernelCache, inlined

cache = KernelCache(__file__)
BLOCK = 32  # codes
BUFFERS = 7  # see `code_losses`
SMALLEST = 1e-250  # a probability that numbers no smaller than e^-708 add up to exactly
# e^x = 2^n e^f, with |f| ≤ ln 2 / 2 and ln 2 in two parts, so that n of them lose no digit.
LOG2_E, LN2_HIGH, LN2_LOW = 1 / math.log(2), 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUNDING = 1.5 * 2.0 ** 52  # floats of this size have no fraction, so adding it rounds
C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12 = (1 / math.factorial(n) for n in range(2, 13))


@cache.kernel
def code_losses(parameters, codes, levels, mixtures, lowest, highest, begin, end, scratch, losses,
                gradient):
    """Write -ln p of the codes `begin` to `end` - 1, and its derivatives by their parameters.

    Args:
        parameters: (N · 3K,), see `models.distributions.logistics.Logistics`.
        codes: (N,); a negative one has no loss.
        lowest, highest: bounds of the log-scales.
        scratch: a buffer (BUFFERS, BLOCK · K) of float64.
        losses: (N,). gradient: (N · 3K,), or (0,) if it is not needed.
    """
    k = mixtures
    per_step, by_half_range = 2.0 / (levels - 1), 1.0 / (levels - 1)
    weight, distance, log_scale, end_of, mass, by_mean, by_scale = (
        scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5], scratch[6])
    for first in range(begin, end, BLOCK):
        count = min(BLOCK, end - first)
        for i in range(count):
            at, code = (first + i) * 3 * k, codes[first + i]
            top = np.float64(parameters[at])
            for j in range(1, k):
                top = max(top, np.float64(parameters[at + j]))
            for j in range(k):
                m = i * k + j
                weight[m] = np.float64(parameters[at + j]) - top  # its logarithm as yet
                distance[m] = code * per_step - 1 - np.float64(parameters[at + k + j])
                log_scale[m] = np.float64(parameters[at + 2 * k + j])
                end_of[m] = -1.0 if code == 0 else 1.0 if code == levels - 1 else 0.0
        for m in range(count * k):
            weight[m] = exp(weight[m])
            bounded = min(max(log_scale[m], lowest), highest)
            inverse = exp(-bounded)
            z, half = distance[m] * inverse, inverse * by_half_range
            mass[m], by_distance, by_half = mass_between(z, half, end_of[m])
            by_mean[m] = by_distance * inverse
            is_free = 1.0 if bounded == log_scale[m] else 0.0
            by_scale[m] = (by_distance * z + by_half * half) * is_free
        for i in range(count):
            at, code = (first + i) * 3 * k, codes[first + i]
            weights = total = 0.0
            for j in range(k):
                weights += weight[i * k + j]
                total += weight[i * k + j] * mass[i * k + j]
            if not total > SMALLEST * weights or code < 0:
                distant_code_loss(parameters, code, levels, k, lowest, highest, first + i, scratch,
                                  i * k, losses, gradient)
                continue
            losses[first + i] = math.log(weights) - math.log(total)
            if gradient.size:
                per_weight, per_mass = 1 / weights, 1 / total
                for j in range(k):
                    m = i * k + j
                    responsibility = weight[m] * mass[m] * per_mass
                    gradient[at + j] = weight[m] * per_weight - responsibility
                    gradient[at + k + j] = responsibility * by_mean[m]
                    gradient[at + 2 * k + j] = responsibility * by_scale[m]


@intrinsic
def _to_bits(context, number):
    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _from_bits(context, bits):
    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@inlined
def exp(x):
    """e^x for x < 709, to the last digit or two; e^-708 below that."""
    x = -708.0 if x < -708.0 else x
    shifted = x * LOG2_E + ROUNDING
    n = shifted - ROUNDING
    f = (x - n * LN2_HIGH) - n * LN2_LOW
    series = C12
    for c in (C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, 1.0, 1.0):
        series = series * f + c
    return series * _from_bits((_to_bits(shifted) + 1023) << 52)  # a product, which keeps a NaN


@inlined
def mass_between(distance, half, end):
    """A logistic's mass between a code's borders, and the derivatives of its logarithm.

    distance: from the mean to the code, half: from the code to its borders, in units of the scale.
    end: -1 for the lowest code, 1 for the highest, which are open on that side, else 0.
    Returns (mass, derivative by distance, by half). The mass is, for the distance's absolute value,

        σ(a) - σ(b) = σ(a) · σ(-b) · (1 - e^(-2 half)), with a, b = distance ± half,

    and of an open code σ(a) or σ(-b) alone.
    """
    beyond, near = exp(-abs(distance)), exp(-half)
    is_outside = abs(distance) > half
    small_a = beyond * near  # e^-a
    small_b = (beyond if is_outside else near) / (near if is_outside else beyond)  # e^-|b|
    product = 1 / ((1 + small_a) * (1 + small_b))
    below_a, larger_b = product * (1 + small_b), product * (1 + small_a)  # σ(a), σ(|b|)
    above_a, smaller_b = small_a * below_a, small_b * larger_b  # 1 - σ(a), σ(-|b|)
    below_b, above_b = (larger_b, smaller_b) if is_outside else (smaller_b, larger_b)
    # The second form is as exact where the first would lose digits.
    width = 1 - near * near if half > 1e-5 else 2 * half * (1 - half)
    sign = 1.0 if distance > 0 else -1.0
    has_a, has_b = end * sign <= 0, end * sign >= 0
    mass = ((below_a if has_a else 1.0) * (above_b if has_b else 1.0)
            * (width if end == 0 else 1.0))
    by_a, by_b = above_a if has_a else 0.0, below_b if has_b else 0.0
    by_width = 2 * (1 - width) / width if end == 0 else 0.0
    return mass, sign * (by_a - by_b), by_a + by_b + by_width


@inlined
def distant_code_loss(parameters, code, levels, mixtures, lowest, highest, i, scratch, column,
                      losses, gradient):
    """As `code_losses`, of code i alone, wherever the components are.

    scratch: from `column` on, K columns of it are overwritten.
    """
    k, at = mixtures, i * 3 * mixtures
    if code < 0:
        losses[i] = 0
        for j in range(gradient.size // max(losses.size, 1)):
            gradient[at + j] = 0
        return
    position = code * (2.0 / (levels - 1)) - 1
    top = np.float64(parameters[at])
    for j in range(1, k):
        top = max(top, np.float64(parameters[at + j]))
    best, weights = -np.inf, 0.0
    for j in range(k):
        logit = np.float64(parameters[at + j]) - top
        log_scale = min(max(np.float64(parameters[at + 2 * k + j]), lowest), highest)
        inverse = math.exp(-log_scale)
        distance = (position - np.float64(parameters[at + k + j])) * inverse
        exponent, share, by_distance, by_half = log_mass(distance, inverse / (levels - 1), code,
                                                         levels)
        weight = math.exp(logit)
        weights += weight
        scratch[0, column + j] = logit + exponent
        scratch[1, column + j] = share
        scratch[2, column + j] = weight
        best = max(best, logit + exponent)
        if gradient.size:
            # Of ln mass: by the mean and by the log-scale.
            gradient[at + k + j] = -by_distance * inverse
            is_free = lowest <= parameters[at + 2 * k + j] <= highest
            gradient[at + 2 * k + j] = (-by_distance * distance - by_half * inverse
                                        / (levels - 1)) * is_free
    total = 0.0
    for j in range(k):
        scratch[3, column + j] = math.exp(scratch[0, column + j] - best) * scratch[1, column + j]
        total += scratch[3, column + j]
    losses[i] = math.log(weights) - best - math.log(total)
    if gradient.size:
        for j in range(k):
            responsibility = scratch[3, column + j] / total
            gradient[at + j] = scratch[2, column + j] / weights - responsibility
            gradient[at + k + j] *= -responsibility
            gradient[at + 2 * k + j] *= -responsibility


@inlined
def log_mass(distance, half, code, levels):
    """ln of a logistic's mass between a code's borders, and its derivatives.

    distance: from the mean to the code, half: from the code to its borders, in units of the scale.
    Returns (exponent, share, derivative by distance, by half), where the mass is e^exponent · share
    and the share is no smaller than the code's width.
    """
    if code == 0 or code == levels - 1:  # open on one side: σ(z)
        sign = 1.0 if code == 0 else -1.0
        z = half + sign * distance
        small = math.exp(-abs(z))
        share = 1 / (1 + small)
        slope = small * share if z > 0 else share  # 1 - σ(z)
        return min(z, 0.0), share, sign * slope, slope
    # σ(a) - σ(b) = σ(a) · σ(-b) · (1 - e^(-2 half)), for the distance's absolute value.
    sign = 1.0 if distance > 0 else -1.0
    a, b = abs(distance) + half, abs(distance) - half
    small_a, small_b = math.exp(-a), math.exp(-abs(b))
    # The second form is as exact where the first would lose digits.
    width = 1 - math.exp(-2 * half) if half > 1e-5 else 2 * half * (1 - half)
    share_a, share_b = 1 / (1 + small_a), 1 / (1 + small_b)
    beyond = small_a * share_a  # 1 - σ(a)
    before = share_b if b > 0 else small_b * share_b  # σ(b)
    return (-max(b, 0.0), share_a * share_b * width, sign * (beyond - before),
            beyond + before + 2 * (1 - width) / width)
