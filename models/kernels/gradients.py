"""What training needs of the gate and of dropout beyond what `vectors` has for drawing.

The forward pass keeps tanh and σ separately; the gradient then needs no exponential.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.kernels.vectors import (
    HALF,
    LOG2_E,
    TILE,
    Vector,
    broadcast,
    clamp,
    constant,
    exp2,
    shuffle_mask,
)

_TILE, _HALF = Vector(TILE), Vector(HALF)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_LANES = ir.VectorType(_INT32, HALF)


def _halves(builder, vector):
    """The lower and the upper half of a vector of TILE lanes."""
    return [builder.shuffle_vector(vector, vector, shuffle_mask(range(begin, begin + HALF)))
            for begin in (0, HALF)]


def _join(builder, lower, upper):
    return builder.shuffle_vector(lower, upper, shuffle_mask(range(TILE)))


@intrinsic
def activate(context, vector):
    """tanh of the lower half of a vector and σ of its upper half, as in `vectors.gate`.

    With u = exp(-2a) and v = exp(-b), tanh(a) = (1 - u) / (1 + u) and σ(b) = 1 / (1 + v) share one
    division by (1 + u)(1 + v). The absolute error is below 3e-7.
    """
    def generate(context, builder, signature, args):
        a, b = _halves(builder, args[0])
        u = exp2(builder, builder.fmul(clamp(builder, a, 10), constant(a.type, -2 * LOG2_E)))
        v = exp2(builder, builder.fmul(clamp(builder, b, 40), constant(a.type, -LOG2_E)))
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
def times(context, a, b):
    """The product of two vectors."""
    return a(a, b), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def zeros(context):
    """A vector of TILE zeros."""
    return _TILE(), lambda context, builder, signature, args: constant(
        ir.VectorType(ir.FloatType(), TILE), 0)


# ------------------------------------------------------------------------------ dropout

def _hash(builder, bits):
    """Mix the bits of 32-bit integers: two multiplications and three shifts [1].

    [1] C. Wellons, Prospecting for Hash Functions, 2018: "lowbias32".
    """
    def same(number):
        return constant(bits.type, number) if bits.type == _LANES else bits.type(number)

    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        bits = builder.mul(builder.xor(bits, builder.lshr(bits, same(shift))), same(factor))
    return bits


@intrinsic
def dropout_key(context, seed, row):
    """A key for `dropout_factors`, int32, that is another one for each seed and row, both int64."""
    def generate(context, builder, signature, args):
        seed, row = args
        low, high = (builder.trunc(part, _INT32) for part in (
            seed, builder.lshr(seed, ir.Constant(_INT64, 32))))
        mixed = _hash(builder, builder.add(builder.trunc(row, _INT32), low))
        return _hash(builder, builder.xor(mixed, high))

    return types.int32(types.int64, types.int64), generate


@intrinsic
def dropout_factors(context, key, feature, kept, factor):
    """HALF factors for the features from `feature` on: `factor`, or 0 for a dropped feature.

    A feature is kept if its random 32 bits are below `kept`.
    """
    def generate(context, builder, signature, args):
        key, feature, kept, factor = args
        counters = builder.add(broadcast(builder, builder.add(key, builder.trunc(
            feature, _INT32)), _LANES), ir.Constant(_LANES, list(range(HALF))))
        is_kept = builder.icmp_unsigned("<", _hash(builder, counters), broadcast(
            builder, builder.trunc(kept, _INT32), _LANES))
        like = ir.VectorType(ir.FloatType(), HALF)
        return builder.select(is_kept, broadcast(builder, factor, like), constant(like, 0))

    return _HALF(types.int32, types.int64, types.int64, types.float32), generate
