"""PixelCNN sampling in compiled loops: a row of some images in one function.

Saves the same work as `sampling.pixelcnn`: the vertical stack runs once per row, the horizontal
stack once per sub-pixel and only for its group of feature maps, the output layers only for that
sub-pixel. What remains is matrix products. Their columns are the pixels of a row in the vertical
stack, and the images of a thread elsewhere.

Feature maps are side by side, pixel after pixel, so a kernel's inputs are contiguous. A product
writes whole tiles, and so beyond its own features, onto features that are computed later.
"""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import KernelCache, inlined
from models.kernels.layout import aligned_zeros, round_up
from models.kernels.products import accumulate, add_bias, copy_tiles, gate_tiles, relu
from models.kernels.vectors import HALF, TILE
from models.pixelcnn import FIRST_KERNEL
from sampling.compiled.categorical import sample_categorical

cache = KernelCache(__file__)

PADDING = FIRST_KERNEL // 2  # pixels of zeros around the image, as far as the first kernel reaches


class PixelCNNWeights(NamedTuple):
    """A PixelCNN's weights as its kernels read them.

    p feature maps, C channels, L blocks. `features` is the padded width of a pixel's vertical
    features. A gate's inputs are in the tiles of `gate_lanes`: 2 · features in the vertical stack;
    in the horizontal stack one channel's group after the other, `contexts` in all. All matrices are
    in `rows`; a field `…_at` is the row at which a matrix begins.
    """

    p: int
    blocks: int
    levels: int
    features: int
    rows: np.ndarray  # (rows, TILE)
    scaled_codes: np.ndarray  # (levels,): what the network reads for a code
    vertical_at: np.ndarray  # (L,): one matrix for each row of the kernel
    vertical_bias: np.ndarray  # ((H · W + L - 1) · 2 features,): per pixel in the first block
    vertical_label: np.ndarray  # (labels · (L - 1) · 2 features,): added in the gate
    context_at: np.ndarray  # (L,)
    context_bias: np.ndarray  # (labels · L · contexts,), plus the label's embedding
    context_bounds: np.ndarray  # (C + 1,): where each channel's inputs begin
    feature_bounds: np.ndarray  # (C + 1,): where each group of the p features begins
    horizontal_at: np.ndarray  # (L, C)
    out_at: np.ndarray  # (L, C)
    out_bias: np.ndarray  # (L · C · padded p,)
    hidden_bounds: np.ndarray  # (C + 1,): where each group of the hidden features begins
    hidden_at: np.ndarray  # (C,)
    hidden_bias: np.ndarray  # (C · padded hidden,)
    logits_at: np.ndarray  # (C,)
    logits_bias: np.ndarray  # (C · padded levels,), -inf beyond the levels


class PixelCNNState(NamedTuple):
    """Some images, the cached features of their rows, and the buffers of a row.

    `features`, `contexts` and `levels` are padded widths, see PixelCNNWeights; p is not padded.
    """

    codes: np.ndarray  # (images, C, H, W)
    label: np.ndarray  # (images,)
    image: np.ndarray  # (images, PADDING + H, PADDING + W + PADDING, C): scaled codes amid zeros
    vertical: np.ndarray  # (L - 1, images, 2, 1 + W + 1, features): two rows between zeros
    above: np.ndarray  # (images, W, 2 features): the vertical gate's inputs
    contexts: np.ndarray  # (L, images, W, contexts): partial sums of the horizontal gates' inputs
    horizontal: np.ndarray  # (L, images, (1 + W) · p + TILE): the row of each block's output
    gated: np.ndarray  # (L, images, features + HALF)
    hidden: np.ndarray  # (images, hidden channels + TILE)
    logits: np.ndarray  # (images, levels)
    probs: np.ndarray  # (levels,)


def init_state(weights: PixelCNNWeights, codes: np.ndarray, label: np.ndarray) -> PixelCNNState:
    """The state before the first row of the images `codes` (images, C, H, W), which are drawn to.

    label: (images,), int64.
    """
    images, channels, height, width = codes.shape
    contexts, logits = weights.context_bounds[-1], weights.logits_bias.size // channels
    p, features, blocks = weights.p, weights.features, weights.blocks
    return PixelCNNState(
        codes=codes, label=label,
        image=aligned_zeros(images * (PADDING + height) * (width + 2 * PADDING) * channels),
        vertical=aligned_zeros((blocks - 1) * images * 2 * (width + 2) * features),
        above=aligned_zeros(images * width * 2 * features),
        contexts=aligned_zeros(blocks * images * width * contexts),
        horizontal=aligned_zeros(blocks * images * ((width + 1) * p + TILE)),
        gated=aligned_zeros(blocks * images * (features + HALF)),
        hidden=aligned_zeros(images * (weights.hidden_bounds[-1] + TILE)),
        logits=aligned_zeros(images * logits), probs=aligned_zeros(logits))


@cache.kernel
def read_row(weights, state, row):
    """Copy the codes of `row`, which belong to the prefix, to the padded image."""
    images, channels, _, width = state.codes.shape
    for image in range(images):
        for column in range(width):
            for channel in range(channels):
                set_code(weights, state, image, channel, row, column)


@cache.kernel
def vertical_stack(weights, state, row):
    """Run the vertical stack at `row`, and write the contexts of the horizontal gates."""
    images, channels, height, width = state.codes.shape
    features, blocks, contexts = weights.features, weights.blocks, weights.context_bounds[-1]
    tiles, context_tiles = 2 * features // TILE, contexts // TILE
    line = (width + 2 * PADDING) * channels  # of the padded image
    stride = (width + 2) * features  # of a row of vertical features
    for block in range(blocks):
        at, n = weights.vertical_at[block], 3 * features
        if block == 0:
            n = FIRST_KERNEL * channels
        for image in range(images):
            above = image * width * 2 * features
            for w in range(width):
                bias = height * width + block - 1 if block else row * width + w
                copy_tiles(weights.vertical_bias, bias * 2 * features,
                           state.above, above + w * 2 * features, tiles)
            for r in range(PADDING if block == 0 else 2):
                if block == 0:
                    seen = (image * (PADDING + height) + row + r) * line
                    accumulate(weights.rows, at + r * tiles * n, n, state.image, seen, channels,
                               state.above, above, 2 * features, tiles, width)
                else:
                    before = ((block - 1) * images + image) * 2 + (row + 1 + r) % 2
                    accumulate(weights.rows, at + r * tiles * n, n,
                               state.vertical, before * stride, features,
                               state.above, above, 2 * features, tiles, width)
            context = (block * images + image) * width * contexts
            bias = (state.label[image] * blocks + block) * contexts
            for w in range(width):
                copy_tiles(weights.context_bias, bias, state.contexts, context + w * contexts,
                           context_tiles)
            accumulate(weights.rows, weights.context_at[block], 2 * features,
                       state.above, above, 2 * features,
                       state.contexts, context, contexts, context_tiles, width)
            if block < blocks - 1:
                label = (state.label[image] * (blocks - 1) + block) * 2 * features
                add_bias(state.above, above, 2 * features, weights.vertical_label, label, tiles,
                       width)
                after = ((block * images + image) * 2 + row % 2) * stride + features
                gate_tiles(state.above, above, 2 * features, state.vertical, after, features,
                           tiles, width)


@cache.kernel
def draw_row(weights, state, row, uniforms, temperature, top_p):
    """Draw a row of all images from uniform random numbers (images, W, C)."""
    images, channels, _, width = state.codes.shape
    size = weights.logits_bias.size // channels
    for column in range(width):
        for channel in range(channels):
            for block in range(weights.blocks):
                horizontal_block(weights, state, block, row, column, channel)
            output(weights, state, column, channel)
            for image in range(images):
                state.codes[image, channel, row, column] = sample_categorical(
                    state.logits, image * size, weights.levels, uniforms[image, column, channel],
                    temperature, top_p, state.probs)
                set_code(weights, state, image, channel, row, column)


@inlined
def set_code(weights, state, image, channel, row, column):
    """Copy a sub-pixel's code to the padded image."""
    _, channels, height, width = state.codes.shape
    pixel = (image * (PADDING + height) + PADDING + row) * (width + 2 * PADDING) + PADDING + column
    state.image[pixel * channels + channel] = weights.scaled_codes[
        state.codes[image, channel, row, column]]


@inlined
def horizontal_block(weights, state, block, row, column, channel):
    """Compute a block's features of group `channel` for one pixel of each image."""
    images, channels, height, width = state.codes.shape
    p, features, contexts = weights.p, weights.features, weights.context_bounds[-1]
    line, lines = (width + 2 * PADDING) * channels, PADDING + height  # of the padded image
    stride, gated_width = (width + 1) * p + TILE, features + HALF
    a, b = weights.feature_bounds[channel], weights.feature_bounds[channel + 1]
    tiles = (weights.context_bounds[channel + 1] - weights.context_bounds[channel]) // TILE

    inputs = block * images * width * contexts + column * contexts + weights.context_bounds[channel]
    if block == 0:
        n = PADDING * channels + channel
        accumulate(weights.rows, weights.horizontal_at[block, channel], n,
                   state.image, (PADDING + row) * line + column * channels, lines * line,
                   state.contexts, inputs, width * contexts, tiles, images)
    else:
        accumulate(weights.rows, weights.horizontal_at[block, channel], p + b,
                   state.horizontal, (block - 1) * images * stride + column * p, stride,
                   state.contexts, inputs, width * contexts, tiles, images)
    gated = block * images * gated_width
    gate_tiles(state.contexts, inputs, width * contexts,
               state.gated, gated + a, gated_width, tiles, images)

    after = block * images * stride + (column + 1) * p + a
    tiles = round_up(b - a) // TILE
    bias = (block * channels + channel) * (weights.out_bias.size // (weights.blocks * channels))
    for image in range(images):
        o = after + image * stride
        copy_tiles(weights.out_bias, bias, state.horizontal, o, tiles)
    if block > 0:
        for image in range(images):
            o = after + image * stride
            add_bias(state.horizontal, o, 0, state.horizontal, o - images * stride, tiles, 1)
    accumulate(weights.rows, weights.out_at[block, channel], b, state.gated, gated, gated_width,
               state.horizontal, after, stride, tiles, images)


@inlined
def output(weights, state, column, channel):
    """Compute the logits of one sub-pixel of each image."""
    images, channels, _, width = state.codes.shape
    p, stride = weights.p, (width + 1) * weights.p + TILE
    a, b = weights.feature_bounds[channel], weights.feature_bounds[channel + 1]
    c, d = weights.hidden_bounds[channel], weights.hidden_bounds[channel + 1]
    features = (weights.blocks - 1) * images * stride + (column + 1) * p
    hidden, logits = weights.hidden_bias.size // channels, weights.logits_bias.size // channels
    hidden_width = state.hidden.size // images
    tiles = round_up(d - c) // TILE
    for image in range(images):
        group = features + image * stride + a
        relu(state.horizontal, group, state.horizontal, group, b - a)
        copy_tiles(weights.hidden_bias, channel * hidden,
                   state.hidden, image * hidden_width + c, tiles)
        copy_tiles(weights.logits_bias, channel * logits,
                   state.logits, image * logits, logits // TILE)
    accumulate(weights.rows, weights.hidden_at[channel], b, state.horizontal, features, stride,
               state.hidden, c, hidden_width, tiles, images)
    for image in range(images):
        group = image * hidden_width + c
        relu(state.hidden, group, state.hidden, group, d - c)
    accumulate(weights.rows, weights.logits_at[channel], d, state.hidden, 0, hidden_width,
               state.logits, 0, logits, logits // TILE, images)
