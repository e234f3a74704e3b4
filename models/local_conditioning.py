"""Local conditioning of a WaveNet on frames of features [1, section 2.5].

    y_t = tanh(W_f * x + V_f * u) ⊙ σ(W_g * x + V_g * u),     u = f(h)

h are frames of features, such as those of a mel spectrogram. Each frame covers `hop` samples; u has
one column per sample. f is learned: the paper uses a transposed convolution. Here f is a
convolution over a few frames, then an interpolation: u at a sample is a weighted sum of the two
frames whose centres it lies between. The weights are learned, one pair for each of the `hop`
positions within a frame. They are the same for all channels, so V, a 1×1 convolution, commutes with
the interpolation. V runs on frames, and a sample only costs the interpolation.

Outside of a recording, nothing is added.

[1] van den Oord et al., WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

CONTEXT_FRAMES = 2  # frames on each side that the convolution sees
INTERPOLATION_TAPS = 2  # frames that the interpolation weights
MARGIN_FRAMES = CONTEXT_FRAMES + 1  # frames on each side of a sample's own that it may depend on


class Frames(NamedTuple):
    """Frames of features for a batch of sequences.

    values: (B, K, features), float32; 0 where `valid` is False.
    valid: (B, K), bool; False before the start and after the end of a recording.
    offset: (B,), int64: the position of codes[:, 0], in samples from the start of frame 0. The
        frame that covers codes[b, i] is values[b, (offset[b] + i) // hop].
    """

    values: torch.Tensor
    valid: torch.Tensor
    offset: torch.Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Frames":
        """Copy the frames to `device`. non_blocking: see torch.Tensor.to."""
        return Frames(*(part.to(device, non_blocking=non_blocking) for part in self))


class Interpolation(NamedTuple):
    """The frames that each column of a batch is interpolated from.

    frames: (B, columns), int64: the first of INTERPOLATION_TAPS consecutive frames.
    weights: (B, columns, INTERPOLATION_TAPS).
    """

    frames: torch.Tensor
    weights: torch.Tensor


class InterpolationMatrix(NamedTuple):
    """An Interpolation as a matrix (B, columns, frames) of the frames `low` to high - 1.

    taps: (B, columns, INTERPOLATION_TAPS), where in a row of the matrix the weights are.
    """

    matrix: torch.Tensor
    taps: torch.Tensor
    low: int
    high: int


def interpolation_matrix(frames: torch.Tensor, weights: torch.Tensor) -> InterpolationMatrix:
    """The matrix of an Interpolation's `frames` and `weights`, or of some of their columns."""
    low, high = int(frames.min()), int(frames.max()) + INTERPOLATION_TAPS
    taps = frames[..., None] - low + torch.arange(INTERPOLATION_TAPS, device=frames.device)
    matrix = weights.new_zeros(*frames.shape, high - low)
    return InterpolationMatrix(matrix.scatter(2, taps, weights), taps, low, high)


class FrameNetwork(nn.Module):
    """f of the module's docstring: a convolution over frames, and the interpolation weights.

    Normalises each feature by the mean and standard deviation that `set_normalization` sets, so
    that the network learns equally from decibels and from Hertz.

    Args:
        features: width of a frame.
        channels: width of the result.
        hop: samples per frame.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, features: int, channels: int, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.convolution = nn.Conv1d(features, channels, 2 * CONTEXT_FRAMES + 1)
        self.proportions = nn.Parameter(linear_interpolation(hop))  # the weights (hop, TAPS)

    def set_normalization(self, mean, deviation) -> None:
        """Set the mean and standard deviation of the frames: tensors or arrays (features,)."""
        self.mean.copy_(torch.as_tensor(mean))
        self.deviation.copy_(torch.as_tensor(deviation))

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Apply the convolution to frames (B, K, features) with their mask `valid` (B, K).

        Returns (B, K - 2 · CONTEXT_FRAMES, channels): frames CONTEXT_FRAMES to
        K - CONTEXT_FRAMES - 1; 0 where `valid` is False.
        """
        values = (values - self.mean) / self.deviation * valid[..., None]
        y = F.relu(self.convolution(values.mT)).mT
        return y * valid[:, CONTEXT_FRAMES:valid.shape[1] - CONTEXT_FRAMES, None]

    def interpolation(self, valid: torch.Tensor, first: torch.Tensor,
                      columns: int) -> Interpolation:
        """How to interpolate the frames that `forward` returns.

        Args:
            valid: (B, K), as for `forward`.
            first: (B,), the sample of the first column, counted from the start of frame 0.
            columns: number of columns, one per sample.
        """
        samples = first[:, None] + torch.arange(columns, device=first.device)
        frames, positions = samples // self.hop, samples % self.hop
        weights = self.proportions[positions] * valid.gather(1, frames)[..., None]
        # The first of the two frames: before a frame's centre it is the previous frame.
        return Interpolation(frames - CONTEXT_FRAMES - (2 * positions + 1 < self.hop).long(),
                             weights)


def linear_interpolation(hop: int) -> torch.Tensor:
    """Linear weights (hop, INTERPOLATION_TAPS) of the two frames around a sample.

    A frame's value holds at its centre.
    """
    second = ((torch.arange(hop) + 0.5) / hop - 0.5) % 1
    return torch.stack((1 - second, second), dim=1)
