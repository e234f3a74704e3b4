"""Local conditioning of a WaveNet: frames of features, brought to each of its samples [1].

    y_t = tanh(W_f * x + V_f * u) ⊙ σ(W_g * x + V_g * u),     u = f(h)     section 2.5 of [1]

h are frames of features, each of which covers `hop` samples, such as those of a mel spectrogram; u
has a column for every sample, and f is learned, a transposed convolution in the paper. Here f is a
convolution over a few frames, and then an interpolation: a sample's u is a mixture of the two
frames whose middles it lies between, in proportions of its own for each of the `hop` places in a
frame. They are the same for all channels; so V, a 1×1 convolution, may as well come before them.
Then it is applied to frames, and of a sample's conditioning nothing is left to compute but the
mixture.

Where there is no recording, before it and after it, nothing is added.

[1] van den Oord et al., WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

REACH = 2  # frames to each side that the convolution sees
TAPS = 2  # frames that a sample's conditioning is mixed of
MARGIN = REACH + 1  # frames beside that which covers a sample that its conditioning may depend on


class FrameNetwork(nn.Module):
    """f of the module's docstring, in two parts: frames to frames, and the proportions.

    Each of a frame's numbers is first brought to mean 0 and standard deviation 1, of the data that
    `standardize` was given: from spectra in decibels as from a pitch in Hertz it learns alike.

    Args:
        features: numbers in a frame. channels: of what is made of it. hop: samples that it covers.
    """

    def __init__(self, features, channels, hop):
        super().__init__()
        self.hop = hop
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.convolution = nn.Conv1d(features, channels, 2 * REACH + 1)
        self.proportions = nn.Parameter(linear_interpolation(hop))

    def standardize(self, mean, deviation):
        """Bring frames of this mean and standard deviation, (features,) each, to 0 and 1."""
        self.mean.copy_(torch.as_tensor(mean))
        self.deviation.copy_(torch.as_tensor(deviation))

    def forward(self, values, real):
        """values: frames (B, K, features), which count where `real` (B, K) is True.

        Returns (B, K - 2 · REACH, channels), of all but the REACH frames at either end; 0 where
        there is no frame.
        """
        values = (values - self.mean) / self.deviation * real[..., None]
        y = F.relu(self.convolution(values.mT)).mT
        return y * real[:, REACH:real.shape[1] - REACH, None]

    def mixtures(self, real, first, times, size):
        """How the samples' conditioning is mixed of what `forward` gives: a list of Mixture.

        real: (B, K), see `forward`. first: (B,), the sample that the first column is of, counted
        from where frame 0 begins. times: how many columns. size: of those in a mixture.
        """
        samples = first[:, None] + torch.arange(times, device=first.device)
        frames, places = samples // self.hop, samples % self.hop
        weights = self.proportions[places] * real.gather(1, frames)[..., None]  # (B, times, TAPS)
        if not len(first):  # no sequence, but a gradient for the proportions
            return [Mixture(0, 0, weights)]
        # The first of those that are mixed: before a frame's middle, the one before it.
        frames = frames - REACH - (2 * places + 1 < self.hop).long()
        found = []
        for begin in range(0, times, size):
            part = frames[:, begin:begin + size]
            low, high = int(part.min()), int(part.max()) + TAPS
            columns = part[..., None] - low + torch.arange(TAPS, device=part.device)
            matrix = weights.new_zeros(*part.shape, high - low)
            found.append(Mixture(low, high, matrix.scatter(2, columns,
                                                           weights[:, begin:begin + size])))
        return found


class Mixture(NamedTuple):
    """For a stretch of time, what each column takes of the frames `low` up to `high`, without it.

    matrix: (B, times, high - low).
    """

    low: int
    high: int
    matrix: torch.Tensor


def linear_interpolation(hop):
    """Proportions (hop, TAPS) of the two frames whose middles a sample lies between.

    A frame is what it says in its middle.
    """
    second = ((torch.arange(hop) + 0.5) / hop - 0.5) % 1
    return torch.stack((1 - second, second), dim=1)
