"""All dilated layers of a WaveNet, in one pass over memory for each layer.

`dilated_backward` has their gradients.

`models.dilated` tells what a layer computes. Here a *chunk* of columns goes through a whole layer
while it is in a core's cache: both products of the gate, the gate, the residual and the skip
connection.

A call computes one sequence, whose rows are its times, so that a core's second-level cache holds
what a layer leaves to the next. Several threads can share a sequence: each takes a part of the rows
of each layer, and then they wait for each other. A layer reads its input from one buffer and writes
the next layer's input to another.

Widths are padded: `gates` of a gate's inputs, in the order of `layout.gate_lanes`, `width` of the
residual channels and of the gated features, `skips` of the skip channels. Matrices are row-major,
from input to output features: a row has the weights of one input.

**Traffic.** At p = 32 channels a layer reads 256 bytes of its input for each row, at t and t - d,
and writes 128 bytes of the next layer's and 256 bytes of tanh and σ. The arithmetic for these is
5 p² = 5,120 multiplications, 320 cycles at 16 in a cycle, and some 70 cycles for the gate. A
sequence of 6,700 times has 0.9 MB in each buffer, so the inputs come from a second- or third-level
cache. tanh and σ of all layers go to memory.
"""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import KernelCache, inlined
from models.kernels.gradients import (
    activate,
    dropout_factors,
    dropout_key,
    product_of_halves,
    times,
)
from models.kernels.interpolation import add_frames
from models.kernels.layout import round_up
from models.kernels.products import copy_tiles, multiply
from models.kernels.threads import share, wait
from models.kernels.vectors import HALF, TILE, load, load_half, pointer, shift, store

cache = KernelCache(__file__)

# Rows of a chunk: a multiple of the 6 columns of a block. In the backward pass the gradient of a
# matrix is loaded and stored once for each chunk, so many rows are good; at 64 channels 96 rows of
# all that a layer touches are 200 kB, less than a second-level cache.
CHUNK = 96


class Plan(NamedTuple):
    """What each of L layers computes, in a sequence's rows; see `dilated_plan.LayerPlan`."""

    p: int  # residual channels
    q: int  # skip channels
    rows: int  # of the first layer's input
    first_output: int  # the first row with a skip connection
    begin: np.ndarray  # (L,): the first row of a layer's input
    first: np.ndarray  # (L,): the first row that the layer computes
    shift: np.ndarray  # (L,): rows between a row and the one d times before
    offset: np.ndarray  # (L,): row i of the layer is at offset + i in the kept activations


class ForwardWeights(NamedTuple):
    """The layers' weights in the order of the forward pass, flat."""

    past: np.ndarray  # (L, p, gates)
    now: np.ndarray  # (L, p, gates)
    bias: np.ndarray  # (L, gates): of the sequence
    residual: np.ndarray  # (L - 1, p, width)
    skip: np.ndarray  # (L, p, skips)


class Dropout(NamedTuple):
    """Which features are dropped: those whose random 32 bits are not below `kept`."""

    kept: int  # 2^32 without dropout, which is then not computed
    factor: np.float32  # of the features that are kept
    seed: int


@cache.kernel
def forward(plan, weights, local, dropout, x, buffers, columns, activations, sums, keep, thread,
            threads, barrier):
    """Compute a thread's part of all layers, and add to `sums` (outputs · skips,).

    x: (rows · width,), the first layer's input. buffers: (2 · rows · width,), for the inputs of the
    layers between.
    columns: (rows · width,): gets the input of the last layer, and if `keep`, before its first row,
    those rows of each layer's input that precede the rows which the layer computes. An only layer's
    input is here.
    activations: (…, gates), flat: gets tanh and σ of all layers' rows if `keep`.
    """
    p, last = plan.p, plan.begin.size - 1
    gates, width, skips = 2 * round_up(p, HALF), round_up(p), round_up(plan.q)
    gate_tiles = gates // TILE
    inputs = np.empty(CHUNK * gates, np.float32)
    gated = np.empty(CHUNK * width, np.float32)
    size = plan.rows * width
    constant = np.empty(gates, np.float32)
    for layer in range(last + 1):
        begin, distance = plan.begin[layer], plan.shift[layer]
        a, b = share(plan.first[layer], plan.rows, CHUNK, thread, threads)
        source, begins = (x, 0) if layer == 0 else (buffers, layer % 2 * size)
        if layer == last:
            source, begins = columns, 0
        before = pointer(source, begins)
        after = (pointer(columns, 0) if layer >= last - 1 else
                 pointer(buffers, (layer + 1) % 2 * size))
        past, bias = layer * p * gates, layer * gates
        if a < begin + distance:  # rows for which x_{t-d} is the first column
            multiply(pointer(weights.bias, bias), gates, pointer(weights.past, past), TILE, gates,
                     shift(before, begin * width), width, 1, p,
                     pointer(constant, 0), gates, gate_tiles, 1)
        for row in range(a, b, CHUNK):
            count = min(CHUNK, b - row)
            silent = min(max(begin + distance - row, 0), count)
            for c in range(count):
                if c < silent:
                    copy_tiles(constant, 0, inputs, c * gates, gate_tiles)
                else:
                    copy_tiles(weights.bias, bias, inputs, c * gates, gate_tiles)
                if local.frame_count:
                    add_frames(local, layer, row + c, inputs, c * gates, gate_tiles)
            known = pointer(inputs, silent * gates)
            multiply(known, gates, pointer(weights.past, past), TILE, gates,
                     shift(before, (row + silent - distance) * width), width, 1, p,
                     known, gates, gate_tiles, count - silent)
            multiply(pointer(inputs, 0), gates, pointer(weights.now, past), TILE, gates,
                     shift(before, row * width), width, 1, p,
                     pointer(inputs, 0), gates, gate_tiles, count)
            for c in range(count):
                at = plan.offset[layer] + row + c
                for tile in range(gate_tiles):
                    activated = activate(load(inputs, c * gates + tile * TILE))
                    if keep:
                        store(activations, at * gates + tile * TILE, activated)
                    store(gated, c * width + tile * HALF, product_of_halves(activated))
                drop(dropout, at, gated, c * width, gate_tiles)
            if layer < last:
                multiply(shift(before, row * width), width,
                         pointer(weights.residual, layer * p * width), TILE, width,
                         pointer(gated, 0), width, 1, p,
                         shift(after, row * width), width, width // TILE, count)
            skipped = min(max(plan.first_output - row, 0), count)
            output = pointer(sums, (row + skipped - plan.first_output) * skips)
            multiply(output, skips, pointer(weights.skip, layer * p * skips), TILE, skips,
                     pointer(gated, skipped * width), width, 1, p,
                     output, skips, skips // TILE, count - skipped)
        if keep and layer < last:
            a, b = share(begin, plan.first[layer], CHUNK, thread, threads)
            copy_tiles(source, begins + a * width, columns, a * width,
                       (b - a) * width // TILE)
        wait(barrier, threads)


@inlined
def drop(dropout, row, features, f, tiles):
    """Multiply a row's HALF · tiles features by 0 if they are dropped, else by `factor`."""
    if dropout.kept < 1 << 32:
        key = dropout_key(dropout.seed, row)
        for i in range(0, tiles * HALF, HALF):
            store(features, f + i, times(load_half(features, f + i), dropout_factors(
                key, i, dropout.kept, dropout.factor)))
