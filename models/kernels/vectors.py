"""Vectors of floats for compiled kernels: a numba type, and its operations.

numba compiles loops over numbers. Its optimiser decides whether they become vector instructions and
which numbers stay in registers, and it is unreliable for inner loops as short as those of a small
network. So this module defines a type `Vector` of a fixed number of floats, which LLVM splits into
as many registers as it needs, and the few operations that the kernels need.

All arrays are one-dimensional and C-contiguous, except for weights, which are rows of a matrix. No
operation checks an index: the caller must.
"""

import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, register_model

# The features that numba compiles for: NUMBA_CPU_FEATURES if set, else the host's.
_REQUESTED = config.CPU_FEATURES  # type: ignore[attr-defined] # set when numba is imported
FEATURES = get_host_cpu_features() if _REQUESTED is None else _REQUESTED
_ENABLED = FEATURES.split(",")
# A vector register's floats: 512 bits with AVX-512, 256 with AVX, 128 elsewhere (SSE, Arm's Neon).
HALF = 16 if "+avx512f" in _ENABLED else 8 if "+avx" in _ENABLED else 4
_IS_ARM = platform.machine().lower() in ("arm64", "aarch64")
REGISTERS = 32 if "+avx512f" in _ENABLED or _IS_ARM else 16
# A tile of outputs is two registers: the fewest that a gate needs, one of tanh and one of σ inputs.
# Networks whose width is no multiple of a tile compute with zeros, so a wider one wastes more.
TILE = 2 * HALF

_FLOAT, _INT32 = ir.FloatType(), ir.IntType(32)
LOG2_E = float(np.log2(np.e))
# Coefficients of 2^f for f in [-1/2, 1/2], exact at 0. Degree 6 reaches single precision.
_EXP2 = np.polynomial.Chebyshev.interpolate(np.exp2, 6, domain=[-0.5, 0.5]).convert(
    kind=np.polynomial.Polynomial).coef
_EXP2[0] = 1
_ROUNDING = 1.5 * 2.0 ** 23  # floats of this size have no fraction, so adding it rounds


class Vector(types.Type):
    """`lanes` floats of 32 bits."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(f"Vector({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(_FLOAT, vector.lanes))


def _pointer(context, builder, kind, array, index, pointee):
    """A pointer to a `pointee` that begins at item `index` of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def shuffle_mask(lanes):
    """The lane numbers of a shuffle, as LLVM expects them."""
    return ir.Constant(ir.VectorType(_INT32, len(lanes)), list(lanes))


def constant(like, number):
    """A vector constant of type `like` with `number` in all lanes."""
    if isinstance(like.element, ir.FloatType):
        number = float(np.float32(number))
    return ir.Constant(like, [number] * like.count)


def broadcast(builder, scalar, like):
    """A vector of type `like` with `scalar` in all lanes."""
    undefined = ir.Constant(like, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    return builder.shuffle_vector(first, undefined, shuffle_mask([0] * like.count))


def _call(builder, name, *args):
    """Call LLVM's intrinsic `name` on float vectors; the result has the arguments' type."""
    kind = args[0].type
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(args)), f"{name}.v{kind.count}f32")
    return builder.call(function, args)


def multiply_add(builder, a, b, addend):
    """a · b + addend, rounded once if the machine has a fused multiply-add."""
    return _call(builder, "llvm.fmuladd", a, b, addend)


def load_weights(builder, place, packed):
    """The TILE weights at a pointer, as a vector; packed: as two bfloat16 in each uint32.

    The lower 16 bits of a uint32 are lane i, its upper 16 bits lane HALF + i. A bfloat16 is the
    upper half of a float32.
    """
    like = ir.VectorType(_INT32, HALF) if packed else ir.VectorType(_FLOAT, TILE)
    words = builder.load(builder.bitcast(place, like.as_pointer()), align=4)
    if not packed:
        return words
    floats = ir.VectorType(_FLOAT, HALF)
    lower = builder.bitcast(builder.shl(words, constant(like, 16)), floats)
    upper = builder.bitcast(builder.and_(words, constant(like, 0xFFFF0000)), floats)
    return builder.shuffle_vector(lower, upper, shuffle_mask(range(TILE)))


_TILE, _HALF = Vector(TILE), Vector(HALF)


@intrinsic
def pointer(context, array, index):
    """A pointer to item `index` of an array. The caller must keep the array alive."""
    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), generate


@intrinsic
def shift(context, pointer, items):
    """The pointer `items` items further."""
    return pointer(pointer, types.intp), lambda context, builder, signature, args: builder.gep(
        args[0], [args[1]])


def _make_load(vector, doc):
    @intrinsic
    def load(context, array, index):
        def generate(context, builder, signature, args):
            like = ir.VectorType(_FLOAT, vector.lanes)
            return builder.load(_pointer(context, builder, signature.args[0], *args, like), align=4)

        return vector(array, types.intp), generate

    load.__doc__ = doc
    return load


load = _make_load(_TILE, "The TILE floats of `array` from `index` on.")
load_half = _make_load(_HALF, "The HALF floats of `array` from `index` on.")


@intrinsic
def store(context, array, index, vector):
    """Write `vector` to `array` from `index` on."""
    def generate(context, builder, signature, args):
        array, index, vector = args
        place = _pointer(context, builder, signature.args[0], array, index, vector.type)
        builder.store(vector, place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def add(context, a, b):
    """The sum of two vectors."""
    return a(a, a), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def times(context, a, b):
    """The product of two vectors, lane by lane."""
    return a(a, b), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def scaled(context, vector, factor):
    """The vector times a float32."""
    return vector(vector, types.float32), lambda context, builder, signature, args: builder.fmul(
        args[0], broadcast(builder, args[1], args[0].type))


@intrinsic
def zeros(context):
    """A vector of TILE zeros."""
    return _TILE(), lambda context, builder, signature, args: constant(
        ir.VectorType(_FLOAT, TILE), 0)


@intrinsic
def relu(context, vector):
    """The larger of 0 and each lane."""
    def generate(context, builder, signature, args):
        return _call(builder, "llvm.maxnum", args[0], constant(args[0].type, 0))

    return vector(vector), generate


@intrinsic
def add_scaled(context, total, vector, array, index):
    """`total` + `vector` · array[index], rounded once if the machine has a fused multiply-add."""
    def generate(context, builder, signature, args):
        total, vector, array, index = args
        place = _pointer(context, builder, signature.args[2], array, index, _FLOAT)
        scale = broadcast(builder, builder.load(place), vector.type)
        return multiply_add(builder, vector, scale, total)

    return total(total, vector, array, types.intp), generate


@intrinsic
def exponential(context, vector, highest, scale):
    """exp(scale · (vector - highest)), for lanes up to `highest`; 0 for results below 2^-126."""
    def generate(context, builder, signature, args):
        vector, highest, scale = args
        like = vector.type
        scale = builder.fmul(scale, ir.Constant(_FLOAT, float(np.float32(LOG2_E))))
        exponent = builder.fmul(builder.fsub(vector, broadcast(builder, highest, like)),
                                broadcast(builder, scale, like))
        normal = builder.fcmp_ordered(">=", exponent, constant(like, -126))
        return builder.select(normal, exp2(builder, exponent), constant(like, 0))

    return vector(vector, types.float32, types.float32), generate


@intrinsic
def zero_below(context, vector, threshold):
    """The vector with 0 in each lane that is below `threshold`."""
    def generate(context, builder, signature, args):
        vector, like = args[0], args[0].type
        enough = builder.fcmp_ordered(">=", vector, broadcast(builder, args[1], like))
        return builder.select(enough, vector, constant(like, 0))

    return vector(vector, types.float32), generate


@intrinsic
def float_from_bits(context, bits):
    """The float32 with the bits of an int32."""
    return types.float32(types.int32), lambda context, builder, signature, args: builder.bitcast(
        args[0], _FLOAT)


@intrinsic
def max_lane(context, vector):
    """The highest lane, a float32."""
    def generate(context, builder, signature, args):
        return _reduce(builder, args[0], lambda a, b: _call(builder, "llvm.maxnum", a, b))

    return types.float32(vector), generate


@intrinsic
def sum_lanes(context, vector):
    """The sum of all lanes, a float32, added in pairs."""
    def generate(context, builder, signature, args):
        return _reduce(builder, args[0], builder.fadd)

    return types.float32(vector), generate


def _reduce(builder, vector, combine):
    """Combine the lower and the upper half of a vector until one lane is left."""
    while vector.type.count > 1:
        count = vector.type.count // 2
        vector = combine(*(builder.shuffle_vector(
            vector, vector, shuffle_mask(range(begin, begin + count))) for begin in (0, count)))
    return builder.extract_element(vector, _INT32(0))


def clamp(builder, vector, bound):
    """The vector with its lanes clamped to ±bound. NaN stays NaN, unlike with LLVM's minnum."""
    for sign, limit in ((">", bound), ("<", -bound)):
        limits = constant(vector.type, limit)
        vector = builder.select(builder.fcmp_ordered(sign, vector, limits), limits, vector)
    return vector


def exp2(builder, exponent):
    """2 to the power of each lane, for exponents from -126 to 127; relative error below 2e-7.

    Splits the exponent into n + f, with n the nearest integer. A polynomial gives 2^f, and n is
    added to the bits of its exponent. The lower bits of exponent + 1.5 · 2^23 hold n.
    """
    like = exponent.type
    integers = ir.VectorType(_INT32, like.count)
    shifted = builder.fadd(exponent, constant(like, _ROUNDING))
    f = builder.fsub(exponent, builder.fsub(shifted, constant(like, _ROUNDING)))
    y = constant(like, _EXP2[-1])
    for coefficient in _EXP2[-2::-1]:
        y = _call(builder, "llvm.fmuladd", y, f, constant(like, coefficient))
    n = builder.shl(builder.bitcast(shifted, integers), constant(integers, 23))
    return builder.bitcast(builder.add(builder.bitcast(y, integers), n), like)
