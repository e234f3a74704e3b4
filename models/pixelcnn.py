"""Gated PixelCNN: p(image) as a product over its sub-pixels, each given all before it [1].

    p(x | h) = ∏_i p(x_i | x_1, …, x_{i-1}, h)                                      eq. 1 and 3

row by row, pixel by pixel, and within a pixel R, then G, then B. Two stacks of convolutions see
the past of a pixel without the blind spot of masked convolutions (section 2.2, figure 2):

- the *vertical stack* sees all rows above. Its feature at row i knows the rows before i, none of
  row i itself, in a cone that widens with each block;
- the *horizontal stack* sees the pixels to the left in the same row, and at each block is given
  the vertical stack through a 1×1 convolution.

What is done otherwise than in the paper and in the original study:

- A masked kernel is mostly zeros. Here each stack runs the smaller kernel of the weights that are
  left, on a shifted input: pixels that are masked are never computed with. (The order of R, G, B
  within a pixel is a mask on the one column of the kernel that it concerns.)
- The shift that hides row i from the vertical stack (mask A) is made once, in the first block. The
  original study made it in every block, and so lost sight of the row above but for 3 pixels.
- The feature maps of the horizontal stack are in groups, one for each channel of the image, of
  sizes as equal as the width allows. Group G of a pixel reads groups R and G of that pixel, never
  B; in the first block, where the groups are the sub-pixels themselves, R alone. In the original
  study G never saw R.
- The first block has no residual connection, since its input is the image. The vertical stack has
  none anywhere, as in the paper. The last block's vertical stack only feeds its horizontal one.
- The vertical stack's weights begin so large that the picture reaches its last block: a gate
  tanh(a) σ(b) passes on half of a small a, and without residual connections what is lost in one
  block is lost to all after it.
- With `position` the first block is conditioned on where in the picture a pixel is.

[1] van den Oord et al., Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import nn
from torch.autograd.function import once_differentiable

from models.dropout import dropout_mask
from models.gated import GatedActivation
from models.position import Position

FIRST_KERNEL, KERNEL = 7, 3
MOST_BLOCKS = 4096
VERTICAL_GAIN = 2  # of the initial weights: undoes the gate's slope of 1/2 at 0


@dataclass(frozen=True)
class PixelCNNConfig:
    """What a PixelCNN is made of.

    levels: values that a sub-pixel can take. channels: sub-pixels in a pixel, 1 or 3.
    hidden_dim: p, width of both stacks. out_hidden_dim: width of the hidden layer before the
    logits. blocks_num: blocks in all, the first 7×7 one included. labels: classes to condition
    on, 0 for none. vector: in their place, the width of the vectors to condition on, 0 for none.
    position: see above; without it this is the paper's network.
    The bounds are for what is read from a file. Raises ValueError for what can't be built.
    """

    levels: Annotated[int, Meta(ge=2, le=65_536)] = 2
    channels: Annotated[int, Meta(ge=1, le=3)] = 1
    hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 128
    out_hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 16
    blocks_num: Annotated[int, Meta(ge=1, le=MOST_BLOCKS)] = 15
    labels: Annotated[int, Meta(ge=0, le=2 ** 24)] = 0
    vector: Annotated[int, Meta(ge=0, le=2 ** 24)] = 0
    position: bool = False

    def __post_init__(self):
        for name, least in (("levels", 2), ("channels", 1), ("blocks_num", 1), ("labels", 0),
                            ("vector", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)}: the least is {least}")
        if self.blocks_num > MOST_BLOCKS:
            raise ValueError(f"blocks_num {self.blocks_num}: the most is {MOST_BLOCKS}")
        for name in ("hidden_dim", "out_hidden_dim"):
            if getattr(self, name) < self.channels:
                raise ValueError(f"{name} {getattr(self, name)}: a picture of {self.channels} "
                                 f"channels needs at least {self.channels}, a feature map for each")
        if self.labels and self.vector:
            raise ValueError(f"{self.labels} labels and vectors of {self.vector} numbers: the "
                             f"network is conditioned on one or the other")


def groups(width, channels):
    """The channel (0 R, 1 G, 2 B) that each of `width` feature maps belongs to: (width,)."""
    return torch.arange(width) * channels // width


def group_bounds(width, channels):
    """Where each channel's group begins among `width` feature maps, and the last ends: a list."""
    return [0, *groups(width, channels).bincount().cumsum(0).tolist()]


class GroupedConv2d(nn.Conv2d):
    """A 1×1 convolution in which group c of the output reads only the groups up to c of the input.

    With `strict` (mask A of the paper) it reads only the groups before c. `fan_in` of the initial
    weights counts all inputs, as torch does for nn.Conv2d.
    """

    def __init__(self, in_groups, out_groups, strict=False, bias=True):
        super().__init__(len(in_groups), len(out_groups), 1, bias=bias)
        before = torch.gt if strict else torch.ge
        mask = before(out_groups[:, None], in_groups[None, :])
        masked = not mask.all()
        self.register_buffer("mask", mask[:, :, None, None].float() if masked else None,
                             persistent=False)

    @property
    def kernel(self):
        """The weights (out, in, 1, 1) with zeros where an output must not look."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x):
        """x: (…, in) -> (…, out)."""
        return F.linear(x, self.kernel.flatten(1).to(x.dtype), self.bias.to(x.dtype))


def convolve(x, kernel, bias=None, columns=0):
    """A convolution of channels-last pictures, in the precision of the pictures.

    x: (B, H, W, in), zeros outside of it by `columns` on either side. kernel: (out, in, rows,
    columns), bias: (out,) -> (B, H + 1 - rows, …, out).
    """
    kernel, bias = kernel.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=(0, columns)).permute(0, 2, 3, 1)


class _AddFramed(torch.autograd.Function):
    """h + y for h (B, H, 1 + W, p) with a column of zeros at the left, which y (B, H, W, p) lacks.

    That column being zeros for ever, nobody asks for its gradient, and it may be anything.
    """

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


class Block(nn.Module):
    """One layer of both stacks: figure 2 of the paper.

    The features that a kernel will see outside of the picture, zeros, are made with the others: the
    vertical stack's have `reach` rows above the picture, the horizontal one's columns at its left.
    So every convolution is of what is there, whole, and nothing is padded, shifted or cut.

    Args:
        config: of the whole network.
        first: takes the image, with mask A and no residual connection, instead of features.
        last: has no vertical output, for there is no block to take it.
    """

    def __init__(self, config, first=False, last=False):
        super().__init__()
        p, self.first, self.last = config.hidden_dim, first, last
        size = FIRST_KERNEL if first else KERNEL
        self.reach = size // 2
        features = groups(p, config.channels)
        inputs = groups(config.channels, config.channels) if first else features
        both_halves = torch.cat((features, features))
        # Mask A: the rows above, without the pixel's own row; mask B: that row too, since a
        # vertical feature knows nothing of its own row.
        self.rows = self.reach if first else self.reach + 1
        self.vertical = nn.Conv2d(len(inputs), 2 * p, (self.rows, size))
        if not first:
            nn.init.normal_(self.vertical.weight, std=VERTICAL_GAIN / (p * self.rows * size) ** 0.5)
        # Added to W * v, it comes to both stacks' gates, for W * v is handed to the horizontal one.
        self.position = Position(2 * p) if first and config.position else None
        self.vertical_to_horizontal = nn.Conv2d(2 * p, 2 * p, 1)
        self.left = nn.Conv2d(len(inputs), 2 * p, (1, self.reach), bias=False)
        sees_itself = not first or config.channels > 1
        self.here = (GroupedConv2d(inputs, both_halves, strict=first, bias=False)
                     if sees_itself else None)
        self.vertical_gate = None if last else GatedActivation(p, config.labels, config.vector)
        self.horizontal_gate = GatedActivation(p, config.labels, config.vector)
        self.out = GroupedConv2d(features, features)

    def forward(self, v, h, label=None, dropout=0.0):
        """One block's step from v (B, 1 + H, W, p) and h (B, H, 1 + W, p) to the next ones.

        Their first row or column is zeros. In the first block both are the image, as
        `framed_image` makes them. The last block's v is None. dropout: of the horizontal stack's
        gated features.
        """
        above = None if self.last else self.vertical_features(v)
        into = self.vertical_to_horizontal
        if self.first or self.last:
            # W_1×1 (W * v) = (W_1×1 W) * v: the latter is less work where v is the image, or where
            # nothing else needs W * v.
            kernel = (into.weight.flatten(1) @ self.vertical.weight.flatten(1)).view_as(
                self.vertical.weight)
            bias = into.bias + into.weight.flatten(1) @ self.vertical.bias
            from_above = convolve(v, kernel, bias, self.reach)
            if self.position is not None:
                where = self.position(0, *from_above.shape[1:3])
                from_above = from_above + F.linear(where, into.weight.flatten(1)).to(v.dtype)
        else:
            from_above = convolve(above, into.weight, into.bias)
        from_left = convolve(h.to(from_above.dtype), self.horizontal_kernel)
        y = self.horizontal_gate(from_above, from_left, label=label)
        y = self.out(y * dropout_mask(y, dropout) if dropout else y)
        if self.first:
            h = F.pad(y.to(self.out.weight.dtype), (0, 0, 1, 0))
        else:
            h = _AddFramed.apply(h, y)
        v = None if self.last else self.vertical_gate(above, label=label, rows_above=1)
        return v, h

    def framed_image(self, image):
        """The first block's v and h of an image (B, H, W, C)."""
        hidden = self.horizontal_kernel.shape[3] - self.reach - 1  # -1 where mask A hides all of it
        return (F.pad(image, (0, 0, 0, 0, self.reach, -1)),
                F.pad(image, (0, 0, self.reach, hidden)))

    def vertical_features(self, v, row=0):
        """W * v of the vertical stack from row `row` on, and what the position adds to it.

        v: (B, rows - 1 + H, W, in) -> (B, H, W, 2p).
        """
        above = convolve(v, self.vertical.weight, self.vertical.bias, self.reach)
        if self.position is None:
            return above
        return above + self.position(row, *above.shape[1:3]).to(above.dtype)

    @property
    def horizontal_kernel(self):
        """The kernel (2p, in, 1, columns) that sees the pixels to the left and the pixel itself."""
        kernel = self.left.weight
        return kernel if self.here is None else torch.cat((kernel, self.here.kernel), dim=3)


class PixelCNN(nn.Module):
    """Logits of every sub-pixel given all before it, and a label or a vector if it is to have one.

    Attributes that may be set:
        dropout: the probability that a gated feature of the horizontal stack is left out in
            training; at first 0.
        compute_dtype: what the blocks' convolutions are computed in, such as torch.bfloat16; None,
            as at first, for the weights' own. The residual connections are in the weights' own.
        vector_scale: of a network conditioned on vectors, what these are multiplied by first, in
            its state; at first 1. Vectors of any other size than 1 are badly learned from.
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.dropout, self.compute_dtype = config, 0.0, None
        n = config.blocks_num
        self.blocks = nn.ModuleList(
            Block(config, first=i == 0, last=i == n - 1) for i in range(n))
        features = groups(config.hidden_dim, config.channels)
        hidden = groups(config.out_hidden_dim, config.channels)
        logits = groups(config.channels * config.levels, config.channels)
        self.hidden = GroupedConv2d(features, hidden)
        self.logits = GroupedConv2d(hidden, logits)
        if config.vector:
            self.register_buffer("vector_scale", torch.ones(()))

    def forward(self, codes, label=None):
        """codes: (B, C, H, W), integers in [0, levels); label: (B,), vectors (B, width), or None.

        Returns logits: (B, levels, C, H, W).
        """
        image = self.scale(codes).permute(0, 2, 3, 1)
        image = image.to(self.compute_dtype or image.dtype)
        v, h = self.blocks[0].framed_image(image)
        label = self.scale_vectors(label)
        for block in self.blocks:
            v, h = block(v, h, label, self.dropout if self.training else 0)
        logits = self.logits(F.relu(self.hidden(F.relu(h[:, :, 1:]))))
        return logits.unflatten(3, (-1, self.config.levels)).permute(0, 4, 3, 1, 2)

    def scale_vectors(self, label):
        """What the gates take for vectors (B, width); labels as they are."""
        if not self.config.vector:
            return label
        return label.to(self.vector_scale.dtype) * self.vector_scale

    def scale(self, codes):
        """Codes in [0, levels) as numbers in [-1, 1], in the precision of the weights."""
        dtype = self.logits.weight.dtype
        return codes.to(dtype) * (2 / (self.config.levels - 1)) - 1
