"""Local conditioning while sound is drawn: what frames of features add to each sample's gates.

What can be computed for many samples at once is, before they are drawn: the convolution over
frames for all of a sound, the layers' projections for the frames of a block. A sample is left with
the mixture of two frames.
"""

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from datasets.batches import Frames
from models.local import MARGIN, REACH

AHEAD = 64  # samples after the last that may be asked for too


class Conditioning:
    """What the frames of some sounds add to the gates' inputs of a network.

    model: a WaveNet with features. values: of each sound (K, features), frame k covering the
    samples from number k · hop on. first: the number of the first code that a sampler is given.
    """

    @torch.inference_mode()
    def __init__(self, model, values, first):
        self.model, self.first = model, first
        self.counts = torch.tensor([len(of_one) for of_one in values])
        self.shortest = int(self.counts.min())
        values = pad_sequence([*values], batch_first=True).to(model.logits.weight)
        self.hop = model.config.hop
        # Before the first code there may be a field of silence; the rest is for what frames reach.
        self.before = model.config.receptive_field // self.hop + 2 + MARGIN
        after = AHEAD // self.hop + 1 + MARGIN
        self.values = F.pad(values, (0, 0, self.before, after))
        real = torch.arange(values.shape[1]) < self.counts[:, None]
        self.real = F.pad(real, (self.before, after)).to(values.device)
        self.h = model.frames(self.values, self.real)
        self.projection = torch.cat([layer.local.weight for layer in model.layers]).t()  # L · 2p

    def frames(self, number):
        """The Frames of sequences whose first code is that of sample `number`."""
        offset = torch.full((len(self.real),), self.before * self.hop + number)
        return Frames(self.values, self.real, offset.to(self.real.device))

    def needed(self, number, samples):
        """What so many samples from that number on are mixed of: the number of the first frame,
        and the frames, after the convolution, (B, k, channels)."""
        low = number // self.hop - 1
        end = (number + max(samples, 1) - 1) // self.hop + 2
        return low, self.h[:, low + self.before - REACH:end + self.before - REACH]

    def projected(self, number, samples):
        """The number of the first frame that is `needed`, and the layers' projections of all that
        are: (k, L, 2p, B)."""
        low, h = self.needed(number, samples)
        frames = (h @ self.projection).unflatten(2, (len(self.model.layers), -1))
        return low, frames.permute(1, 2, 3, 0).contiguous()

    @torch.inference_mode()
    def added(self, number, samples):
        """What is added to the gates' inputs of so many samples: (L, B, samples, 2p)."""
        low, h = self.needed(number, samples)
        mixture, = self.model.frames.mixtures(self.real, self.frames(number).offset, samples,
                                              samples)
        skipped = mixture.low - (low + self.before - REACH)
        h = h[:, skipped:skipped + mixture.high - mixture.low]
        frames = (h @ self.projection).unflatten(2, (len(self.model.layers), -1))
        return torch.einsum("btk,bklp->lbtp", mixture.matrix, frames)
