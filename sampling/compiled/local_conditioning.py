"""Local conditioning in compiled loops: a chunk's frames, interpolated for each sample."""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import inlined
from models.kernels.layout import aligned_zeros
from models.kernels.vectors import TILE, add_scaled, load, store
from models.local_conditioning import INTERPOLATION_TAPS


class ProjectedFrames(NamedTuple):
    """What frames of features add to the gates' inputs of some streams' samples.

    Frame n // hop covers sample number n.
    """

    rows: np.ndarray  # (frames · L · streams · gates,): the projections of frames from `low` on
    proportions: np.ndarray  # (hop · INTERPOLATION_TAPS,): the interpolation weights
    low: int
    frames: int  # 0 without local conditioning
    lengths: np.ndarray  # (streams,): frames in each sound
    hop: int
    first: int  # the number of the sample at t = 0


def no_frames() -> ProjectedFrames:
    """The ProjectedFrames of a network without local conditioning."""
    return ProjectedFrames(aligned_zeros(0), aligned_zeros(0), 0, 0, np.zeros(0, np.int64), 1, 0)


@inlined
def add_frames(local, stream, t, layer, layers, outputs, o, tiles):
    """Add what the frames around time t contribute to the inputs of a layer's gates."""
    number = local.first + t
    frame = number // local.hop
    if local.frames and 0 <= frame < local.lengths[stream]:
        streams = local.lengths.size
        step = layers * streams * tiles * TILE  # from a frame to the next
        position, at = number - frame * local.hop, (layer * streams + stream) * tiles * TILE
        if 2 * position + 1 < local.hop:  # before the frame's centre: start at the previous frame
            frame -= 1
        at += (frame - local.low) * step
        for i in range(0, tiles * TILE, TILE):
            total = load(outputs, o + i)
            for tap in range(INTERPOLATION_TAPS):
                total = add_scaled(total, load(local.rows, at + tap * step + i),
                                   local.proportions, INTERPOLATION_TAPS * position + tap)
            store(outputs, o + i, total)
