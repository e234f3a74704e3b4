"""Rows of gated activation units, y = tanh(a) σ(b), and their gradients, for training.

The backward pass computes tanh and σ again: exponentials in registers cost less than storing and
loading two more numbers. Vectors cover as many features as they can, plain floats the others. NaN
gives NaN, so that a run that diverges shows it.
"""

import math

import numpy as np
from numba import types
from numba.extending import intrinsic

from models.kernels.compiling import inlined
from models.kernels.vectors import HALF, LOG2_E, add, clamp, constant, exp2, load_half, store


def _exponentials(builder, a, b):
    """exp(-2a) and exp(-b), for a clamped to ±10 and b to ±40, where tanh and σ are 1 or next to 0.
    """
    return (exp2(builder, builder.fmul(clamp(builder, a, 10), constant(a.type, -2 * LOG2_E))),
            exp2(builder, builder.fmul(clamp(builder, b, 40), constant(b.type, -LOG2_E))))


@intrinsic
def _gate(context, a, b):
    """tanh(a) σ(b), each a vector. With u = exp(-2a), v = exp(-b): (1 - u) / ((1 + u)(1 + v))."""
    def generate(context, builder, signature, args):
        one = constant(args[0].type, 1)
        u, v = _exponentials(builder, *args)
        return builder.fdiv(builder.fsub(one, u),
                            builder.fmul(builder.fadd(one, u), builder.fadd(one, v)))

    return a(a, a), generate


@intrinsic
def _gate_gradients(context, a, b, grad):
    """The gradients of a and of b, from that of tanh(a) σ(b): a pair of vectors."""
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


@inlined
def gate_row(x, i, p, pixels, condition, c, y, o, o_step):
    """Gate the 2p numbers of each of `pixels` pixels from x[i] on, into p numbers from y[o] on.

    condition: 2p numbers from c on, added to those of each pixel. o_step: from a pixel's numbers in
    y to the next one's.
    """
    whole = p // HALF * HALF
    for _ in range(pixels):
        for j in range(0, whole, HALF):
            store(y, o + j, _gate(add(load_half(x, i + j), load_half(condition, c + j)),
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
            grad_a, grad_b = _gate_gradients(
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
