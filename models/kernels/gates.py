"""The gate y = tanh(a) σ(b) and its gradients in compiled loops: both papers' equation 2.

With u = exp(-2a) and v = exp(-b), tanh(a) = (1 - u) / (1 + u) and σ(b) = 1 / (1 + v). So y takes
two exponentials and one division, (1 - u) / ((1 + u)(1 + v)). a is clamped to ±10 and b to ±40,
where tanh and σ are 1 or next to 0. The absolute error is below 3e-7. NaN gives NaN, so that a run
that diverges shows it.
"""

import math

import numpy as np
from numba import types
from numba.extending import intrinsic

from models.kernels.compiling import inlined
from models.kernels.vectors import (
    HALF,
    LOG2_E,
    TILE,
    Vector,
    add,
    clamp,
    constant,
    exp2,
    load_half,
    shuffle_mask,
    store,
)

_TILE, _HALF = Vector(TILE), Vector(HALF)


def _exponentials(builder, a, b):
    """exp(-2a) and exp(-b) of clamped vectors."""
    return (exp2(builder, builder.fmul(clamp(builder, a, 10), constant(a.type, -2 * LOG2_E))),
            exp2(builder, builder.fmul(clamp(builder, b, 40), constant(b.type, -LOG2_E))))


def _halves(builder, vector):
    """The lower and the upper half of a vector of TILE lanes."""
    return [builder.shuffle_vector(vector, vector, shuffle_mask(range(begin, begin + HALF)))
            for begin in (0, HALF)]


def _join(builder, lower, upper):
    return builder.shuffle_vector(lower, upper, shuffle_mask(range(TILE)))


# ------------------------------------------------------------------------------ the gate

def _gate_of(builder, a, b):
    """tanh(a) σ(b)."""
    one = constant(a.type, 1)
    u, v = _exponentials(builder, a, b)
    return builder.fdiv(builder.fsub(one, u),
                        builder.fmul(builder.fadd(one, u), builder.fadd(one, v)))


@intrinsic
def gate(context, vector):
    """The gate of a vector's lower half a and upper half b."""
    def generate(context, builder, signature, args):
        return _gate_of(builder, *_halves(builder, args[0]))

    return _HALF(vector), generate


@intrinsic
def gate_two(context, first, second):
    """`gate` of two vectors: a vector with the results of the first, then of the second.

    Faster than one after the other, because both share the registers that hold the constants.
    """
    def generate(context, builder, signature, args):
        return _gate_of(builder, *(builder.shuffle_vector(*args, shuffle_mask(
            [*range(begin, begin + HALF), *range(TILE + begin, TILE + begin + HALF)]))
            for begin in (0, HALF)))

    return first(first, second), generate


@intrinsic
def gate_pair(context, a, b):
    """The gate of two vectors a and b."""
    return a(a, b), lambda context, builder, signature, args: _gate_of(builder, *args)


# ------------------------------------------------------------------------------ gradients

@intrinsic
def activate(context, vector):
    """tanh of the lower half of a vector and σ of its upper half. Both share one division."""
    def generate(context, builder, signature, args):
        a, b = _halves(builder, args[0])
        u, v = _exponentials(builder, a, b)
        one = constant(a.type, 1)
        u_plus_1, v_plus_1 = builder.fadd(one, u), builder.fadd(one, v)
        inverse = builder.fdiv(one, builder.fmul(u_plus_1, v_plus_1))
        return _join(builder,
                     builder.fmul(builder.fmul(builder.fsub(one, u), v_plus_1), inverse),
                     builder.fmul(u_plus_1, inverse))

    return _TILE(vector), generate


@intrinsic
def product_of_halves(context, vector):
    """tanh · σ, for a vector that `activate` returns."""
    def generate(context, builder, signature, args):
        return builder.fmul(*_halves(builder, args[0]))

    return _HALF(vector), generate


@intrinsic
def gate_gradient(context, activated, grad):
    """The gradient of the gate's inputs, given that of its output.

    activated: what `activate` returned. grad: HALF lanes. Returns dy σ (1 - tanh²) and
    dy tanh σ (1 - σ), TILE lanes.
    """
    def generate(context, builder, signature, args):
        tanh, sigma = _halves(builder, args[0])
        one, scaled = constant(tanh.type, 1), builder.fmul(args[1], sigma)
        return _join(builder,
                     builder.fmul(scaled, builder.fsub(one, builder.fmul(tanh, tanh))),
                     builder.fmul(builder.fmul(scaled, tanh), builder.fsub(one, sigma)))

    return _TILE(activated, grad), generate


@intrinsic
def gate_pair_gradients(context, a, b, grad):
    """The gradients of vectors a and b, from that of their gate: a pair of vectors.

    Computes the exponentials again: they cost less than storing and loading tanh and σ.
    """
    def generate(context, builder, signature, args):
        one = constant(args[0].type, 1)
        u, v = _exponentials(builder, *args[:2])
        tanh = builder.fdiv(builder.fsub(one, u), builder.fadd(one, u))
        sigma = builder.fdiv(one, builder.fadd(one, v))
        grad_tanh = builder.fmul(args[2], sigma)
        grad_a = builder.fmul(grad_tanh, builder.fsub(one, builder.fmul(tanh, tanh)))
        grad_b = builder.fmul(builder.fmul(grad_tanh, tanh), builder.fsub(one, sigma))
        return context.make_tuple(builder, signature.return_type, (grad_a, grad_b))

    return types.UniTuple(a, 2)(a, a, grad), generate


# ------------------------------------------------------------------------------ rows of pixels

@inlined
def gate_row(x, i, p, pixels, condition, c, y, o, o_step):
    """Gate the 2p numbers of each of `pixels` pixels from x[i] on, into p numbers from y[o] on.

    Vectors cover as many features as they can, plain floats the others.

    condition: 2p numbers from c on, added to those of each pixel. o_step: from a pixel's numbers in
    y to the next one's.
    """
    whole = p // HALF * HALF
    for _ in range(pixels):
        for j in range(0, whole, HALF):
            store(y, o + j, gate_pair(add(load_half(x, i + j), load_half(condition, c + j)),
                                  add(load_half(x, i + p + j), load_half(condition, c + p + j))))
        for j in range(whole, p):
            y[o + j] = (math.tanh(x[i + j] + condition[c + j])
                        * _sigmoid(x[i + p + j] + condition[c + p + j]))
        i += 2 * p
        o += o_step


@inlined
def gate_row_gradient(x, i, p, pixels, condition, c, dy, g, dx, o, o_step, adds):
    """Write the gradient of `gate_row`'s inputs to dx, 2p numbers for each pixel from o on.

    dy: the outputs' gradient, p numbers for each pixel from g on. o_step: from a pixel's numbers in
    dx to the next one's. adds: add to dx instead.
    """
    whole = p // HALF * HALF
    for _ in range(pixels):
        for j in range(0, whole, HALF):
            grad_a, grad_b = gate_pair_gradients(
                add(load_half(x, i + j), load_half(condition, c + j)),
                add(load_half(x, i + p + j), load_half(condition, c + p + j)),
                load_half(dy, g + j))
            if adds:
                grad_a = add(grad_a, load_half(dx, o + j))
                grad_b = add(grad_b, load_half(dx, o + p + j))
            store(dx, o + j, grad_a)
            store(dx, o + p + j, grad_b)
        for j in range(whole, p):
            tanh = math.tanh(x[i + j] + condition[c + j])
            sigma = _sigmoid(x[i + p + j] + condition[c + p + j])
            grad_a = dy[g + j] * sigma * (np.float32(1) - tanh * tanh)
            grad_b = dy[g + j] * sigma * tanh * (np.float32(1) - sigma)
            if adds:
                grad_a += dx[o + j]
                grad_b += dx[o + p + j]
            dx[o + j], dx[o + p + j] = grad_a, grad_b
        i += 2 * p
        g += p
        o += o_step


@inlined
def _sigmoid(b):
    return np.float32(1) / (np.float32(1) + math.exp(-b))
