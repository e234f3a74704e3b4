"""Convolutions of channels-last pictures as matrix products.

At each pixel a convolution is the product of a matrix with the vector of all numbers in the pixel's
window. Here the windows of a few pictures are copied side by side, into a buffer that stays in the
processor's cache, and one matrix product makes all their outputs: at the speed of matrix products,
in any precision. The windows, several times as large as the pictures, are not kept: the backward
pass copies them once more, since that takes little beside the products.
"""

from typing import NamedTuple

import torch

BUFFER = 1 << 20  # numbers in the buffer, or one picture's windows where these are more
GPU_BUFFER = 1 << 26  # there it is the calls that cost, not the memory behind the cache


class Window(NamedTuple):
    """The pixels a kernel sees: rows × columns of them, the first (top, left) from its own."""

    rows: int
    columns: int
    top: int
    left: int


def matrix(weight):
    """A convolution's weight (out, in, rows, columns) as a matrix (out, rows · columns · in)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def convolve(inputs, windows, weight, bias=None, dtype=None):
    """The sum of the convolutions of several inputs, outside of which are zeros.

    inputs: (B, H, W, C) each. windows: a Window for each. weight: (out, K), the `matrix` of each,
    side by side. bias: (out,) or None. dtype: of the products and of what is returned; that of the
    weight by default -> (B, H, W, out).
    """
    return _Convolution.apply(weight, bias, windows, dtype or weight.dtype, *inputs)


def add_product(y, x, weight):
    """y + W x, in the place of y: (B, H, W, out). x: (B, H, W, in), weight: (out, in)."""
    return _AddProduct.apply(y, x, weight)


class _AddProduct(torch.autograd.Function):

    @staticmethod
    def forward(ctx, y, x, weight):
        ctx.save_for_backward(x, weight)
        ctx.mark_dirty(y)
        y.flatten(0, 2).addmm_(x.flatten(0, 2), weight.t().to(y.dtype))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        flat = grad.flatten(0, 2)
        grad_x = (flat @ weight.to(grad.dtype)).view_as(x)
        return grad, grad_x, (flat.t() @ x.flatten(0, 2)).to(weight.dtype)


class _Convolution(torch.autograd.Function):

    @staticmethod
    def forward(ctx, weight, bias, windows, dtype, *inputs):
        ctx.windows, ctx.dtype = windows, dtype
        ctx.save_for_backward(weight, *inputs)
        transposed = weight.t().to(dtype)
        y = inputs[0].new_empty(*inputs[0].shape[:3], len(weight), dtype=dtype)
        for part, neighbours, _ in _gathered(inputs, windows, dtype):
            out = y[part].flatten(0, 2)
            if bias is None:
                torch.mm(neighbours, transposed, out=out)
            else:
                torch.addmm(bias.to(dtype), neighbours, transposed, out=out)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        weight, *inputs = ctx.saved_tensors
        rounded, grad = weight.to(ctx.dtype), grad.contiguous()
        grad_weight = torch.zeros_like(weight)
        grad_bias = weight.new_zeros(len(weight)) if ctx.needs_input_grad[1] else None
        grads = [torch.empty_like(x) if needed else None
                 for x, needed in zip(inputs, ctx.needs_input_grad[4:], strict=True)]
        for part, neighbours, each in _gathered(inputs, ctx.windows, ctx.dtype):
            of_outputs = grad[part].flatten(0, 2)
            if grad_bias is not None:
                grad_bias += of_outputs.sum(0)
            if weight.dtype == ctx.dtype:
                grad_weight.addmm_(of_outputs.t(), neighbours)
            else:
                grad_weight += of_outputs.t() @ neighbours
            if any(x is not None for x in grads):
                torch.mm(of_outputs, rounded, out=neighbours)
            for x, window, of_windows in zip(grads, ctx.windows, each, strict=True):
                if x is not None:
                    _add_back(of_windows, x[part], window)
        return grad_weight, grad_bias, None, None, *grads


def _gathered(inputs, windows, dtype):
    """Slices of the batch, the matrix (pixels, K) of all windows in each, and its views by input.

    A view is (pictures, H, W, rows, columns, C). They lie in one buffer, which may be overwritten.
    """
    batch, height, width, _ = inputs[0].shape
    sizes = [w.rows * w.columns * x.shape[-1] for x, w in zip(inputs, windows, strict=True)]
    limit = BUFFER if inputs[0].device.type == "cpu" else GPU_BUFFER
    count = max(1, min(limit // (sum(sizes) * height * width), batch))
    buffer = inputs[0].new_empty(count, height, width, sum(sizes), dtype=dtype)
    each = [part.unflatten(3, (w.rows, w.columns, -1))
            for part, w in zip(buffer.split(sizes, 3), windows, strict=True)]
    padded = [x.new_zeros(count, height + w.rows - 1, width + w.columns - 1, x.shape[-1],
                          dtype=dtype) for x, w in zip(inputs, windows, strict=True)]
    for first in range(0, batch, count):
        part = slice(first, min(first + count, batch))
        n = part.stop - first
        for x, w, frame, view in zip(inputs, windows, padded, each, strict=True):
            rows, columns = _seen(w.top, w.rows, height), _seen(w.left, w.columns, width)
            frame[:n, rows.start - w.top:rows.stop - w.top,
                  columns.start - w.left:columns.stop - w.left] = x[part, rows, columns]
            image, row, column, one = frame.stride()
            view[:n].copy_(frame.as_strided(view[:n].shape, (image, row, column, row, column, one)))
        yield part, buffer[:n].flatten(0, 2), [view[:n] for view in each]


def _seen(first, size, length):
    """The indices of `length` that windows of `size`, from `first` of each index, see: a slice."""
    begin = max(first, 0)
    return slice(begin, max(begin, min(length, length + first + size - 1)))


def _add_back(of_windows, x, window):
    """The gradient x (n, H, W, C) of an input, from that of its windows."""
    height, width = x.shape[1:3]
    rows, columns = range(window.rows), range(window.columns)
    if -window.top in rows and -window.left in columns:
        x.copy_(of_windows[:, :, :, -window.top, -window.left])
    else:
        x.zero_()
    for r in rows:
        for c in columns:
            down, right = window.top + r, window.left + c
            if down == right == 0 or abs(down) >= height or abs(right) >= width:
                continue
            x[:, max(down, 0):height + min(down, 0), max(right, 0):width + min(right, 0)] += (
                of_windows[:, max(-down, 0):height - max(down, 0),
                           max(-right, 0):width - max(right, 0), r, c])
