"""The compiled WaveNet sampler: streams split over threads, each running the kernels."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from datasets.quantization import silence
from models.kernels.layout import aligned_zeros, round_up
from models.wavenet import WaveNet
from sampling.compiled import wavenet_kernels as kernels
from sampling.compiled.frame_projection import FrameProjection
from sampling.compiled.indices import checked_labels
from sampling.compiled.local_conditioning import ProjectedFrames, no_frames
from sampling.compiled.threads import ThreadShards
from sampling.compiled.wavenet_weights import pack_wavenet, to_bf16
from sampling.local_conditioning import Conditioning


class CompiledWaveNetSampler:
    """A sampler for `sampling.wavenet.sample_sounds`, for single precision on the CPU.

    Splits the streams over as many threads as torch uses. Threads wait for each other only at the
    end of a chunk. A stream's computation is the same, to the last bit, in any batch.

    codes: (B, P), P ≥ 1; silence precedes them. precision: "fp32" or "bf16". local: the
    conditioning, or None. Raises IndexError for codes or labels that the network does not have.
    """

    def __init__(self, model: WaveNet, label: torch.Tensor | None, codes: torch.Tensor,
                 precision: str, local: Conditioning | None = None) -> None:
        self.weights = pack_wavenet(model)
        if precision == "bf16":
            self.weights = to_bf16(self.weights)
        self.first = local.first + codes.shape[1] if local else 0  # number of the first sample
        context = F.pad(codes.long(), (2, 0), value=silence(model.config.levels)).numpy()
        labels = checked_labels(label, context, model.config)
        self.time, self.shards = 0, ThreadShards(len(context))
        self.projection = FrameProjection(local, self.shards.slices) if local else None
        self.states = [kernels.init_state(self.weights, labels[part])
                       for part in self.shards.slices]
        name = "WaveNet sampler" if precision == "fp32" else f"WaveNet {precision} sampler"
        kernels.cache.prepare(name, self._load_kernels)
        times = context.shape[1] - 1
        self._run(self._prefill, self.first - times, times, context)

    def draw(self, uniforms: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
        """Draw codes (B, n) from uniform random numbers (B, n)."""
        codes = np.empty(uniforms.shape, np.int64)

        def draw_shard(state, local, uniforms, codes):
            local = local._replace(first=self.first)
            kernels.draw(self.weights, state, self.time, uniforms, float(temperature),
                         float(top_p), codes, local)

        self._run(draw_shard, self.first + self.time, codes.shape[1] + kernels.MAX_LOOKAHEAD,
                  uniforms.numpy(), codes)
        self.time += codes.shape[1]
        return torch.from_numpy(codes)

    def _run(self, work: Callable[..., object], number: int, samples: int,
             *arrays: np.ndarray) -> None:
        """Call `work` for each shard: with its state, its frames for `samples` samples from
        `number` on, and its slices of the arrays."""
        if self.projection:
            frames = self.projection.frames(number, samples)
        else:
            frames = [no_frames()] * len(self.states)
        self.shards.run(lambda shard, *parts: work(*shard, *parts),
                        list(zip(self.states, frames, strict=True)), *arrays)

    def _load_kernels(self) -> None:
        """Call each kernel with as little work as possible, which compiles or loads it."""
        state, uniforms = self.states[0], np.zeros((len(self.states[0].label), 0))
        self._prefill(state, no_frames(), np.zeros((1, 3), np.int64))
        kernels.draw(self.weights, state, 0, uniforms, 1.0, 1.0, uniforms.astype(np.int64),
                     no_frames())

    def _prefill(self, state: kernels.WaveNetState, local: ProjectedFrames,
                 codes: np.ndarray) -> None:
        sums = round_up(self.weights.p + self.weights.q)
        columns = aligned_zeros((codes.shape[1] - 1) * sums)
        for stream, row in enumerate(codes):
            kernels.prefill(self.weights, state, stream, row, columns, local)
