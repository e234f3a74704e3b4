"""Local conditioning in the compiled sampler: frames projected for a block, mixed in its kernel."""

from typing import NamedTuple

import numpy as np
import torch

from models.kernels.compiling import inlined
from models.kernels.products import as_array, gate_lanes, lanes_of, space
from models.kernels.vectors import TILE, add_scaled, load, store
from models.local import TAPS

AT_ONCE = 8  # frames at the least that are projected together


class Local(NamedTuple):
    """What frames of features add to the gates' inputs of some streams' samples.

    Sample number n is covered by frame n // hop; `first` is the number of the sample at t = 0.
    """

    rows: np.ndarray  # (count · L · streams · gates,): of the frames `low` to low + count
    proportions: np.ndarray  # (hop · TAPS,)
    low: int
    count: int
    frames: np.ndarray  # (streams,), of each whole sound; 0 of them without local conditioning
    hop: int
    first: int


def nothing():
    """A Local that adds nothing."""
    return Local(space(0), space(0), 0, 0, np.zeros(0, np.int64), 1, 0)


class Projection:
    """The layers' projections of the frames of a `sampling.local_conditioning.Conditioning`.

    parts: slices of its streams, which are computed apart.
    """

    def __init__(self, conditioning, parts):
        model = conditioning.model
        p, layers = model.config.hidden_dim, len(model.layers)
        lanes = lanes_of(conditioning.projection.unflatten(1, (layers, -1)), gate_lanes(0, p, p))
        self.conditioning, self.lanes = conditioning, torch.from_numpy(lanes).flatten(1)
        self.layers, self.parts, self.known, self.locals = layers, parts, range(0), []
        self.local = nothing()._replace(proportions=as_array(model.frames.proportions).ravel(),
                                        hop=conditioning.hop)

    def of(self, number, samples):
        """A Local for each part, for so many samples from that number on, which is at t = 0."""
        if not (number in self.known and number + samples <= self.known.stop):
            self.known = range(number, number + max(samples, AT_ONCE * self.local.hop))
            self.locals = [*self._project()]
        return [local._replace(first=number) for local in self.locals]

    def _project(self):
        low, h = self.conditioning.needed(self.known.start, len(self.known))
        rows = as_array((h @ self.lanes).unflatten(2, (self.layers, -1)))
        for part in self.parts:  # at a time all of a layer's rows lie side by side
            yield self.local._replace(
                rows=np.ascontiguousarray(rows[part].transpose(1, 2, 0, 3)).ravel(), low=low,
                count=h.shape[1], frames=self.conditioning.counts.numpy()[part])


@inlined
def mix(local, stream, t, layer, layers, outputs, o, tiles):
    """Add what the frames around time t add to the inputs of a layer's gates."""
    number = local.first + t
    frame = number // local.hop
    if local.count and 0 <= frame < local.frames[stream]:
        streams = local.frames.size
        step = layers * streams * tiles * TILE  # from a frame to the next
        place, at = number - frame * local.hop, (layer * streams + stream) * tiles * TILE
        if 2 * place + 1 < local.hop:  # before the frame's middle: of the one before, and of it
            frame -= 1
        at += (frame - local.low) * step
        for i in range(0, tiles * TILE, TILE):
            total = load(outputs, o + i)
            for tap in range(TAPS):
                total = add_scaled(total, load(local.rows, at + tap * step + i),
                                   local.proportions, TAPS * place + tap)
            store(outputs, o + i, total)
