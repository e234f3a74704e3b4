"""A pixel's position in the image, as a condition of the gates.

A convolution does not know where it is: after some empty rows, a network cannot tell the margin
above an object from the margin below it. The paper lets the condition of a gate vary over the image
(arXiv 1606.05328, equation 5: s = m(h), added to the gate's inputs by a 1×1 convolution V * s).
Here s(i, j) holds sinusoids of the row and of the column at several wavelengths, as in a
Transformer (arXiv 1706.03762, section 3.5), so it exists for images of any size.
"""

import math

import torch
from torch import nn

WAVELENGTHS = 4, 8, 16, 32, 64, 128, 256  # pixels


def sinusoids(first: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """A sine and a cosine per wavelength, for the rows or columns `first` to first + count - 1.

    Returns (count, 2 · wavelengths), in the precision and on the device of `like`.
    """
    wavelengths = torch.tensor(WAVELENGTHS, dtype=like.dtype, device=like.device)
    positions = torch.arange(first, first + count, dtype=like.dtype, device=like.device)
    angles = positions[:, None] * (2 * math.pi / wavelengths)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class Position(nn.Module):
    """V * s: what a pixel's position adds to the inputs of a gate.

    channels: width of the gate's inputs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = 2 * len(WAVELENGTHS)
        self.of_row = nn.Linear(inputs, channels, bias=False)
        self.of_column = nn.Linear(inputs, channels, bias=False)
        for layer in (self.of_row, self.of_column):  # both together contribute as much as a label
            nn.init.normal_(layer.weight, std=0.5 / inputs ** 0.5)

    def forward(self, first: int, height: int, width: int) -> torch.Tensor:
        """V * s for `height` rows of pixels, from row `first` on: (height, width, channels)."""
        like = self.of_row.weight
        return (self.of_row(sinusoids(first, height, like))[:, None]
                + self.of_column(sinusoids(0, width, like)))
