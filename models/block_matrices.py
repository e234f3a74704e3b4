"""A PixelCNN block's matrices, and their layout for `kernels.pixelcnn_blocks`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from models.kernels.layout import round_up
from models.kernels.pixelcnn_blocks import Weights
from models.kernels.vectors import TILE


class BlockMatrices(NamedTuple):
    """A block's kernels (out, in, rows, columns) and biases; see `kernels.pixelcnn_blocks.Weights`.

    vertical and its bias are None in the last block. The last input of `out` is a constant 1, whose
    weights are the bias. vertical_bias and into_bias are (2p,), or (H, W, 2p) in the first block of
    a network conditioned on the position.
    """

    vertical: torch.Tensor | None
    vertical_bias: torch.Tensor | None
    into: torch.Tensor
    into_bias: torch.Tensor
    horizontal: torch.Tensor
    out: torch.Tensor


def block_matrices(block: Any, height: int, width: int) -> BlockMatrices:
    """The matrices of a `pixelcnn.Block` for images of that size."""
    kernel, bias = block.vertical_to_horizontal.weight, block.vertical_to_horizontal.bias
    vertical_bias = block.vertical.bias
    if block.first or block.last:
        kernel, bias = block.fused_kernel()
    if block.position is not None:
        position = block.position(height=height, width=width, first=0)
        vertical_bias = vertical_bias + position
        bias = bias + F.linear(position, block.vertical_to_horizontal.weight.flatten(1))
    out = torch.cat((block.out.kernel, block.out.bias[:, None, None, None]), dim=1)
    return BlockMatrices(
        None if block.last else block.vertical.weight, None if block.last else vertical_bias,
        kernel, bias, block.horizontal_kernel, out)


class PackedMatrices:
    """The blocks' matrices, laid out for the kernels.

    blocks: the matrices of each block. backward: lay them out for the backward pass, too.

    weights: the kernels' argument. gradients: the floats of all kernels' gradients.
    """

    def __init__(self, blocks: Sequence[BlockMatrices], backward: bool) -> None:
        self._blocks, self._end = blocks, 0
        self._parts: list[torch.Tensor] = []
        self.gradients = 0
        places: dict[str, list[int]] = {}
        for block in blocks:
            for name in ("vertical", "into", "horizontal", "out"):
                kernel = getattr(block, name)
                # The constant 1 needs no gradient.
                inner = kernel[:, :-1] if name == "out" else kernel
                places.setdefault(name, []).append(self._add_kernel(kernel))
                places.setdefault(f"{name}_back", []).append(
                    self._add_kernel(_reverse(inner) if backward else None))
                places.setdefault(f"{name}_grad", []).append(self.gradients)
                if kernel is not None:
                    self.gradients += kernel[0].numel() * round_up(len(kernel))
            for name in ("vertical_bias", "into_bias"):
                places.setdefault(name, []).append(self._add_bias(getattr(block, name)))
        self._parts.append(torch.zeros(TILE))  # the last tile of a bias may reach beyond it
        self._places = places
        has_position = blocks[0].into_bias.ndim > 1
        self.weights = Weights(
            torch.cat(self._parts).numpy(), position_step=len(blocks[0].into) * has_position,
            **{name: np.array(starts) for name, starts in places.items()})

    def _add_kernel(self, kernel: torch.Tensor | None) -> int:
        """Add (out, in, rows, columns) as (tiles, rows · columns · in, TILE)."""
        if kernel is None:
            return 0
        outputs = len(kernel)
        rows = F.pad(kernel.permute(2, 3, 1, 0), (0, -outputs % TILE))
        return self._add(rows.reshape(-1, round_up(outputs) // TILE, TILE).transpose(0, 1))

    def _add_bias(self, bias: torch.Tensor | None) -> int:
        if bias is None:
            return 0
        return self._add(bias if bias.ndim > 1 else F.pad(bias, (0, -len(bias) % TILE)))

    def _add(self, tensor: torch.Tensor) -> int:
        begin, self._end = self._end, self._end + tensor.numel()
        self._parts.append(tensor.reshape(-1))
        return begin

    def unpack(self, total: torch.Tensor, sums: torch.Tensor,
               position: torch.Tensor | None) -> list[torch.Tensor | None]:
        """The gradients of the blocks' matrices, in their order.

        Args:
            total: (gradients,), of the kernels.
            sums: (2, blocks, 2p), of the biases of vertical and into.
            position: (2, H, W, 2p), the same for each pixel of the first block, or None.
        """
        result: list[torch.Tensor | None] = []
        for n, block in enumerate(self._blocks):
            for name in BlockMatrices._fields:
                value = getattr(block, name)
                if value is None:
                    result.append(None)
                elif name.endswith("bias"):
                    kind = ("vertical_bias", "into_bias").index(name)
                    result.append(sums[kind, n] if position is None or n else position[kind])
                else:
                    outputs, inputs, R, C = value.shape
                    wide, begin = round_up(outputs), self._places[f"{name}_grad"][n]
                    grad = total[begin:begin + R * C * inputs * wide].view(R, C, inputs, wide)
                    result.append(grad[..., :outputs].permute(3, 2, 0, 1))
        return result


def _reverse(kernel: torch.Tensor | None) -> torch.Tensor | None:
    """The kernel that carries gradients back: (in, round_up(out), rows, columns)."""
    if kernel is None:
        return None
    return F.pad(kernel.flip(2, 3).transpose(0, 1),
                 (0, 0, 0, 0, 0, -len(kernel) % TILE))
