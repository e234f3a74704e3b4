"""The gradients of all dilated layers of a WaveNet, in one pass over memory for each layer.

A call computes one sequence, and several threads can share it, as in `dilated_forward`. For each
chunk of a layer's rows,

1. the layer after this one propagates the gradients of its gates' inputs to the rows, which it read
   d times before its own;
2. then the gradient of this layer's output is complete, and the layer computes the rows' part of
   all other gradients, and the gradients of its own gates' inputs.

Step 1 reads gradients that other threads wrote in step 2 of the layer after, so the threads wait
for each other after a layer. Two buffers hold the gradients of two layers' gates. A layer's input
is not kept: subtracting what the layer added recovers it.
"""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import KernelCache, inlined
from models.kernels.dilated_forward import CHUNK, drop
from models.kernels.gradients import gate_gradient, product_of_halves, zeros
from models.kernels.interpolation import add_frame_gradients, add_weight_gradients
from models.kernels.layout import round_up
from models.kernels.products import multiply
from models.kernels.threads import share, wait
from models.kernels.vectors import HALF, TILE, add, load, load_half, pointer, store

cache = KernelCache(__file__)


class BackwardWeights(NamedTuple):
    """The layers' transposed weights, and the residual ones negated, flat."""

    past: np.ndarray  # (L, gates, width)
    now: np.ndarray  # (L, gates, width)
    residual: np.ndarray  # (L - 1, p, width)
    skip: np.ndarray  # (L, q, width)
    negated_residual: np.ndarray  # (L - 1, p, width), not transposed


class Gradients(NamedTuple):
    """The sums of the gradients of a thread's rows, flat."""

    past: np.ndarray  # (L, p, gates)
    now: np.ndarray  # (L, p, gates)
    bias: np.ndarray  # (L, gates)
    residual: np.ndarray  # (L - 1, p, width)
    skip: np.ndarray  # (L, p, skips)


@cache.kernel
def backward(plan, weights, local, dropout, columns, activations, grad_sums, grad_columns,
             grad_gates, grads, grad_frames, grad_weights, thread, threads, barrier):
    """Compute a thread's part of all gradients.

    columns: (rows · width,), of `forward`. Each layer's input replaces the next one's.
    activations: of `forward`. grad_sums: (outputs · skips,). grad_columns: (rows · width,), zeros;
    gets the gradient of the first layer's input. grad_gates: (2 · rows · gates,), buffers.
    grads: Gradients, of this thread. grad_frames, grad_weights: those of `local`'s frames and
    weights are added to them.
    """
    last, gates = plan.begin.size - 1, 2 * round_up(plan.p, HALF)
    gated = np.empty(CHUNK * round_up(plan.p), np.float32)
    grad_gated = np.empty(CHUNK * round_up(plan.p), np.float32)
    total = np.empty(gates, np.float32)
    for layer in range(last, -2, -1):
        if layer < last:
            propagate_to_silence(plan, weights, layer + 1, columns, grad_columns, grad_gates, grads,
                                 total, thread, threads, barrier)
            if local.frame_count:
                add_frame_gradients(plan, local, layer + 1, grad_gates,
                                    (layer + 1) % 2 * plan.rows * gates, gates // TILE,
                                    grad_frames, thread, threads)
        first = plan.first[layer] if layer >= 0 else plan.begin[0]
        a, b = share(first, plan.rows, CHUNK, thread, threads)
        for row in range(a, b, CHUNK):
            count = min(CHUNK, b - row)
            if layer < last:
                propagate(plan, weights, layer + 1, columns, grad_columns, grad_gates, grads, row,
                          count)
            if layer >= 0:
                add_gradients(plan, weights, local, dropout, layer, columns, activations, grad_sums,
                              grad_columns, grad_gates, grads, grad_weights, gated, grad_gated,
                              row, count)
        wait(barrier, threads)


@inlined
def add_gradients(plan, weights, local, dropout, layer, columns, activations, grad_sums,
                  grad_columns, grad_gates, grads, grad_weights, gated, grad_gated, row, count):
    """Add `count` rows' part of a layer's gradients; all but what goes to the rows d times before.

    gated, grad_gated: buffers of a chunk.
    """
    p, last = plan.p, plan.begin.size - 1
    gates, width, skips = 2 * round_up(p, HALF), round_up(p), round_up(plan.q)
    gate_tiles, tiles = gates // TILE, width // TILE
    for c in range(count):
        at = plan.offset[layer] + row + c
        for tile in range(gate_tiles):
            store(gated, c * width + tile * HALF, product_of_halves(
                load(activations, at * gates + tile * TILE)))
        drop(dropout, at, gated, c * width, gate_tiles)
    for i in range(0, count * width, TILE):
        store(grad_gated, i, zeros())
    x, grad_x = pointer(columns, row * width), pointer(grad_columns, row * width)
    y, grad_y = pointer(gated, 0), pointer(grad_gated, 0)
    if layer < last:
        residual = layer * p * width
        multiply(x, width, pointer(weights.negated_residual, residual), TILE, width,
                 y, width, 1, p, x, width, tiles, count)
        grad = pointer(grads.residual, residual)
        multiply(grad, width, grad_x, TILE, width, y, 1, width, count, grad, width, tiles, p)
        multiply(grad_y, width, pointer(weights.residual, residual), TILE, width,
                 grad_x, width, 1, p, grad_y, width, tiles, count)
    skipped = min(max(plan.first_output - row, 0), count)  # rows without a skip connection
    output = pointer(grad_sums, (row + skipped - plan.first_output) * skips)
    y, grad_y = pointer(gated, skipped * width), pointer(grad_gated, skipped * width)
    grad = pointer(grads.skip, layer * p * skips)
    multiply(grad, skips, output, TILE, skips, y, 1, width, count - skipped,
             grad, skips, skips // TILE, p)
    multiply(grad_y, width, pointer(weights.skip, layer * plan.q * width), TILE, width,
             output, skips, 1, plan.q, grad_y, width, tiles, count - skipped)
    g = (layer % 2 * plan.rows + row) * gates
    for c in range(count):
        at = plan.offset[layer] + row + c
        drop(dropout, at, grad_gated, c * width, gate_tiles)
        for i in range(0, gates, TILE):
            grad_gate = gate_gradient(load(activations, at * gates + i),
                                      load_half(grad_gated, c * width + i // 2))
            store(grad_gates, g + c * gates + i, grad_gate)
            store(grads.bias, layer * gates + i,
                  add(load(grads.bias, layer * gates + i), grad_gate))
        if local.frame_count:
            add_weight_gradients(local, layer, row + c, grad_gates, g + c * gates,
                                 gate_tiles, grad_weights)
    grad, grad_gate = pointer(grads.now, layer * p * gates), pointer(grad_gates, g)
    multiply(grad, gates, grad_gate, TILE, gates, x, 1, width, count, grad, gates, gate_tiles, p)
    multiply(grad_x, width, pointer(weights.now, layer * gates * width), TILE, width,
             grad_gate, gates, 1, gates, grad_x, width, tiles, count)


@inlined
def propagate(plan, weights, layer, columns, grad_columns, grad_gates, grads, row, count):
    """Propagate the gates' gradients to those of `count` rows that a layer reads at t - d."""
    gates, shift = 2 * round_up(plan.p, HALF), plan.shift[layer]
    begin = max(plan.first[layer] - shift, row)
    count = min(plan.rows - shift, row + count) - begin
    if count > 0:
        propagate_rows(plan, weights, layer, grad_gates,
                       (layer % 2 * plan.rows + begin + shift) * gates, columns, grad_columns,
                       grads, begin, count)


@inlined
def propagate_to_silence(plan, weights, layer, columns, grad_columns, grad_gates, grads, total,
                         thread, threads, barrier):
    """Propagate from the rows for which x_{t-d} is the first column, their sum.

    total: a buffer of `gates` floats.
    """
    gates, begin = 2 * round_up(plan.p, HALF), plan.begin[layer]
    end = min(begin + plan.shift[layer], plan.rows)
    if plan.first[layer] < end:
        if thread == 0:
            for i in range(0, gates, TILE):
                store(total, i, zeros())
            for row in range(plan.first[layer], end):
                g = (layer % 2 * plan.rows + row) * gates
                for i in range(0, gates, TILE):
                    store(total, i, add(load(total, i), load(grad_gates, g + i)))
            propagate_rows(plan, weights, layer, total, 0, columns, grad_columns, grads, begin, 1)
        wait(barrier, threads)


@inlined
def propagate_rows(plan, weights, layer, grad_gates, g, columns, grad_columns, grads, row, count):
    """Propagate `count` gradients of gates, from grad_gates[g] on, to the rows from `row` on."""
    p, gates, width = plan.p, 2 * round_up(plan.p, HALF), round_up(plan.p)
    x, grad_x = pointer(columns, row * width), pointer(grad_columns, row * width)
    grad_gate = pointer(grad_gates, g)
    grad = pointer(grads.past, layer * p * gates)
    multiply(grad, gates, grad_gate, TILE, gates, x, 1, width, count,
             grad, gates, gates // TILE, p)
    multiply(grad_x, width, pointer(weights.past, layer * gates * width), TILE, width,
             grad_gate, gates, 1, gates, grad_x, width, width // TILE, count)
