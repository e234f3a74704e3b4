"""Where in the picture a pixel is, as something that a gated block is conditioned on.

Convolutions don't know: a network that has just seen some empty rows can't tell whether they are
the margin above the object or that below it. The paper lets what a gate is conditioned on differ
from place to place (arXiv 1606.05328, equation 5: s = m(h), added to the gate's inputs by a 1×1
convolution V * s). Here s(i, j) is the sines and cosines of the row and of the column at several
wavelengths, as in a Transformer (arXiv 1706.03762, section 3.5), so that it is there for pictures
of any size.
"""

import math

import torch
from torch import nn

WAVELENGTHS = 4, 8, 16, 32, 64, 128, 256  # pixels


def waves(first, count, like):
    """A sine and a cosine for each wavelength, of `count` rows or columns from `first` on.

    -> (count, 2 · wavelengths), in the precision and on the device of `like`.
    """
    wavelengths = torch.tensor(WAVELENGTHS, dtype=like.dtype, device=like.device)
    places = torch.arange(first, first + count, dtype=like.dtype, device=like.device)
    angles = places[:, None] * (2 * math.pi / wavelengths)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class Position(nn.Module):
    """V * s: what a pixel's place adds to each of `channels` inputs of a gate."""

    def __init__(self, channels):
        super().__init__()
        inputs = 2 * len(WAVELENGTHS)
        self.of_row = nn.Linear(inputs, channels, bias=False)
        self.of_column = nn.Linear(inputs, channels, bias=False)
        for layer in (self.of_row, self.of_column):  # together as much as a label
            nn.init.normal_(layer.weight, std=0.5 / inputs ** 0.5)

    def forward(self, first, height, width):
        """The pixels of `height` rows, from row `first` on: (height, width, channels)."""
        like = self.of_row.weight
        return (self.of_row(waves(first, height, like))[:, None]
                + self.of_column(waves(0, width, like)))
