"""What the compiled samplers of both networks are made of: matrix products, and a code's choice.

A network's weights are laid out once, in rows: the weights of one input to TILE outputs. A column
of inputs costs one pass over those rows, in which TILE sums are kept in registers. Columns are
whatever there is several of: sounds or images, pixels of a row, times of a prime. Four columns are
computed at a time, so that a row, once read, is used four times; but each column's sums are added
up in the same order however many columns there are. So what is drawn depends, to the last bit,
neither on what is drawn beside it nor on the number of threads.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numba.extending import register_jitable

from models.kernels.compiling import inlined
from models.kernels.vectors import (
    HALF,
    TILE,
    add,
    add_scaled,
    at_least,
    exponential,
    float_of,
    gate,
    highest,
    load,
    row,
    store,
    total,
)

LINE = 64  # bytes of a cache line


@register_jitable
def padded(size, multiple=TILE):
    """The least multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


class Shares:
    """`count` sounds or images, shared out between as many threads as torch is set to.

    parts: of an array that has one item for each, the slice of each thread.
    """

    def __init__(self, count):
        threads = min(torch.get_num_threads(), count)
        bounds = [count * i // threads for i in range(threads + 1)]
        self.parts = [slice(*bound) for bound in pairwise(bounds)]
        self._pool = ThreadPoolExecutor(threads)

    def each(self, work, states, *arrays):
        """Call `work` for each part, with its state and its slice of each array; wait for all."""
        of_parts = ([array[part] for part in self.parts] for array in arrays)
        list(self._pool.map(work, states, *of_parts))


def checked(label, codes, config):
    """The labels as the kernels read them, one for each of the codes (B, …): (B,), int64.

    Kernels check no index. Raises IndexError for a label or a code that the network doesn't have.
    """
    label = np.array(np.broadcast_to(label if config.labels else 0, len(codes)), np.int64)
    for name, numbers, count in (("label", label, max(config.labels, 1)),
                                 ("code", codes, config.levels)):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
            raise IndexError(f"{name}s must be from 0 to {count - 1}")
    return label


# ------------------------------------------------------------------------------ layout of weights

def rows_of(weight, outputs):
    """Lay out a matrix for `accumulate`: (tiles · inputs, TILE), a tile after the other.

    weight: (out, inputs). outputs: the number of the output that each lane computes, or -1 for
    none, (tiles · TILE,).
    """
    weight, outputs = as_array(weight), np.asarray(outputs)
    chosen = np.where(outputs[:, None] < 0, 0, weight[outputs]).astype(np.float32)
    return np.ascontiguousarray(
        chosen.reshape(-1, TILE, weight.shape[1]).transpose(0, 2, 1)).reshape(-1, TILE)


def lanes_of(vector, outputs, missing=0):
    """A bias in the order of `rows_of`'s outputs; (..., out) -> (..., tiles · TILE)."""
    vector, outputs = as_array(vector), np.asarray(outputs)
    return np.where(outputs < 0, missing, vector[..., outputs]).astype(np.float32)


def consecutive(begin, end):
    """Lanes that compute the outputs from `begin` to `end`, in order."""
    lanes = np.full(padded(end - begin), -1)
    lanes[:end - begin] = np.arange(begin, end)
    return lanes


def gate_lanes(begin, end, width):
    """Lanes that compute features `begin` to `end` of a gate, whose second half is `width` later.

    Each tile has HALF features' tanh inputs, then the inputs of their σ.
    """
    features = np.full(padded(end - begin, HALF), -1)
    features[:end - begin] = np.arange(begin, end)
    features = features.reshape(-1, HALF)
    return np.stack((features, np.where(features < 0, -1, features + width)), axis=1).ravel()


def space(shape, dtype=np.float32):
    """An array of zeros that begins at a cache line: vectors then lie within one."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin:begin + size].view(dtype).reshape(shape)


def aligned(weights):
    """A named tuple of weights whose arrays begin at a cache line; integers are int64."""
    def moved(array):
        there = space(array.shape, np.int64 if array.dtype.kind == "i" else array.dtype)
        there[...] = array
        return there

    return weights._make(moved(field) if isinstance(field, np.ndarray) else field
                         for field in weights)


def as_array(tensor):
    """A parameter's values, as an array."""
    return tensor.detach().cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor


def packed(rows):
    """Rows that bfloat16 can hold, in 16 bits a number: (rows, TILE) -> (rows, HALF) uint32."""
    bits = rows.view(np.uint32)
    return np.ascontiguousarray(bits[:, :HALF] >> 16 | bits[:, HALF:] & 0xFFFF0000)


# ------------------------------------------------------------------------------ matrix products

@inlined
def accumulate(weights, at, n, inputs, i, i_step, outputs, o, o_step, tiles, columns):
    """Add to each of `columns` columns of outputs the weights times its n inputs.

    weights: rows, those of the first tile from row `at` on. Column c has its inputs from
    i + c · i_step on, and its tiles · TILE outputs from o + c · o_step on.
    """
    together = columns // 4 * 4
    for _ in range(tiles):
        for c in range(0, together, 4):
            i0, o0 = i + c * i_step, o + c * o_step
            i1, o1 = i0 + i_step, o0 + o_step
            i2, o2 = i1 + i_step, o1 + o_step
            i3, o3 = i2 + i_step, o2 + o_step
            s0, s1 = load(outputs, o0), load(outputs, o1)
            s2, s3 = load(outputs, o2), load(outputs, o3)
            for j in range(n):
                weight = row(weights, at + j)
                s0 = add_scaled(s0, weight, inputs, i0 + j)
                s1 = add_scaled(s1, weight, inputs, i1 + j)
                s2 = add_scaled(s2, weight, inputs, i2 + j)
                s3 = add_scaled(s3, weight, inputs, i3 + j)
            store(outputs, o0, s0)
            store(outputs, o1, s1)
            store(outputs, o2, s2)
            store(outputs, o3, s3)
        for c in range(together, columns):
            sums = load(outputs, o + c * o_step)
            for j in range(n):
                sums = add_scaled(sums, row(weights, at + j), inputs, i + c * i_step + j)
            store(outputs, o + c * o_step, sums)
        at += n
        o += TILE


@inlined
def add_to(outputs, o, o_step, bias, b, tiles, columns):
    """Add to each column's tiles of outputs the tiles of `bias` from b on."""
    for c in range(columns):
        for i in range(0, tiles * TILE, TILE):
            at = o + c * o_step + i
            store(outputs, at, add(load(outputs, at), load(bias, b + i)))


@inlined
def copy(source, s, outputs, o, tiles):
    """Copy tiles of floats."""
    for i in range(0, tiles * TILE, TILE):
        store(outputs, o + i, load(source, s + i))


@inlined
def rectify(source, s, outputs, o, n):
    """The larger of 0 and each of n floats."""
    for j in range(n):
        outputs[o + j] = max(source[s + j], np.float32(0))


@inlined
def gates(inputs, i, i_step, outputs, o, o_step, tiles, columns):
    """The gate of each column's tiles of inputs: HALF outputs for each tile."""
    for c in range(columns):
        for tile in range(tiles):
            store(outputs, o + c * o_step + tile * HALF,
                  gate(load(inputs, i + c * i_step + tile * TILE)))


# ------------------------------------------------------------------------------ a code's choice

@inlined
def pick(logits, at, levels, uniform, temperature, top_p, odds):
    """`choose` of the logits from `at` on: the code at which their cumulative
    distribution passes `uniform`.

    Beyond `levels` logits are -inf, to a multiple of TILE. odds: space for as many floats.
    """
    size = padded(levels)
    best = -np.inf
    for i in range(0, size, TILE):
        best = max(best, highest(load(logits, at + i)))
    best = np.float32(best)
    if temperature == 0:
        for code in range(levels):
            if logits[at + code] == best:
                return code
    scale = np.float32(min(1 / temperature, 1e30)) if temperature > 0 else np.float32(1e30)
    for i in range(0, size, TILE):
        store(odds, i, exponential(load(logits, at + i), best, scale))
    if top_p < 1:
        least = smallest_kept(odds, size, top_p)
        for i in range(0, size, TILE):
            store(odds, i, at_least(load(odds, i), least))
    whole = mass(odds, size, np.float32(0))
    return passing(odds, size, levels, uniform * whole)


@inlined
def mass(odds, size, least):
    """The sum of all odds that are `least` or more."""
    whole = 0.0
    for i in range(0, size, TILE):
        whole += total(at_least(load(odds, i), least))
    return whole


@inlined
def passing(odds, size, levels, threshold):
    """The first code at which the sum of the odds up to it is above `threshold`.

    Whole tiles are passed first. Should rounding leave the sum of all at the threshold, it is the
    last code that is not so improbable as to be lost in that rounding.
    """
    i, below = 0, 0.0
    while i + TILE < size and below + total(load(odds, i)) <= threshold:
        below += total(load(odds, i))
        i += TILE
    for code in range(i, levels):
        below += odds[code]
        if below > threshold:
            return code
    code = levels - 1
    while code > 0 and odds[code] <= below * 2 ** -24:
        code -= 1
    return code


@inlined
def smallest_kept(odds, size, top_p):
    """The highest number such that the odds from there up make `top_p` of all.

    The bits of positive floats are ordered as the floats are: they are searched by bisection.
    """
    enough = top_p * mass(odds, size, np.float32(0))
    low, high = np.int32(0), np.int32(0x3F800001)  # just above the highest odds, which are 1
    while high - low > 1:
        middle = np.int32((low + high) // 2)
        if mass(odds, size, float_of(middle)) >= enough:
            low = middle
        else:
            high = middle
    return float_of(low)
