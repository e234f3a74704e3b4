"""All blocks of a PixelCNN in one compiled pass per image, and the pass back.

An image takes one pass through all blocks, and a row one pass through a block: what the next step
reads was written just before and lies in a core's cache. Threads compute images of their own.

`store` keeps what the backward pass needs, for each image `Sizes.image` floats: the image's codes,
then for each block

    v      (1 + H, W + 2, p)   the vertical stack's input: a row of zeros above, columns left, right
    h      (H, W + 2, p)       the horizontal stack's input: a column of zeros left and right
    above  (H, W + 2, 2p)      W * v, two columns of zeros at the right
    x      (H, W, 2p)          the inputs of the horizontal gate

The first block's v and h are the codes, (3 + H, W + 6, C), with zeros above and at the sides.
"""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import KernelCache, inlined
from models.kernels.convolutions import PANEL, add_kernel_gradient, add_pixels, convolve_row
from models.kernels.gates import gate_row, gate_row_gradient
from models.kernels.layout import round_up

RADIUS = 3  # of the first block's kernel

cache = KernelCache(__file__)


class Sizes(NamedTuple):
    """The sizes of images, network and store.

    left: columns of the first block's horizontal kernel. slots: how many blocks `store` has room
    for: all, or 2 if nothing is kept. block, image: floats in `store`, of a block's slot and from
    an image's to the next one's.
    """

    height: int
    width: int
    channels: int
    p: int
    blocks: int
    left: int
    slots: int
    block: int
    image: int


class Weights(NamedTuple):
    """Where each block's matrices begin in `data`.

    Forward, each (tiles, inputs, TILE): vertical, into (what adds to the horizontal gate's inputs:
    a 1×1 kernel on `above`, but in the first and the last block a kernel like the vertical one, on
    v), horizontal, out, whose last input is a constant 1 for the bias. Biases: of vertical, into.
    Backward: the same matrices transposed, their rows and columns reversed.
    Gradients, each (inputs, round_up(outputs)): where they begin in an array of their own.
    position_step: 2p if the first block's biases of vertical and into are for each pixel, else 0.
    """

    data: np.ndarray
    vertical: np.ndarray
    into: np.ndarray
    horizontal: np.ndarray
    out: np.ndarray
    vertical_bias: np.ndarray
    into_bias: np.ndarray
    vertical_back: np.ndarray
    into_back: np.ndarray
    horizontal_back: np.ndarray
    out_back: np.ndarray
    vertical_grad: np.ndarray
    into_grad: np.ndarray
    horizontal_grad: np.ndarray
    out_grad: np.ndarray
    position_step: int


@inlined
def codes_size(height, width, channels):
    """The floats of an image's codes in the store."""
    return (RADIUS + height) * (width + 2 * RADIUS) * channels


@inlined
def _places(sizes, n):
    """Where block n's v, h, above and x begin in an image's store; the codes begin at 0."""
    H, W, p = sizes.height, sizes.width, sizes.p
    v = codes_size(H, W, sizes.channels) + n % sizes.slots * sizes.block
    h = v + (1 + H) * (W + 2) * p
    above = h + H * (W + 2) * p
    return v, h, above, above + H * (W + 2) * 2 * p


@inlined
def _inputs(sizes, n):
    """Block n's input: (v, h, pitch, features, kernel rows, kernel columns, horizontal columns)."""
    if n == 0:
        pitch, channels = sizes.width + 2 * RADIUS, sizes.channels
        return (0, RADIUS * pitch * channels, pitch, channels, RADIUS, 2 * RADIUS + 1, sizes.left)
    v, h, _, _ = _places(sizes, n)
    return v, h, sizes.width + 2, sizes.p, 2, 3, 2


@cache.kernel
def forward(first, end, sizes, store, images, weights, conditions, condition_step, masks, outputs):
    """Compute h after the last block for the images `first` to end - 1.

    store: an image's begins at image · sizes.image, which is 0 if nothing is kept.
    images: (B, H, W, C), encoded: C numbers of a pixel. conditions: of both gates of each block,
    (blocks, 2, B, 2p), or (blocks, 2, 1, 2p) with condition_step 0 instead of 2p. masks:
    (blocks, B, H, W, p) of dropout, or empty. outputs: (B, H, W, p).
    """
    H, W, channels, p = sizes.height, sizes.width, sizes.channels, sizes.p
    pitch, last, data = W + 2, sizes.blocks - 1, weights.data
    gates = len(conditions) // (2 * sizes.blocks)  # from one gate's conditions to the next's
    batch = len(outputs) // (H * W * p)
    spare = np.empty(W * round_up(2 * p), np.float32)
    y, zeros = np.ones(W * (p + 1), np.float32), np.zeros(round_up(p), np.float32)
    for image in range(first, end):
        base = image * sizes.image
        codes = codes_size(H, W, channels)
        store[base:base + codes] = 0
        for i in range(H):
            at = base + ((RADIUS + i) * (W + 2 * RADIUS) + RADIUS) * channels
            begin = (image * H + i) * W * channels
            store[at:at + W * channels] = images[begin:begin + W * channels]
        for n in range(sizes.blocks):
            v, h, in_pitch, features, R, C, left = _inputs(sizes, n)
            _, _, above, x = _places(sizes, n)
            v, h, above, x = base + v, base + h, base + above, base + x
            next_v, next_h, _, _ = _places(sizes, n + 1)
            next_v, next_h = base + next_v, base + next_h
            if n < last:
                store[next_v:next_v + (pitch + 1) * p] = 0
            condition = 2 * n * gates + image * condition_step
            step = weights.position_step if n == 0 else 0
            for i in range(H):
                row_v, row_h = v + i * in_pitch * features, h + i * in_pitch * features
                row_above, row_x = above + i * pitch * 2 * p, x + i * W * 2 * p
                if n < last:
                    convolve_row(store, row_v, in_pitch, features, R, C, data, weights.vertical[n],
                                 data, weights.vertical_bias[n] + i * W * step, step, store,
                                 row_above, 2 * p, W, 2 * p, spare)
                    store[row_above + W * 2 * p:row_above + pitch * 2 * p] = 0
                    o = next_v + ((1 + i) * pitch + 1) * p
                    gate_row(store, row_above, p, W, conditions, condition, store, o, p)
                    store[o + W * p:o + pitch * p] = 0
                if 0 < n < last:
                    convolve_row(store, row_above, pitch, 2 * p, 1, 1, data, weights.into[n], data,
                                 weights.into_bias[n], 0, store, row_x, 2 * p, W, 2 * p, spare)
                else:
                    convolve_row(store, row_v, in_pitch, features, R, C, data, weights.into[n],
                                 data, weights.into_bias[n] + i * W * step, step, store, row_x,
                                 2 * p, W, 2 * p, spare)
                convolve_row(store, row_h, in_pitch, features, 1, left, data, weights.horizontal[n],
                             store, row_x, 2 * p, store, row_x, 2 * p, W, 2 * p, spare)
                gate_row(store, row_x, p, W, conditions, condition + gates, y, 0, p + 1)
                if masks.size:
                    _mask_row(y, 0, p + 1, masks, ((n * batch + image) * H + i) * W * p, W, p)
                target, o = store, next_h + (i * pitch + 1) * p
                if n == last:
                    target, o = outputs, (image * H + i) * W * p
                else:
                    store[o - p:o] = 0
                    store[o + W * p:o + (W + 1) * p] = 0
                if n == 0:
                    convolve_row(y, 0, W, p + 1, 1, 1, data, weights.out[n], zeros, 0, 0, target, o,
                                 p, W, p, spare)
                else:  # with the residual connection
                    convolve_row(y, 0, W, p + 1, 1, 1, data, weights.out[n], store, row_h + p, p,
                                 target, o, p, W, p, spare)


@inlined
def _mask_row(y, o, o_step, masks, mask, width, p):
    """Multiply p numbers of each of `width` pixels, from y[o] on, by those of a mask."""
    for j in range(width):
        for k in range(p):
            y[o + j * o_step + k] *= masks[mask + j * p + k]


@cache.kernel
def backward(first, end, sizes, store, weights, conditions, condition_step, masks, grad_outputs,
             grads, sums, first_grads):
    """Add the gradients of the kernels for the images `first` to end - 1.

    grads: of all kernels, see `Weights`. sums: of the gradients of `above` and of `x` over an
    image's pixels, (2, blocks, B, round_up(2p)).
    first_grads: written with those of the first block's `above` and `x`, (2, B, H, W, 2p), unless
    it is empty.
    """
    H, W, p = sizes.height, sizes.width, sizes.p
    pitch, last, data = W + 2, sizes.blocks - 1, weights.data
    wide, wide_h = round_up(2 * p), round_up(p)
    gates = len(conditions) // (2 * sizes.blocks)
    batch = len(grad_outputs) // (H * W * p)
    spare, zeros = np.empty(W * wide, np.float32), np.zeros(wide, np.float32)
    y = np.ones(H * W * (p + 1), np.float32)
    grad_y, grad_v = np.empty(W * p, np.float32), np.empty(H * W * p, np.float32)
    grad_h, panel = np.zeros(H * W * wide_h, np.float32), np.empty(PANEL, np.float32)
    one = np.ones(1, np.float32)
    # With two columns of zeros at the left, a row of zeros below and two pixels more, so that the
    # reversed kernels read zeros there.
    grad_above = np.zeros(((H + 1) * pitch + 2) * wide, np.float32)
    grad_x = np.zeros(((H + 1) * pitch + 2) * wide, np.float32)
    for image in range(first, end):
        base = image * sizes.image
        for j in range(H * W):
            for k in range(p):
                grad_h[j * wide_h + k] = grad_outputs[(image * H * W + j) * p + k]
        for n in range(last, -1, -1):
            v, h, in_pitch, features, R, C, left = _inputs(sizes, n)
            _, _, above, x = _places(sizes, n)
            v, h, above, x = base + v, base + h, base + above, base + x
            condition = 2 * n * gates + image * condition_step
            for i in range(H):
                row_above, row_x = above + i * pitch * 2 * p, x + i * W * 2 * p
                row_y = i * W * (p + 1)
                gate_row(store, row_x, p, W, conditions, condition + gates, y, row_y, p + 1)
                convolve_row(grad_h, i * W * wide_h, W, wide_h, 1, 1, data, weights.out_back[n],
                             zeros, 0, 0, grad_y, 0, p, W, p, spare)
                if masks.size:
                    mask = ((n * batch + image) * H + i) * W * p
                    _mask_row(y, row_y, p + 1, masks, mask, W, p)
                    _mask_row(grad_y, 0, p, masks, mask, W, p)
                o = (i * pitch + 2) * wide
                gate_row_gradient(store, row_x, p, W, conditions, condition + gates, grad_y, 0,
                                  grad_x, o, wide, False)
                if n == last:
                    continue
                if n:
                    convolve_row(grad_x, o, pitch, wide, 1, 1, data, weights.into_back[n], zeros, 0,
                                 0, grad_above, o, wide, W, 2 * p, spare)
                gate_row_gradient(store, row_above, p, W, conditions, condition, grad_v, i * W * p,
                                  grad_above, o, wide, n > 0)
            _add_kernel_gradients(sizes, n, image, batch, store, v, h, above, y, grad_above, grad_x,
                                  grad_h, weights, grads, sums, panel, one)
            if n == 0:
                _store_first_gradients(sizes, image, batch, grad_above, grad_x, wide, first_grads)
                continue
            for i in range(H):
                o = (i * pitch + 2) * wide
                convolve_row(grad_x, o, pitch, wide, 1, 2, data, weights.horizontal_back[n], grad_h,
                             i * W * wide_h, wide_h, grad_h, i * W * wide_h, wide_h, W, p, spare)
                if n == last:
                    convolve_row(grad_x, o - wide, pitch, wide, 2, 3, data, weights.into_back[n],
                                 zeros, 0, 0, grad_v, i * W * p, p, W, p, spare)
                else:
                    convolve_row(grad_above, o - wide, pitch, wide, 2, 3, data,
                                 weights.vertical_back[n], zeros, 0, 0, grad_v, i * W * p, p, W, p,
                                 spare)


@inlined
def _add_kernel_gradients(sizes, n, image, batch, store, v, h, above, y, grad_above, grad_x, grad_h,
                          weights, grads, sums, panel, one):
    """Add the gradients of block n's kernels and biases: arguments as in `backward`."""
    H, W, p = sizes.height, sizes.width, sizes.p
    pitch, wide, wide_h, last = W + 2, round_up(2 * p), round_up(p), sizes.blocks - 1
    _, _, in_pitch, features, R, C, left = _inputs(sizes, n)
    add_kernel_gradient(y, 0, W, p + 1, 1, 1, grad_h, 0, W, H, W, wide_h, grads,
                        weights.out_grad[n], panel)
    add_kernel_gradient(store, h, in_pitch, features, 1, left, grad_x, 2 * wide, pitch, H, W, wide,
                        grads, weights.horizontal_grad[n], panel)
    if 0 < n < last:
        add_kernel_gradient(store, above, pitch, 2 * p, 1, 1, grad_x, 2 * wide, pitch, H, W, wide,
                            grads, weights.into_grad[n], panel)
    else:
        add_kernel_gradient(store, v, in_pitch, features, R, C, grad_x, 2 * wide, pitch, H, W, wide,
                            grads, weights.into_grad[n], panel)
    at, kind = (n * batch + image) * wide, sizes.blocks * batch * wide
    add_pixels(grad_x, 2 * wide, pitch, H, W, wide, sums, at + kind, one)
    if n < last:
        add_kernel_gradient(store, v, in_pitch, features, R, C, grad_above, 2 * wide, pitch, H, W,
                            wide, grads, weights.vertical_grad[n], panel)
        add_pixels(grad_above, 2 * wide, pitch, H, W, wide, sums, at, one)


@inlined
def _store_first_gradients(sizes, image, batch, grad_above, grad_x, wide, first_grads):
    """Store an image's gradients of the first block's inputs of gates, for each pixel."""
    H, W, p = sizes.height, sizes.width, sizes.p
    if first_grads.size:
        for i in range(H):
            for j in range(W):
                o, a = (i * (W + 2) + 2 + j) * wide, ((image * H + i) * W + j) * 2 * p
                for k in range(2 * p):
                    if sizes.blocks > 1:
                        first_grads[a + k] = grad_above[o + k]
                    first_grads[batch * H * W * 2 * p + a + k] = grad_x[o + k]
