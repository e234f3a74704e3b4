"""Projects the frames that a chunk of samples needs, for the compiled WaveNet sampler."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from models.kernels.layout import gate_lanes, pack_lanes, to_numpy
from sampling.compiled.local_conditioning import ProjectedFrames, no_frames
from sampling.local_conditioning import Conditioning

MIN_FRAMES = 8  # frames projected at a time, at the least, to amortise the matrix product's call


class FrameProjection:
    """The layers' projections of a conditioning's frames.

    Args:
        conditioning: the frames of all streams.
        slices: the slice of the streams in each thread's shard.
    """

    def __init__(self, conditioning: Conditioning, slices: Sequence[slice]) -> None:
        p, layers = conditioning.model.config.hidden_dim, len(conditioning.model.layers)
        lanes = pack_lanes(conditioning.projection.unflatten(1, (layers, -1)), gate_lanes(0, p, p))
        self.conditioning, self.matrix = conditioning, torch.from_numpy(lanes).flatten(1)
        self.layers, self.slices = layers, slices
        self.projected = range(0)  # the numbers of the samples whose frames are in `shards`
        self.shards: list[ProjectedFrames] = []
        self.empty = no_frames()._replace(
            proportions=to_numpy(conditioning.network.proportions).ravel(), hop=conditioning.hop)

    def frames(self, number: int, samples: int) -> list[ProjectedFrames]:
        """Each shard's frames for `samples` samples from `number` on, which is at t = 0."""
        if not (number in self.projected and number + samples <= self.projected.stop):
            self.projected = range(number, number + max(samples, MIN_FRAMES * self.empty.hop))
            self.shards = [*self._project()]
        return [shard._replace(first=number) for shard in self.shards]

    def _project(self) -> Iterator[ProjectedFrames]:
        low, h = self.conditioning.hidden_frames(self.projected.start, len(self.projected))
        rows = to_numpy((h @ self.matrix).unflatten(2, (self.layers, -1)))
        for part in self.slices:  # a layer's rows at one time are side by side
            yield self.empty._replace(
                rows=np.ascontiguousarray(rows[part].transpose(1, 2, 0, 3)).ravel(), low=low,
                frames=h.shape[1], lengths=self.conditioning.counts.numpy()[part])
