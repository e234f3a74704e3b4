"""PixelCNN's blocks in compiled loops: for training and evaluation in single precision on a CPU.

`compute_blocks` equals the plain loop over `pixelcnn.Block`, which stays for other devices and
precisions, and for batches that threads cannot share. `kernels.pixelcnn_blocks` says how it
computes.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from models.block_matrices import BlockMatrices, PackedMatrices, block_matrices
from models.dropout import dropout_mask
from models.kernels import pixelcnn_blocks as kernels
from models.kernels.layout import flat, round_up
from models.kernels.pixelcnn_blocks import Sizes
from models.kernels.threads import run_threads
from models.kernels.vectors import TILE


def compute_blocks(blocks: Sequence[Any], image: torch.Tensor, label: torch.Tensor | None,
                   dropout: float) -> torch.Tensor:
    """The horizontal stack's features after the last block.

    Args:
        blocks: all `pixelcnn.Block`s of a network.
        image: (B, H, W, C · code_features), encoded.
        label: (B,) or vectors (B, width), or None.
        dropout: the probability of zeroing a gated feature of the horizontal stack.

    Returns (B, H, W, p).
    """
    _prepare()
    size, p = image.shape[:3], blocks[0].out.out_channels
    like = image.new_empty(*size, p)
    masks = torch.stack([dropout_mask(like, dropout) for _ in blocks]) if dropout else None
    matrices = [block_matrices(block, *size[1:]) for block in blocks]
    tensors = [tensor for block in matrices for tensor in block]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad
                                           for t in (image, *tensors))
    return _Blocks.apply(image, keep, _conditions(blocks, label), masks, *tensors)


def _conditions(blocks: Sequence[Any], label: torch.Tensor | None) -> torch.Tensor | None:
    """What is added to the inputs of each block's vertical and horizontal gate, or None.

    Returns (blocks, 2, B, 2p). The last block has no vertical gate; its half is arbitrary.
    """
    if blocks[0].horizontal_gate.condition is None:
        return None
    gates = [gate for block in blocks
             for gate in (block.vertical_gate or block.horizontal_gate, block.horizontal_gate)]
    return torch.stack([gate.condition(label) for gate in gates]).unflatten(0, (-1, 2))


class _Blocks(torch.autograd.Function):

    @staticmethod
    def forward(ctx, image, keep, conditions, masks, *tensors):
        blocks = _group(tensors)
        B, H, W, _ = image.shape
        p = blocks[0].out.shape[0]
        sizes = _sizes(image, blocks, keep)
        packed = PackedMatrices(blocks, backward=keep)
        images = flat(image)
        added, step = np.zeros(len(blocks) * 2 * 2 * p, np.float32), 0
        if conditions is not None:
            added, step = flat(conditions), 2 * p
        dropped = np.empty(0, np.float32) if masks is None else flat(masks)
        outputs = image.new_empty(B, H, W, p)
        out = flat(outputs)
        store = torch.empty(B * sizes.image if keep else 0)
        kept = flat(store)

        def work(_, first, end):
            own = kept if keep else np.empty(_store_size(sizes), np.float32)
            kernels.forward(first, end, sizes, own, images, packed.weights, added, step, dropped,
                            out)

        _in_threads(B, work)
        if keep:
            ctx.save_for_backward(store, conditions, masks, *tensors)
            ctx.sizes, ctx.packed, ctx.arguments = sizes, packed, (added, step, dropped)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs):
        store, conditions, masks, *tensors = ctx.saved_tensors
        sizes, packed, blocks = ctx.sizes, ctx.packed, _group(tensors)
        B, H, W, p = grad_outputs.shape
        threads, wide = _threads(B), round_up(2 * p)
        kept, grad_out = flat(store), flat(grad_outputs)
        grads = np.zeros((threads, packed.gradients), np.float32)
        sums = np.zeros((2, len(blocks), B, wide), np.float32)
        needed = packed.weights.position_step or ctx.needs_input_grad[0]
        first = np.zeros(2 * B * H * W * 2 * p if needed else 0, np.float32)
        flat_sums = sums.reshape(-1)
        _in_threads(B, lambda thread, begin, end: kernels.backward(
            begin, end, sizes, kept, packed.weights, *ctx.arguments, grad_out, grads[thread],
            flat_sums, first))
        total, per_image = torch.from_numpy(grads.sum(0)), torch.from_numpy(sums)[..., :2 * p]
        grad_conditions = None if conditions is None else _condition_gradients(per_image, blocks)
        position = grad_image = None
        if needed:
            grad_above, grad_x = torch.from_numpy(first).view(2, B, H, W, 2 * p)
            if packed.weights.position_step:
                position = torch.stack((grad_above.sum(0), grad_x.sum(0)))
            if ctx.needs_input_grad[0]:
                grad_image = _image_gradient(grad_above, grad_x, blocks[0])
        result = packed.unpack(total, per_image.sum(2), position)
        return grad_image, None, grad_conditions, None, *result


def _image_gradient(grad_above: torch.Tensor, grad_x: torch.Tensor,
                    block: BlockMatrices) -> torch.Tensor:
    """The gradient of the image (B, H, W, C), through the first block's convolutions.

    grad_above, grad_x: of what the vertical kernel, and the others, add up to, (B, H, W, 2p). In
    torch, because it is a small part of the work.
    """
    B, H, W, _ = grad_x.shape
    channels, (rows, columns) = block.into.shape[1], block.into.shape[2:]
    radius, wide = columns // 2, block.horizontal.shape[3]
    # With the zeros around it: `rows` above, `radius` columns at each side.
    padded = grad_x.new_zeros(B, channels, rows + H, radius + W + radius)
    for kernel, grad in ((block.vertical, grad_above), (block.into, grad_x)):
        if kernel is not None:
            size = B, channels, rows + H - 1, radius + W + radius
            padded[:, :, :-1] += conv2d_input(size, kernel, grad.permute(0, 3, 1, 2))
    size = B, channels, H, W + wide - 1
    padded[:, :, rows:, :W + wide - 1] += conv2d_input(size, block.horizontal,
                                                       grad_x.permute(0, 3, 1, 2))
    return padded[:, :, rows:, radius:radius + W].permute(0, 2, 3, 1)


def _group(tensors: Sequence[Any]) -> list[BlockMatrices]:
    size = len(BlockMatrices._fields)
    return [BlockMatrices(*tensors[i:i + size]) for i in range(0, len(tensors), size)]


def _sizes(image: torch.Tensor, blocks: Sequence[BlockMatrices], keep: bool) -> Sizes:
    _, H, W, channels = image.shape
    p = blocks[0].out.shape[0]
    block = ((1 + H) * (W + 2) * p + H * (W + 2) * p + H * (W + 2) * 2 * p + H * W * 2 * p)
    sizes = Sizes(H, W, channels, p, len(blocks), blocks[0].horizontal.shape[3],
                  len(blocks) if keep else 2, block, 0)
    return sizes._replace(image=_store_size(sizes) if keep else 0)


def _store_size(sizes: Sizes) -> int:
    """The floats that are kept of an image."""
    codes = kernels.codes_size(sizes.height, sizes.width, sizes.channels)
    return codes + sizes.slots * sizes.block + TILE


def _condition_gradients(sums: torch.Tensor, blocks: Sequence[BlockMatrices]) -> torch.Tensor:
    """The gradients of the conditions, (blocks, 2, B, 2p).

    sums: of the gradients of `above`, `x` and h. A vertical gate's own gradient is that of `above`
    without what reached `above` through a 1×1 kernel.
    """
    vertical = sums[0].clone()
    for n, block in enumerate(blocks[1:-1], start=1):
        vertical[n] -= sums[1, n] @ block.into.flatten(1)
    return torch.stack((vertical, sums[1]), dim=1)


def _threads(count: int) -> int:
    return max(min(torch.get_num_threads(), count), 1)


def _in_threads(count: int, work: Callable[[int, int, int], object]) -> None:
    """Call work(thread, first, end) for shards of range(count), one for each of torch's threads."""
    threads = _threads(count)
    bounds = [count * i // threads for i in range(threads + 1)]
    run_threads(lambda thread, _: work(thread, bounds[thread], bounds[thread + 1]), threads)


@cache
def _prepare() -> None:
    """Compile or load the kernels, by calling them for no images."""
    nothing, starts = np.zeros(0, np.float32), np.zeros(1, np.int64)
    sizes = Sizes(1, 1, 1, 1, 1, 1, 1, 1, 1)
    places = {name: starts for name in kernels.Weights._fields
              if name not in ("data", "position_step")}
    weights = kernels.Weights(nothing, position_step=0, **places)

    def call() -> None:
        kernels.forward(0, 0, sizes, nothing, nothing, weights, nothing, 0, nothing, nothing)
        kernels.backward(0, 0, sizes, nothing, weights, nothing, 0, nothing, nothing, nothing,
                         nothing, nothing)

    kernels.cache.prepare("PixelCNN's blocks", call)
