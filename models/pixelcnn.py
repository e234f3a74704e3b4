"""Gated PixelCNN: p(image) as a product over its sub-pixels, each given all before it [1].

    p(x | h) = ∏_i p(x_i | x_1, …, x_{i-1}, h)                                      eq. 1 and 3

The order is row by row, pixel by pixel, and R, G, B within a pixel. Two stacks of convolutions see
a pixel's past without the blind spot of masked convolutions (section 2.2, figure 2):

- The *vertical stack* sees all rows above. Its feature at row i depends on the rows before i and
  not on row i itself, in a cone that widens with each block.
- The *horizontal stack* sees the pixels to the left in the same row, and reads the vertical stack
  through a 1×1 convolution in each block.

Differences from the paper and from the original study:

- A masked kernel is mostly zeros. Here each stack runs a smaller kernel of the unmasked weights on
  a shifted input, and never computes with masked pixels. Only the order of R, G, B within a pixel
  remains a mask, on one column of the kernel.
- The shift that hides row i from the vertical stack (mask A) happens once, in the first block. The
  original study shifted in every block, and so saw only 3 pixels of the row above.
- The horizontal stack's feature maps form one group per channel of the image, as equal in size as
  the width allows. Group G of a pixel reads groups R and G of that pixel, never B; in the first
  block, where the groups are the sub-pixels themselves, it reads R only. In the original study G
  never saw R.
- The first block has no residual connection, because its input is the image. The vertical stack has
  none anywhere, as in the paper. The last block's vertical stack feeds only its horizontal stack.
- The vertical stack's initial weights are large enough for the image to reach the last block. A
  gate tanh(a) σ(b) halves a small a, and without residual connections these losses multiply.
- With `position`, the first block is conditioned on the pixel's position.
- With `distribution` "logistics" an output is not a softmax: see `models.distributions`.

[1] van den Oord et al., Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import nn

from models import compiled
from models.convolutions import GroupedConv2d, add_padded, convolve, groups
from models.distributions import MOST_MIXTURES, Name, check_distribution, output_distribution
from models.dropout import dropout_mask
from models.gated import GatedActivation
from models.position import Position

FIRST_KERNEL, KERNEL = 7, 3
MOST_BLOCKS = 4096
VERTICAL_GAIN = 2  # factor of the initial weights: undoes the gate's slope of 1/2 at 0


@dataclass(frozen=True)
class PixelCNNConfig:
    """The architecture of a PixelCNN.

    levels: values that a sub-pixel can take. channels: sub-pixels per pixel, 1 or 3.
    hidden_dim: p, width of both stacks. out_hidden_dim: width of the hidden layer before the
    logits. blocks_num: number of blocks, including the first one of 7×7. labels: classes to
    condition on, 0 for none. vector: width of the vectors to condition on instead, 0 for none.
    position: condition on the pixel's position; the paper's network does not.
    embedding: numbers learned for each value of a sub-pixel, which the network reads beside the
    value itself; the paper's network reads only that.
    distribution, mixtures: of a code, see `models.distributions`; the paper's is a softmax.
    The annotated bounds apply to values read from a file. Raises ValueError, which begins with the
    parameter's name, for an impossible network.
    """

    levels: Annotated[int, Meta(ge=2, le=65_536)] = 2
    channels: Annotated[int, Meta(ge=1, le=3)] = 1
    hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 128
    out_hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 16
    blocks_num: Annotated[int, Meta(ge=1, le=MOST_BLOCKS)] = 15
    labels: Annotated[int, Meta(ge=0, le=2 ** 24)] = 0
    vector: Annotated[int, Meta(ge=0, le=2 ** 24)] = 0
    position: bool = False
    embedding: Annotated[int, Meta(ge=0, le=2 ** 16)] = 0
    distribution: Name = "softmax"
    mixtures: Annotated[int, Meta(ge=0, le=MOST_MIXTURES)] = 0

    @property
    def code_features(self) -> int:
        """The numbers that the network reads for a sub-pixel."""
        return 1 + self.embedding

    def __post_init__(self) -> None:
        for name, least in (("levels", 2), ("channels", 1), ("blocks_num", 1), ("labels", 0),
                            ("vector", 0), ("embedding", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)}: the least is {least}")
        check_distribution(self.distribution, self.mixtures)
        if self.blocks_num > MOST_BLOCKS:
            raise ValueError(f"blocks_num {self.blocks_num}: the most is {MOST_BLOCKS}")
        for name in ("hidden_dim", "out_hidden_dim"):
            if getattr(self, name) < self.channels:
                raise ValueError(f"{name} {getattr(self, name)}: a picture of {self.channels} "
                                 f"channels needs at least {self.channels}, a feature map for each")
        if self.labels and self.vector:
            raise ValueError(f"labels {self.labels} and vector {self.vector}: the network is "
                             f"conditioned on one or the other")


class Block(nn.Module):
    """One layer of both stacks: figure 2 of the paper.

    Features carry the zeros that the next kernel sees outside of the image: the vertical stack's
    have a row above, the horizontal stack's a column at the left. So every convolution runs on the
    stored buffer as is, without padding, shifting or cropping.

    Args:
        config: the network's configuration.
        first: this block reads the image, with mask A and no residual connection.
        last: this block has no vertical output, because no block follows.
    """

    def __init__(self, config: PixelCNNConfig, first: bool = False, last: bool = False) -> None:
        super().__init__()
        p, self.first, self.last = config.hidden_dim, first, last
        size = FIRST_KERNEL if first else KERNEL
        self.radius = size // 2  # of the kernel, in pixels
        features = groups(p, config.channels)
        inputs = (groups(config.channels, config.channels).repeat_interleave(config.code_features)
                  if first else features)
        both_halves = torch.cat((features, features))
        # Mask A: the rows above, without the pixel's own row. Mask B: that row too, because a
        # vertical feature does not depend on its own row.
        self.rows = self.radius if first else self.radius + 1
        self.vertical = nn.Conv2d(len(inputs), 2 * p, (self.rows, size))
        if not first:
            nn.init.normal_(self.vertical.weight, std=VERTICAL_GAIN / (p * self.rows * size) ** 0.5)
        # Added to W * v, it reaches both stacks' gates, because the horizontal stack reads W * v.
        self.position = Position(2 * p) if first and config.position else None
        self.vertical_to_horizontal = nn.Conv2d(2 * p, 2 * p, 1)
        self.left = nn.Conv2d(len(inputs), 2 * p, (1, self.radius), bias=False)
        sees_itself = not first or config.channels > 1
        self.here = (GroupedConv2d(inputs, both_halves, strict=first, bias=False)
                     if sees_itself else None)
        self.vertical_gate = None if last else GatedActivation(p, config.labels, config.vector)
        self.horizontal_gate = GatedActivation(p, config.labels, config.vector)
        self.out = GroupedConv2d(features, features)

    def forward(self, v: torch.Tensor, h: torch.Tensor, label: torch.Tensor | None = None,
                dropout: float = 0.0) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Compute the next block's inputs.

        Args:
            v: (B, 1 + H, W, p), whose first row is zeros; in the first block from `pad_image`.
            h: (B, H, 1 + W, p), whose first column is zeros; in the first block from `pad_image`.
            label: (B,) or vectors (B, width), or None.
            dropout: the probability of zeroing a gated feature of the horizontal stack.

        Returns v, which is None in the last block, and h.
        """
        above = None if self.last else self.vertical_features(v)
        if above is None or self.first:
            from_above = self._fused_vertical_to_horizontal(v)
        else:
            into = self.vertical_to_horizontal
            from_above = convolve(above, into.weight, into.bias)
        from_left = convolve(h.to(from_above.dtype), self.horizontal_kernel)
        y = self.horizontal_gate(from_above, from_left, label=label)
        y = self.out(y * dropout_mask(y, dropout) if dropout else y)
        h = F.pad(y.to(self.out.weight.dtype), (0, 0, 1, 0)) if self.first else add_padded(h, y)
        if self.vertical_gate is None:
            return None, h
        return self.vertical_gate(above, label=label, pad_top=1), h

    def _fused_vertical_to_horizontal(self, v: torch.Tensor) -> torch.Tensor:
        """W_1×1 (W * v) as (W_1×1 W) * v: (B, H, W, 2p).

        This is less work where v is the image, or where nothing else needs W * v.
        """
        kernel, bias = self.fused_kernel()
        from_above = convolve(v, kernel, bias, self.radius)
        if self.position is not None:
            position = self.position(0, *from_above.shape[1:3])
            from_above = from_above + F.linear(
                position, self.vertical_to_horizontal.weight.flatten(1)).to(v.dtype)
        return from_above

    def fused_kernel(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The kernel W_1×1 W and its bias."""
        into = self.vertical_to_horizontal
        assert into.bias is not None and self.vertical.bias is not None
        kernel = (into.weight.flatten(1) @ self.vertical.weight.flatten(1)).view_as(
            self.vertical.weight)
        return kernel, into.bias + into.weight.flatten(1) @ self.vertical.bias

    def pad_image(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first block's v and h for an encoded image (B, H, W, C · code_features)."""
        # -1 crops the last column, which mask A hides from all pixels of a one-channel image.
        right = self.horizontal_kernel.shape[3] - self.radius - 1
        return (F.pad(image, (0, 0, 0, 0, self.radius, -1)),
                F.pad(image, (0, 0, self.radius, right)))

    def vertical_features(self, v: torch.Tensor, row: int = 0) -> torch.Tensor:
        """W * v of the vertical stack, plus the position's contribution.

        v: (B, rows - 1 + H, W, in), for output rows from `row` on -> (B, H, W, 2p).
        """
        above = convolve(v, self.vertical.weight, self.vertical.bias, self.radius)
        if self.position is None:
            return above
        return above + self.position(row, *above.shape[1:3]).to(above.dtype)

    @property
    def horizontal_kernel(self) -> torch.Tensor:
        """The kernel (2p, in, 1, columns) on the pixels to the left and on the pixel itself."""
        kernel = self.left.weight
        return kernel if self.here is None else torch.cat((kernel, self.here.kernel), dim=3)


class PixelCNN(nn.Module):
    """The distribution of every sub-pixel given all before it, and a label or vector if configured.

    Attributes that may be set:
        dropout: the probability of zeroing a gated feature of the horizontal stack in training;
            initially 0.
        compute_dtype: the precision of the blocks' convolutions, such as torch.bfloat16; initially
            None, for that of the weights. Residual connections use the weights' precision.
        vector_scale: in a network conditioned on vectors, a factor that brings them to unit size,
            because the network learns poorly from vectors of another size. It is part of the
            state; initially 1.
    """

    vector_scale: torch.Tensor

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, 0.0
        self.compute_dtype: torch.dtype | None = None
        n = config.blocks_num
        self.blocks: Any = nn.ModuleList(  # of Block, which torch's types can't say
            Block(config, first=i == 0, last=i == n - 1) for i in range(n))
        features = groups(config.hidden_dim, config.channels)
        hidden = groups(config.out_hidden_dim, config.channels)
        self.distribution = output_distribution(config.distribution, config.levels, config.mixtures)
        logits = groups(config.channels * self.distribution.parameters, config.channels)
        self.hidden = GroupedConv2d(features, hidden)
        self.logits = GroupedConv2d(hidden, logits)
        assert self.logits.bias is not None
        self.distribution.initialize(self.logits.weight, self.logits.bias)
        self.embed_code = (nn.Embedding(config.levels, config.embedding) if config.embedding
                           else None)
        if config.vector:
            self.register_buffer("vector_scale", torch.ones(()))

    def forward(self, codes: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the parameters of the distributions, such as logits, for a batch of images.

        Args:
            codes: (B, C, H, W), integers in [0, levels).
            label: (B,), or vectors (B, width), or None.

        Returns (B, parameters, C, H, W): of a softmax, the logits of all levels.
        """
        image = self.encode(codes)
        image = image.to(self.compute_dtype or image.dtype)
        condition, dropout = self.scale_vectors(label), self.dropout if self.training else 0
        if compiled.suits_blocks(self.blocks, image):
            from models.compiled_blocks import compute_blocks  # which imports numba
            h = compute_blocks(self.blocks, image, condition, dropout)
        else:
            v, h = self.blocks[0].pad_image(image)
            for block in self.blocks:
                v, h = block(v, h, condition, dropout)
            h = h[:, :, 1:]
        logits = self.logits(F.relu(self.hidden(F.relu(h))))
        return logits.unflatten(3, (-1, self.distribution.parameters)).permute(0, 4, 3, 1, 2)

    def scale_vectors(self, label: torch.Tensor | None) -> torch.Tensor | None:
        """The condition that the gates take: scaled vectors (B, width), or labels unchanged."""
        if not self.config.vector:
            return label
        if label is None:
            raise TypeError("the network is conditioned on vectors; pass them as the label")
        return label.to(self.vector_scale.dtype) * self.vector_scale

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """What the first block reads of images (B, C, H, W): (B, H, W, C · code_features)."""
        return self.read_code(codes).permute(0, 2, 3, 1, 4).flatten(3)

    def read_code(self, codes: torch.Tensor) -> torch.Tensor:
        """The numbers for each of the codes (…): the value and its embedding, (…, code_features).

        One number in [-1, 1] hardly tells 253 from 254. With an embedding the network can, and in
        digits, whose strokes have one value each, that saves a sixth of the bits.
        """
        value = self.scale(codes)[..., None]
        if self.embed_code is None:
            return value
        return torch.cat((value, self.embed_code(codes.long())), dim=-1)

    def scale(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes in [0, levels) mapped to [-1, 1], in the precision of the weights."""
        dtype = self.logits.weight.dtype
        return codes.to(dtype) * (2 / (self.config.levels - 1)) - 1
