"""PixelCNN's images on the CPU, compiled: a row of some images in one function.

The same economy as in `sampling.pixelcnn`: the vertical stack once a row, the horizontal one once a
sub-pixel and only for its group of feature maps, the output layers only for that sub-pixel. What
is left is matrix products, whose columns are the pixels of a row for the vertical stack, and the
images of a thread for all else. Images are shared out between threads, which wait for one another
only at the end of a row.

Feature maps lie side by side, pixel after pixel, so that a kernel's inputs are one stretch of
memory. A product writes whole tiles, and so beyond its features, onto such as are computed later.
"""

from typing import NamedTuple

import numpy as np
import torch

from models.kernels.compiling import KernelCache, inlined
from models.kernels.products import (
    Shares,
    accumulate,
    add_to,
    checked,
    copy,
    gates,
    padded,
    pick,
    rectify,
    space,
)
from models.kernels.vectors import HALF, TILE
from models.pixelcnn import FIRST_KERNEL
from sampling.compiled.pixelcnn_weights import lay_out

cache = KernelCache(__file__)

MARGIN = FIRST_KERNEL // 2  # pixels of zeros around the picture


class State(NamedTuple):
    """Some images and what is known of them, and the space that a row works in."""

    codes: np.ndarray  # (images, C, H, W)
    label: np.ndarray  # (images,)
    picture: np.ndarray  # (images, MARGIN + H, MARGIN + W + MARGIN, C): scaled codes amid zeros
    vertical: np.ndarray  # (L - 1, images, 2, 1 + W + 1, features): two rows between zeros
    above: np.ndarray  # (images, W, 2 features)
    contexts: np.ndarray  # (L, images, W, contexts): sums of the horizontal gates' inputs
    horizontal: np.ndarray  # (L, images, (1 + W) · p + TILE): the row of each block's output
    gated: np.ndarray  # (L, images, features + HALF)
    hidden: np.ndarray  # (images, hidden channels + TILE)
    logits: np.ndarray  # (images, levels padded)
    odds: np.ndarray  # (levels padded,)


def begin(weights, codes, label):
    """The state before the first row of images whose codes (images, C, H, W) will be drawn."""
    images, channels, height, width = codes.shape
    contexts, logits = weights.context_begins[-1], weights.logits_bias.size // channels
    p, features, blocks = weights.p, weights.features, weights.blocks
    sizes = (
        images * (MARGIN + height) * (width + 2 * MARGIN) * channels,
        (blocks - 1) * images * 2 * (width + 2) * features,
        images * width * 2 * features, blocks * images * width * contexts,
        blocks * images * ((width + 1) * p + TILE), blocks * images * (features + HALF),
        images * (weights.hidden_begins[-1] + TILE), images * logits, logits)
    return State(codes, label, *map(space, sizes))


@cache.kernel
def read_row(weights, state, row):
    """Take the codes of `row`, which are given, into the picture."""
    images, channels, _, width = state.codes.shape
    for image in range(images):
        for column in range(width):
            for channel in range(channels):
                tell(weights, state, image, channel, row, column)


@cache.kernel
def vertical_stack(weights, state, row):
    """The vertical stack at `row`, and what it hands to the horizontal stack's gates."""
    images, channels, height, width = state.codes.shape
    features, blocks, contexts = weights.features, weights.blocks, weights.context_begins[-1]
    tiles, context_tiles = 2 * features // TILE, contexts // TILE
    line = (width + 2 * MARGIN) * channels  # of the picture
    stride = (width + 2) * features  # of a row of vertical features
    for block in range(blocks):
        at, n = weights.vertical_at[block], 3 * features
        if block == 0:
            n = FIRST_KERNEL * channels
        for image in range(images):
            above = image * width * 2 * features
            for w in range(width):
                bias = height * width + block - 1 if block else row * width + w
                copy(weights.vertical_bias, bias * 2 * features,
                     state.above, above + w * 2 * features, tiles)
            for r in range(MARGIN if block == 0 else 2):
                if block == 0:
                    seen = (image * (MARGIN + height) + row + r) * line
                    accumulate(weights.rows, at + r * tiles * n, n, state.picture, seen, channels,
                               state.above, above, 2 * features, tiles, width)
                else:
                    before = ((block - 1) * images + image) * 2 + (row + 1 + r) % 2
                    accumulate(weights.rows, at + r * tiles * n, n,
                               state.vertical, before * stride, features,
                               state.above, above, 2 * features, tiles, width)
            context = (block * images + image) * width * contexts
            bias = (state.label[image] * blocks + block) * contexts
            for w in range(width):
                copy(weights.context_bias, bias, state.contexts, context + w * contexts,
                     context_tiles)
            accumulate(weights.rows, weights.context_at[block], 2 * features,
                       state.above, above, 2 * features,
                       state.contexts, context, contexts, context_tiles, width)
            if block < blocks - 1:
                label = (state.label[image] * (blocks - 1) + block) * 2 * features
                add_to(state.above, above, 2 * features, weights.vertical_label, label, tiles,
                       width)
                after = ((block * images + image) * 2 + row % 2) * stride + features
                gates(state.above, above, 2 * features, state.vertical, after, features, tiles,
                      width)


@cache.kernel
def draw_row(weights, state, row, uniforms, temperature, top_p):
    """Draw a row of all images, given random numbers (images, W, C)."""
    images, channels, _, width = state.codes.shape
    size = weights.logits_bias.size // channels
    for column in range(width):
        for channel in range(channels):
            for block in range(weights.blocks):
                horizontal_block(weights, state, block, row, column, channel)
            output(weights, state, column, channel)
            for image in range(images):
                state.codes[image, channel, row, column] = pick(
                    state.logits, image * size, weights.levels, uniforms[image, column, channel],
                    temperature, top_p, state.odds)
                tell(weights, state, image, channel, row, column)


@inlined
def tell(weights, state, image, channel, row, column):
    """Take one sub-pixel's code into the picture."""
    _, channels, height, width = state.codes.shape
    pixel = (image * (MARGIN + height) + MARGIN + row) * (width + 2 * MARGIN) + MARGIN + column
    state.picture[pixel * channels + channel] = weights.scaled[
        state.codes[image, channel, row, column]]


@inlined
def horizontal_block(weights, state, block, row, column, channel):
    """One block's group of features for `channel`, of one pixel of each image."""
    images, channels, height, width = state.codes.shape
    p, features, contexts = weights.p, weights.features, weights.context_begins[-1]
    line, picture = (width + 2 * MARGIN) * channels, MARGIN + height
    stride, width_of_gated = (width + 1) * p + TILE, features + HALF
    a, b = weights.begins[channel], weights.begins[channel + 1]
    tiles = (weights.context_begins[channel + 1] - weights.context_begins[channel]) // TILE

    inputs = block * images * width * contexts + column * contexts + weights.context_begins[channel]
    if block == 0:
        accumulate(weights.rows, weights.horizontal_at[block, channel], MARGIN * channels + channel,
                   state.picture, (MARGIN + row) * line + column * channels, picture * line,
                   state.contexts, inputs, width * contexts, tiles, images)
    else:
        accumulate(weights.rows, weights.horizontal_at[block, channel], p + b,
                   state.horizontal, (block - 1) * images * stride + column * p, stride,
                   state.contexts, inputs, width * contexts, tiles, images)
    gated = block * images * width_of_gated
    gates(state.contexts, inputs, width * contexts,
          state.gated, gated + a, width_of_gated, tiles, images)

    after = block * images * stride + (column + 1) * p + a
    tiles = padded(b - a) // TILE
    bias = (block * channels + channel) * (weights.out_bias.size // (weights.blocks * channels))
    for image in range(images):
        o = after + image * stride
        copy(weights.out_bias, bias, state.horizontal, o, tiles)
    if block > 0:
        for image in range(images):
            o = after + image * stride
            add_to(state.horizontal, o, 0, state.horizontal, o - images * stride, tiles, 1)
    accumulate(weights.rows, weights.out_at[block, channel], b, state.gated, gated, width_of_gated,
               state.horizontal, after, stride, tiles, images)


@inlined
def output(weights, state, column, channel):
    """The logits of one sub-pixel of each image."""
    images, channels, _, width = state.codes.shape
    p, stride = weights.p, (width + 1) * weights.p + TILE
    a, b = weights.begins[channel], weights.begins[channel + 1]
    c, d = weights.hidden_begins[channel], weights.hidden_begins[channel + 1]
    features = (weights.blocks - 1) * images * stride + (column + 1) * p
    hidden, logits = weights.hidden_bias.size // channels, weights.logits_bias.size // channels
    width_of_hidden = state.hidden.size // images
    tiles = padded(d - c) // TILE
    for image in range(images):
        group = features + image * stride + a
        rectify(state.horizontal, group, state.horizontal, group, b - a)
        copy(weights.hidden_bias, channel * hidden, state.hidden, image * width_of_hidden + c,
             tiles)
        copy(weights.logits_bias, channel * logits, state.logits, image * logits, logits // TILE)
    accumulate(weights.rows, weights.hidden_at[channel], b, state.horizontal, features, stride,
               state.hidden, c, width_of_hidden, tiles, images)
    for image in range(images):
        group = image * width_of_hidden + c
        rectify(state.hidden, group, state.hidden, group, d - c)
    accumulate(weights.rows, weights.logits_at[channel], d, state.hidden, 0, width_of_hidden,
               state.logits, 0, logits, logits // TILE, images)


class Compiled:
    """A sampler of `sampling.pixelcnn.sample`, for a network in single precision on the CPU.

    Images are shared out between as many threads as torch is set to. Each costs the same
    computation, to the last bit, whatever is drawn beside it.
    """

    def __init__(self, model, label, codes, first):
        """codes: (B, C, H, W), where rows will be drawn; those before row `first` are given."""
        vectors, numbers = None, checked(label, codes.numpy(), model.config)
        if model.config.vector:  # to the kernel each of them is a label
            label = model.scale_vectors(label).reshape(len(codes), model.config.vector)
            vectors, numbers = torch.unique(label, dim=0, return_inverse=True)
            numbers = numbers.numpy()
        self.weights = lay_out(model, *codes.shape[2:], vectors)
        self.shares = Shares(len(codes))
        self.states = [begin(self.weights, codes.numpy()[part], numbers[part])
                       for part in self.shares.parts]
        cache.prepare("PixelCNN", self._load)
        self.shares.each(lambda state: self._read(state, first), self.states)

    def draw_row(self, row, uniforms, temperature, top_p):
        """Draw a row of codes, given random numbers (B, W, C)."""
        def draw_of_part(state, uniforms):
            vertical_stack(self.weights, state, row)
            draw_row(self.weights, state, row, uniforms, float(temperature), float(top_p))

        self.shares.each(draw_of_part, self.states, uniforms.numpy())

    def _load(self):
        """Call each kernel, for images of no width."""
        nothing = self.states[0]._replace(codes=self.states[0].codes[..., :0])
        self._read(nothing, 1)
        draw_row(self.weights, nothing, 0, np.zeros((1, 0, 1)), 1.0, 1.0)

    def _read(self, state, rows):
        for row in range(rows):
            vertical_stack(self.weights, state, row)
            read_row(self.weights, state, row)
