"""Dropout in compiled loops: the random factors of features, from a hash of where they are.

A hash needs no state, so any thread computes any row's factors, and the backward pass computes them
again instead of storing them.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.kernels.vectors import HALF, Vector, broadcast, constant

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_LANES = ir.VectorType(_INT32, HALF)


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

    return Vector(HALF)(types.int32, types.int64, types.int64, types.float32), generate
