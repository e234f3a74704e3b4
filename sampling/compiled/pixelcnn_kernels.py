"""PixelCNN sampling in compiled loops: a row of some images in one function.

Saves the same work as `sampling.pixelcnn`: the vertical stack runs once per row, the horizontal
stack once per sub-pixel and only for its group of feature maps, the output layers only for that
sub-pixel. What remains is matrix products. Their columns are the pixels of a row in the vertical
stack, and the images of a thread elsewhere.

**A pixel.** What the pixel to the left contributes to the gates of all blocks and channels is
known before the first sub-pixel is drawn. So these products come first, and depend on nothing but
each other's end. Then a sub-pixel needs only the features of its own pixel, block after block, and
one image waits for half as many dependent multiply-adds.

**Traffic.** The horizontal stack keeps one pixel of each image: 64 kB for 50 images and 5 blocks of
32 feature maps, which stays in a core's cache. Whole rows would take 14 times as much. Only the
vertical stack's contribution to the gates, the contexts, is kept for a whole row. A pixel reads it
once.

A product writes whole tiles, and so beyond its own features, onto features that are computed later.
"""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import KernelCache, inlined
from models.kernels.layout import aligned_zeros, round_up
from models.kernels.products import gate_sums, gate_tiles, multiply, relu_tiles
from models.kernels.vectors import HALF, TILE, pointer
from models.pixelcnn import FIRST_KERNEL
from sampling.compiled.distributions import SamplingBuffers, sample_code, sampling_buffers

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
    mixtures: int  # components of a mixture of logistics, 0 for a softmax
    features: int
    rows: np.ndarray  # (rows, TILE)
    code_features: int  # the numbers that the network reads for a code
    code_table: np.ndarray  # (levels · code_features,): these numbers
    vertical_at: np.ndarray  # (L,): one matrix for each row of the kernel
    first_bias: np.ndarray  # (2 features,) for all pixels, or (H · W · 2 features,) with positions
    vertical_bias: np.ndarray  # (L · 2 features,): nothing for the first block
    vertical_label: np.ndarray  # (labels · (L - 1) · 2 features,): added in the gate
    context_at: np.ndarray  # (L,)
    context_bias: np.ndarray  # (labels · L · contexts,), plus the label's embedding
    context_bounds: np.ndarray  # (C + 1,): where each channel's inputs begin
    feature_bounds: np.ndarray  # (C + 1,): where each group of the p features begins
    left_at: np.ndarray  # (L,): for the pixels to the left, all channels' gates
    here_at: np.ndarray  # (L, C): for the pixel itself
    out_at: np.ndarray  # (L, C): the first row is the bias, see `PixelCNNState.gated`
    hidden_bounds: np.ndarray  # (C + 1,): where each group of the hidden features begins
    hidden_at: np.ndarray  # (C,)
    hidden_bias: np.ndarray  # (C · padded hidden,)
    logits_at: np.ndarray  # (C,)
    logits_bias: np.ndarray  # (C · padded parameters,), -inf beyond a code's parameters


class PixelCNNState(NamedTuple):
    """Some images, the cached features of their rows, and the buffers of a row.

    `features`, `contexts` and `parameters` are padded widths, see PixelCNNWeights; p is not padded.
    """

    codes: np.ndarray  # (images, C, H, W)
    label: np.ndarray  # (images,)
    # (images, PADDING + H, PADDING + W + PADDING, C · code_features): codes, encoded, amid zeros
    image: np.ndarray
    vertical: np.ndarray  # (L - 1, images, 2, 1 + W + 1, features): two rows between zeros
    above: np.ndarray  # (W, 2 features): the vertical gate's inputs for an image
    contexts: np.ndarray  # (L, W, images, contexts): partial sums of the horizontal gates' inputs
    gates: np.ndarray  # (L, images, contexts): the same for a pixel, plus the horizontal stack's
    horizontal: np.ndarray  # (1 + L, images, p + TILE): zeros, then each block's output
    # (L, images, HALF + features + HALF): for a pixel. A 1 precedes the features: the input of the
    # biases, so that a product adds them to the residual connection without a pass of its own.
    gated: np.ndarray
    hidden: np.ndarray  # (images, hidden channels + TILE)
    logits: np.ndarray  # (images, parameters)
    buffers: SamplingBuffers


def init_state(weights: PixelCNNWeights, codes: np.ndarray, label: np.ndarray) -> PixelCNNState:
    """The state before the first row of the images `codes` (images, C, H, W), which are drawn to.

    label: (images,), int64.
    """
    images, channels, height, width = codes.shape
    contexts, logits = weights.context_bounds[-1], weights.logits_bias.size // channels
    features, blocks = weights.features, weights.blocks
    line = (width + 2 * PADDING) * channels * weights.code_features  # of the padded image
    gated = aligned_zeros((blocks * images, HALF + features + HALF))
    gated[:, HALF - 1] = 1
    return PixelCNNState(
        codes=codes, label=label,
        image=aligned_zeros(images * (PADDING + height) * line),
        vertical=aligned_zeros((blocks - 1) * images * 2 * (width + 2) * features),
        above=aligned_zeros(width * 2 * features),
        contexts=aligned_zeros(blocks * width * images * contexts),
        gates=aligned_zeros(blocks * images * contexts),
        horizontal=aligned_zeros((1 + blocks) * images * (weights.p + TILE)),
        gated=gated.ravel(),
        hidden=aligned_zeros(images * (weights.hidden_bounds[-1] + TILE)),
        logits=aligned_zeros(images * logits),
        buffers=sampling_buffers(logits, weights.mixtures))


@cache.kernel
def read_row(weights, state, row):
    """Read the codes of `row`, which belong to the prefix: they need no horizontal stack."""
    vertical_stack(weights, state, row)
    images, channels, _, width = state.codes.shape
    for image in range(images):
        for column in range(width):
            for channel in range(channels):
                set_code(weights, state, image, channel, row, column)


@cache.kernel
def draw_row(weights, state, row, uniforms, temperature, top_p):
    """Draw a row of all images from uniform random numbers (images, W, C)."""
    images, channels, _, width = state.codes.shape
    size = weights.logits_bias.size // channels
    vertical_stack(weights, state, row)
    for i in range(state.horizontal.size):  # the zeros to the left of the row
        state.horizontal[i] = 0
    for column in range(width):
        for block in range(weights.blocks):
            read_left(weights, state, block, row, column)
        for channel in range(channels):
            for block in range(weights.blocks):
                horizontal_block(weights, state, block, row, column, channel)
            output(weights, state, channel)
            for image in range(images):
                state.codes[image, channel, row, column] = sample_code(
                    state.logits, image * size, weights.levels, weights.mixtures,
                    uniforms[image, column, channel], temperature, top_p, state.buffers)
                set_code(weights, state, image, channel, row, column)


@inlined
def vertical_stack(weights, state, row):
    """Run the vertical stack at `row`, and write the contexts of the horizontal gates."""
    images, channels, height, width = state.codes.shape
    features, blocks, contexts = weights.features, weights.blocks, weights.context_bounds[-1]
    gates = 2 * features
    tiles, context_tiles = gates // TILE, contexts // TILE
    numbers = channels * weights.code_features  # of a pixel
    line = (width + 2 * PADDING) * numbers  # of the padded image
    stride = (width + 2) * features  # of a row of vertical features
    for block in range(blocks):
        for image in range(images):
            addend, addend_step = pointer(weights.vertical_bias, block * gates), 0
            n, step, kernel_rows = 3 * features, features, 2
            if block == 0:
                addend = pointer(weights.first_bias, 0)
                if weights.first_bias.size > gates:
                    addend, addend_step = pointer(weights.first_bias, row * width * gates), gates
                n, step, kernel_rows = FIRST_KERNEL * numbers, numbers, PADDING
            for r in range(kernel_rows):
                if block == 0:
                    inputs = pointer(state.image, (image * (PADDING + height) + row + r) * line)
                else:
                    before = ((block - 1) * images + image) * 2 + (row + 1 + r) % 2
                    inputs = pointer(state.vertical, before * stride)
                matrix = pointer(weights.rows, (weights.vertical_at[block] + r * tiles * n) * TILE)
                multiply(addend, addend_step, matrix, n * TILE, TILE, inputs, step, 1, n,
                         pointer(state.above, 0), gates, tiles, width)
                addend, addend_step = pointer(state.above, 0), gates
            label = state.label[image]
            multiply(pointer(weights.context_bias, (label * blocks + block) * contexts), 0,
                     pointer(weights.rows, weights.context_at[block] * TILE), gates * TILE, TILE,
                     pointer(state.above, 0), gates, 1, gates,
                     pointer(state.contexts, (block * width * images + image) * contexts),
                     images * contexts, context_tiles, width)
            if block < blocks - 1:
                after = ((block * images + image) * 2 + row % 2) * stride + features
                gate_sums(state.above, 0, gates, weights.vertical_label,
                          (label * (blocks - 1) + block) * gates, state.vertical, after, features,
                          tiles, width)


@inlined
def set_code(weights, state, image, channel, row, column):
    """Write what the network reads for a sub-pixel's code to the padded image."""
    _, channels, height, width = state.codes.shape
    pixel = (image * (PADDING + height) + PADDING + row) * (width + 2 * PADDING) + PADDING + column
    code, numbers = state.codes[image, channel, row, column], weights.code_features
    for i in range(numbers):
        state.image[(pixel * channels + channel) * numbers + i] = weights.code_table[
            code * numbers + i]


@inlined
def read_left(weights, state, block, row, column):
    """Write a pixel's `gates`: the contexts, plus what the pixels to the left contribute.

    `horizontal` still has the features of the pixel to the left.
    """
    images, channels, height, width = state.codes.shape
    p, contexts = weights.p, weights.context_bounds[-1]
    numbers = channels * weights.code_features  # of a pixel
    line, lines = (width + 2 * PADDING) * numbers, PADDING + height  # of the padded image
    if block == 0:
        n, step = PADDING * numbers, lines * line
        inputs = pointer(state.image, (PADDING + row) * line + column * numbers)
    else:
        n, step = p, p + TILE
        inputs = pointer(state.horizontal, block * images * step)
    multiply(pointer(state.contexts, (block * width + column) * images * contexts), contexts,
             pointer(weights.rows, weights.left_at[block] * TILE), n * TILE, TILE,
             inputs, step, 1, n,
             pointer(state.gates, block * images * contexts), contexts, contexts // TILE, images)


@inlined
def horizontal_block(weights, state, block, row, column, channel):
    """Compute a block's features of group `channel` for one pixel of each image."""
    images, channels, height, width = state.codes.shape
    contexts, stride = weights.context_bounds[-1], weights.p + TILE
    numbers = channels * weights.code_features  # of a pixel
    line, lines = (width + 2 * PADDING) * numbers, PADDING + height  # of the padded image
    a, b = weights.feature_bounds[channel], weights.feature_bounds[channel + 1]
    first_gate = weights.context_bounds[channel]
    tiles = (weights.context_bounds[channel + 1] - first_gate) // TILE
    if block == 0:
        n, step = channel * weights.code_features, lines * line
        inputs = pointer(state.image, (PADDING + row) * line + (PADDING + column) * numbers)
    else:
        n, step = b, stride
        inputs = pointer(state.horizontal, block * images * stride)
    first_gate += block * images * contexts
    gates = pointer(state.gates, first_gate)
    multiply(gates, contexts, pointer(weights.rows, weights.here_at[block, channel] * TILE),
             n * TILE, TILE, inputs, step, 1, n, gates, contexts, tiles, images)
    gated_width = HALF + weights.features + HALF
    gated = block * images * gated_width + HALF
    gate_tiles(state.gates, first_gate, contexts, state.gated, gated + a, gated_width, tiles,
               images)
    multiply(pointer(state.horizontal, block * images * stride + a), stride,  # the residual
             pointer(weights.rows, weights.out_at[block, channel] * TILE), (1 + b) * TILE, TILE,
             pointer(state.gated, gated - 1), gated_width, 1, 1 + b,
             pointer(state.horizontal, (block + 1) * images * stride + a), stride,
             round_up(b - a) // TILE, images)


@inlined
def output(weights, state, channel):
    """Compute the logits of one sub-pixel of each image."""
    images, channels, _, _ = state.codes.shape
    stride = weights.p + TILE
    a, b = weights.feature_bounds[channel], weights.feature_bounds[channel + 1]
    c, d = weights.hidden_bounds[channel], weights.hidden_bounds[channel + 1]
    features = weights.blocks * images * stride
    hidden, logits = weights.hidden_bias.size // channels, weights.logits_bias.size // channels
    hidden_width, tiles = state.hidden.size // images, round_up(d - c) // TILE
    relu_tiles(state.horizontal, features + a, stride, state.horizontal, features + a, stride,
               round_up(b - a) // TILE, images)
    multiply(pointer(weights.hidden_bias, channel * hidden), 0,
             pointer(weights.rows, weights.hidden_at[channel] * TILE), b * TILE, TILE,
             pointer(state.horizontal, features), stride, 1, b,
             pointer(state.hidden, c), hidden_width, tiles, images)
    relu_tiles(state.hidden, c, hidden_width, state.hidden, c, hidden_width, tiles, images)
    multiply(pointer(weights.logits_bias, channel * logits), 0,
             pointer(weights.rows, weights.logits_at[channel] * TILE), d * TILE, TILE,
             pointer(state.hidden, 0), hidden_width, 1, d,
             pointer(state.logits, 0), logits, logits // TILE, images)
