"""PixelCNN's convolutions on channels-last images, and its feature maps' groups for R, G, B."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


def groups(width: int, channels: int) -> torch.Tensor:
    """The channel (0 R, 1 G, 2 B) of each of `width` feature maps: (width,), rising."""
    return torch.arange(width) * channels // width


def group_bounds(width: int, channels: int) -> list[int]:
    """Where each channel's group begins among `width` feature maps, then `width`."""
    return [0, *groups(width, channels).bincount().cumsum(0).tolist()]


class GroupedConv2d(nn.Conv2d):
    """A 1×1 convolution in which group c of the output reads the groups up to c of the input.

    The initial weights' `fan_in` counts all inputs, as torch's nn.Conv2d does.

    Args:
        in_groups, out_groups: the group of each input and output feature map.
        strict: read only the groups before c (mask A of the paper).
        bias: add a bias.
    """

    mask: torch.Tensor | None

    def __init__(self, in_groups: torch.Tensor, out_groups: torch.Tensor, strict: bool = False,
                 bias: bool = True) -> None:
        super().__init__(len(in_groups), len(out_groups), 1, bias=bias)
        before = torch.gt if strict else torch.ge
        mask = before(out_groups[:, None], in_groups[None, :])
        masked = not mask.all()
        self.register_buffer("mask", mask[:, :, None, None].float() if masked else None,
                             persistent=False)

    @property
    def kernel(self) -> torch.Tensor:
        """The weights (out, in, 1, 1), with zeros where an output must not read an input."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (…, in) -> (…, out)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.kernel.flatten(1).to(x.dtype), bias)


def convolve(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None = None,
             padding: int = 0) -> torch.Tensor:
    """Convolve channels-last images, in the precision of the images.

    Args:
        x: (B, H, W, in).
        kernel: (out, in, rows, columns).
        bias: (out,), or None.
        padding: columns of zeros on the left and on the right.

    Returns (B, H + 1 - rows, W + 1 - columns + 2 · padding, out).
    """
    kernel, bias = kernel.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=(0, padding)).permute(0, 2, 3, 1)


def add_padded(h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """h + y, where h (B, H, 1 + W, p) has a column of zeros at the left that y (B, H, W, p) lacks.

    h's gradient is arbitrary in that column: it always holds zeros, so nothing uses its gradient.
    """
    return _AddPadded.apply(h, y)


class _AddPadded(torch.autograd.Function):

    @staticmethod
    def forward(ctx, h, y):
        ctx.dtype = y.dtype
        total = torch.empty_like(h)
        total[:, :, 0] = 0
        torch.add(h[:, :, 1:], y, out=total[:, :, 1:])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return grad, grad[:, :, 1:].to(ctx.dtype)
