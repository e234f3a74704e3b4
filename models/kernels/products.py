"""Matrix products, biases and gates in compiled loops.

`layout` stores a matrix in rows: the weights of one input to TILE outputs. A column of inputs costs
one pass over those rows, with TILE sums in registers. Columns are whatever there are several of:
sequences, images, pixels of a row, or times. Four columns share a pass, so each row is read once
per four columns. A column's sums are added in the same order for any number of columns. So a
result does not depend, to the last bit, on the batch or on the number of threads.

All arguments are one-dimensional arrays of float32 with an index at which the data begin, except
for the rows of weights.
"""

import numpy as np

from models.kernels.compiling import inlined
from models.kernels.vectors import HALF, TILE, add, add_scaled, gate, load, load_row, store


@inlined
def accumulate(weights, at, n, inputs, i, i_step, outputs, o, o_step, tiles, columns):
    """Add weights · inputs to each of `columns` columns of outputs.

    weights: rows; the first tile's n rows begin at row `at`. Column c has its n inputs from
    i + c · i_step on, and its tiles · TILE outputs from o + c · o_step on.
    """
    in_fours = columns // 4 * 4
    for _ in range(tiles):
        for c in range(0, in_fours, 4):
            i0, o0 = i + c * i_step, o + c * o_step
            i1, o1 = i0 + i_step, o0 + o_step
            i2, o2 = i1 + i_step, o1 + o_step
            i3, o3 = i2 + i_step, o2 + o_step
            s0, s1 = load(outputs, o0), load(outputs, o1)
            s2, s3 = load(outputs, o2), load(outputs, o3)
            for j in range(n):
                weight = load_row(weights, at + j)
                s0 = add_scaled(s0, weight, inputs, i0 + j)
                s1 = add_scaled(s1, weight, inputs, i1 + j)
                s2 = add_scaled(s2, weight, inputs, i2 + j)
                s3 = add_scaled(s3, weight, inputs, i3 + j)
            store(outputs, o0, s0)
            store(outputs, o1, s1)
            store(outputs, o2, s2)
            store(outputs, o3, s3)
        for c in range(in_fours, columns):
            sums = load(outputs, o + c * o_step)
            for j in range(n):
                sums = add_scaled(sums, load_row(weights, at + j), inputs, i + c * i_step + j)
            store(outputs, o + c * o_step, sums)
        at += n
        o += TILE


@inlined
def add_bias(outputs, o, o_step, bias, b, tiles, columns):
    """Add the tiles of `bias` from b on to each column's tiles of outputs."""
    for c in range(columns):
        for i in range(0, tiles * TILE, TILE):
            at = o + c * o_step + i
            store(outputs, at, add(load(outputs, at), load(bias, b + i)))


@inlined
def copy_tiles(source, s, outputs, o, tiles):
    """Copy tiles of floats."""
    for i in range(0, tiles * TILE, TILE):
        store(outputs, o + i, load(source, s + i))


@inlined
def relu(source, s, outputs, o, n):
    """Write the larger of 0 and each of n floats."""
    for j in range(n):
        outputs[o + j] = max(source[s + j], np.float32(0))


@inlined
def gate_tiles(inputs, i, i_step, outputs, o, o_step, tiles, columns):
    """Gate each column's tiles of inputs: HALF outputs for each tile. See `layout.gate_lanes`."""
    for c in range(columns):
        for tile in range(tiles):
            store(outputs, o + c * o_step + tile * HALF,
                  gate(load(inputs, i + c * i_step + tile * TILE)))
