"""Local conditioning during sampling: what frames of features add to each sample's gates.

Whatever can be computed for many samples at once is computed before they are drawn: the convolution
over all frames of a sound, and the layers' projections of a chunk's frames. Each sample only costs
the interpolation of two frames.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from models.local_conditioning import (
    CONTEXT_FRAMES,
    MARGIN_FRAMES,
    Frames,
    interpolation_matrix,
)
from models.wavenet import WaveNet

# Samples after the last one that a sampler may ask for. The compiled sampler's lookahead needs 8,
# and the cached sampler's chunk 64.
EXTRA_SAMPLES = 64


class Conditioning:
    """What the frames of B sounds add to the inputs of a network's gates.

    Samples are numbered from the start of frame 0.

    Args:
        model: a WaveNet with features.
        values: per sound (K, features); frame k covers the samples from k · hop on.
        first: the number of the first code that a sampler receives; negative for silence before.
    """

    @torch.inference_mode()
    def __init__(self, model: WaveNet, values: Sequence[torch.Tensor], first: int) -> None:
        if model.frames is None:
            raise ValueError("the network has no features, so it takes no frames")
        self.model, self.first, self.network = model, first, model.frames
        self.counts = torch.tensor([len(frames) for frames in values])
        self.shortest = int(self.counts.min())
        padded = pad_sequence([*values], batch_first=True).to(model.logits.weight)
        self.hop = model.config.hop
        # A receptive field of silence may precede the first code; the rest is the frames' margin.
        self.before = model.config.receptive_field // self.hop + 2 + MARGIN_FRAMES
        after = EXTRA_SAMPLES // self.hop + 1 + MARGIN_FRAMES
        self.values = F.pad(padded, (0, 0, self.before, after))
        valid = torch.arange(padded.shape[1]) < self.counts[:, None]
        self.valid = F.pad(valid, (self.before, after)).to(padded.device)
        self.h = self.network(self.values, self.valid)
        self.projection = torch.cat([layer.local.weight for layer in model.layers]).t()  # L · 2p

    def frames(self, number: int) -> Frames:
        """The Frames of sequences whose first code is sample `number`."""
        offset = torch.full((len(self.valid),), self.before * self.hop + number)
        return Frames(self.values, self.valid, offset.to(self.valid.device))

    def hidden_frames(self, number: int, samples: int) -> tuple[int, torch.Tensor]:
        """The frames after the convolution that `samples` samples from `number` on depend on.

        Returns the number of the first frame, and the frames (B, k, channels).
        """
        low = number // self.hop - 1
        end = (number + max(samples, 1) - 1) // self.hop + 2
        shift = self.before - CONTEXT_FRAMES
        return low, self.h[:, low + shift:end + shift]

    def projected_frames(self, number: int, samples: int) -> tuple[int, torch.Tensor]:
        """The layers' projections of `hidden_frames`.

        Returns the number of the first frame, and the projections (k, L, 2p, B).
        """
        low, h = self.hidden_frames(number, samples)
        frames = (h @ self.projection).unflatten(2, (len(self.model.layers), -1))
        return low, frames.permute(1, 2, 3, 0).contiguous()

    @torch.inference_mode()
    def gate_inputs(self, number: int, samples: int) -> torch.Tensor:
        """What is added to the gates' inputs of `samples` samples from `number` on.

        Returns (L, B, samples, 2p).
        """
        low, h = self.hidden_frames(number, samples)
        interpolation = interpolation_matrix(*self.network.interpolation(
            self.valid, self.frames(number).offset, samples))
        skipped = interpolation.low - (low + self.before - CONTEXT_FRAMES)
        h = h[:, skipped:skipped + interpolation.high - interpolation.low]
        frames = (h @ self.projection).unflatten(2, (len(self.model.layers), -1))
        return torch.einsum("btk,bklp->lbtp", interpolation.matrix, frames)
