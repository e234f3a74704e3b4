"""Local conditioning of rows on frames, interpolated in compiled loops, forward and backward."""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import inlined
from models.kernels.threads import share
from models.kernels.vectors import TILE, add, add_scaled, load, store, sum_lanes, times, zeros
from models.local_conditioning import INTERPOLATION_TAPS as TAPS


class LocalInputs(NamedTuple):
    """What local conditioning adds to the gates' inputs, interpolated from K frames; flat."""

    frames: np.ndarray  # (L, K, gates)
    frame_count: int  # K; 0 without local conditioning
    first: np.ndarray  # (rows,), int64: the first of the TAPS frames of a row
    weights: np.ndarray  # (rows, TAPS)


@inlined
def frame_at(local, layer, row, tiles):
    """Where the first frame of a row begins in `local.frames`."""
    return (layer * local.frame_count + local.first[row]) * tiles * TILE


@inlined
def add_frames(local, layer, row, outputs, o, tiles):
    """Add the interpolated frames of a row to the inputs of its gates."""
    at = frame_at(local, layer, row, tiles)
    for i in range(0, tiles * TILE, TILE):
        total = load(outputs, o + i)
        for tap in range(TAPS):
            total = add_scaled(total, load(local.frames, at + tap * tiles * TILE + i),
                               local.weights, row * TAPS + tap)
        store(outputs, o + i, total)


@inlined
def add_weight_gradients(local, layer, row, grad_gates, g, tiles, grad_weights):
    """Add the gradients of the weights with which a row's frames are interpolated."""
    at = frame_at(local, layer, row, tiles)
    for tap in range(TAPS):
        total = zeros()
        for i in range(0, tiles * TILE, TILE):
            total = add(total, times(load(grad_gates, g + i),
                                     load(local.frames, at + tap * tiles * TILE + i)))
        grad_weights[row * TAPS + tap] += sum_lanes(total)


@inlined
def add_frame_gradients(plan, local, layer, grad_gates, g, tiles, grad_frames, thread, threads):
    """Add the gradients of this thread's part of the frames; those of the gates begin at g."""
    low, high = share(0, local.frame_count, 1, thread, threads)
    gates = tiles * TILE
    for row in range(plan.first[layer], plan.rows):
        at = frame_at(local, layer, row, tiles)
        for tap in range(TAPS):
            if low <= local.first[row] + tap < high:
                for i in range(0, gates, TILE):
                    place = at + tap * gates + i
                    store(grad_frames, place, add_scaled(
                        load(grad_frames, place), load(grad_gates, g + row * gates + i),
                        local.weights, row * TAPS + tap))
