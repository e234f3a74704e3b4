"""The likelihood of codes under mixtures of logistics, and its gradient, in one compiled pass.

In torch's operations, `models.distributions.logistics` passes over the components forty times. Here
each code's components stay in registers and in a buffer of some hundred bytes, in double precision.
"""

import math

import numpy as np

from models.kernels.compiling import KernelCache, inlined

cache = KernelCache(__file__)


@cache.kernel
def code_losses(parameters, codes, levels, mixtures, lowest, highest, begin, end, scratch, losses,
                gradient):
    """Write -ln p of the codes `begin` to `end` - 1, and its derivatives by their parameters.

    Args:
        parameters: (N · 3K,), see `models.distributions.logistics.Logistics`.
        codes: (N,); a negative one has no loss.
        lowest, highest: bounds of the log-scales.
        scratch: a buffer of 4K float64.
        losses: (N,). gradient: (N · 3K,), or (0,) if it is not needed.
    """
    k = mixtures
    for i in range(begin, end):
        at, code = i * 3 * k, codes[i]
        if code < 0:
            losses[i] = 0
            for j in range(gradient.size // max(codes.size, 1)):
                gradient[at + j] = 0
            continue
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
            exponent, share, by_distance, by_half = mass(distance, inverse / (levels - 1), code,
                                                         levels)
            weight = math.exp(logit)
            weights += weight
            scratch[j] = logit + exponent
            scratch[k + j] = share
            scratch[2 * k + j] = weight
            best = max(best, logit + exponent)
            if gradient.size:
                # Of ln mass: by the mean and by the log-scale.
                gradient[at + k + j] = -by_distance * inverse
                is_free = lowest <= parameters[at + 2 * k + j] <= highest
                gradient[at + 2 * k + j] = (-by_distance * distance - by_half * inverse
                                            / (levels - 1)) * is_free
        total = 0.0
        for j in range(k):
            scratch[3 * k + j] = math.exp(scratch[j] - best) * scratch[k + j]
            total += scratch[3 * k + j]
        losses[i] = math.log(weights) - best - math.log(total)
        if gradient.size:
            for j in range(k):
                responsibility = scratch[3 * k + j] / total
                gradient[at + j] = scratch[2 * k + j] / weights - responsibility
                gradient[at + k + j] *= -responsibility
                gradient[at + 2 * k + j] *= -responsibility


@inlined
def mass(distance, half, code, levels):
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
