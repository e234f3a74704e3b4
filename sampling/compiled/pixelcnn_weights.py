"""A PixelCNN's weights in the order in which the compiled sampler reads them."""

from typing import NamedTuple

import numpy as np
import torch

from models.kernels.products import (
    aligned,
    as_array,
    consecutive,
    gate_lanes,
    lanes_of,
    padded,
    rows_of,
)
from models.kernels.vectors import HALF
from models.pixelcnn import group_bounds
from models.position import waves


class Weights(NamedTuple):
    """A PixelCNN's weights as the kernel reads them; `…_at`: where they begin among `rows`.

    p feature maps, C channels, L blocks. Vertical feature maps are padded to `features` a pixel.
    A gate has its inputs in tiles (see `gate_lanes`): the vertical one 2 · features, the horizontal
    ones one channel's group after the other, `contexts` in all.
    """

    p: int
    blocks: int
    levels: int
    features: int
    rows: np.ndarray  # (rows, TILE)
    scaled: np.ndarray  # (levels,): what the network sees of a code
    vertical_at: np.ndarray  # (L,): one matrix for each row of the kernel
    vertical_bias: np.ndarray  # ((H · W + L - 1) · 2 features,): of the first block for each pixel
    vertical_label: np.ndarray  # (labels · L · 2 features,): added in the gate
    context_at: np.ndarray  # (L,)
    context_bias: np.ndarray  # (labels · L · contexts,), with the label's embedding
    context_begins: np.ndarray  # (C + 1,): where each channel's inputs begin
    begins: np.ndarray  # (C + 1,): where each group of the p features begins
    horizontal_at: np.ndarray  # (L, C)
    out_at: np.ndarray  # (L, C)
    out_bias: np.ndarray  # (L · C · p padded,)
    hidden_begins: np.ndarray  # (C + 1,)
    hidden_at: np.ndarray  # (C,)
    hidden_bias: np.ndarray  # (C · hidden padded,)
    logits_at: np.ndarray  # (C,)
    logits_bias: np.ndarray  # (C · levels padded,), -inf beyond the levels


class _Rows:
    """Matrices laid out one after the other."""

    def __init__(self):
        self.parts, self.size = [], 0

    def add(self, matrix, lanes):
        """The number of the row at which the matrix begins."""
        self.parts.append(rows_of(matrix, lanes))
        self.size += len(self.parts[-1])
        return self.size - len(self.parts[-1])


def _projected(weight, vectors):
    """V h of each vector h (width,): (vectors, 2p), the same to the last bit in any company."""
    # By itself: the order in which a product of matrices adds up may depend on their sizes.
    return np.stack([np.multiply(weight, vector, dtype=np.float64).sum(1) for vector in vectors])


def lay_out(model, height, width, vectors=None):
    """The weights of a PixelCNN of float32 on the CPU, in the kernel's order: Weights.

    height, width: of the images. vectors: (labels, width), of a network conditioned on such,
    scaled: the kernel knows them as labels.
    """
    config, blocks, rows = model.config, model.blocks, _Rows()
    p, q, channels, levels = (config.hidden_dim, config.out_hidden_dim, config.channels,
                              config.levels)
    features, channel = padded(p, HALF), range(channels)
    begins, hidden_begins = group_bounds(p, channels), group_bounds(q, channels)
    both = gate_lanes(0, p, p)
    by_group = [gate_lanes(begins[c], begins[c + 1], p) for c in channel]
    groups = [consecutive(begins[c], begins[c + 1]) for c in channel]
    hidden_groups = [consecutive(hidden_begins[c], hidden_begins[c + 1]) for c in channel]
    codes = [consecutive(c * levels, (c + 1) * levels) for c in channel]
    contexts = np.concatenate(by_group)

    def of_labels(gate, lanes, bias):
        """What each label adds to a gate, or one row of zeros, and a bias: (labels, …)."""
        if gate is None or gate.condition is None:
            condition = np.zeros((1, 2 * p))
        elif vectors is None:
            condition = as_array(gate.condition.weight)
        else:
            condition = _projected(as_array(gate.condition.weight), as_array(vectors))
        return lanes_of(condition + as_array(bias), lanes)

    def vertical(block):
        """The matrices (2p, size · inputs) of the kernel's rows, one after the other."""
        kernel = as_array(block.vertical.weight)
        if not block.first:
            kernel = np.pad(kernel, ((0, 0), (0, features - p), (0, 0), (0, 0)))
        flat = kernel.transpose(2, 0, 3, 1).reshape(block.rows, 2 * p, -1)
        return [rows.add(matrix, both) for matrix in flat][0]

    def vertical_biases():
        """The vertical stack's biases; in the first block with what the position adds."""
        first, *others = (as_array(block.vertical.bias) for block in blocks)
        where, position = np.zeros((height, width, 2 * p)), blocks[0].position
        if position is not None:
            of_row, of_column = (_projected(as_array(layer.weight),
                                            as_array(waves(0, count, layer.weight)))
                                 for layer, count in ((position.of_row, height),
                                                      (position.of_column, width)))
            where = of_row[:, None] + of_column
        of_pixels = (first + where).reshape(-1, 2 * p)
        return lanes_of(np.concatenate((of_pixels, *(bias[None] for bias in others))), both)

    def context(block):
        """The 1×1 convolution of the vertical features in the order of their tiles."""
        weight = as_array(block.vertical_to_horizontal.weight)[:, :, 0, 0]
        return rows.add(np.where(both < 0, 0, weight[:, both]), contexts)

    def horizontal(block, c):
        """The pixels to the left, then of the pixel itself what channel c may see."""
        kernel = as_array(block.left.weight)
        if block.here is not None:
            kernel = np.concatenate((kernel, as_array(block.here.kernel)), axis=3)
        kernel = kernel[:, :, 0].transpose(0, 2, 1).reshape(2 * p, -1)
        seen = c if block.first else begins[c + 1]
        return rows.add(kernel[:, :block.left.in_channels * block.reach + seen], by_group[c])

    def pointwise(layer, seen, lanes):
        """A 1×1 convolution of the first groups of features, to one group."""
        return rows.add(as_array(layer.weight)[:, :seen, 0, 0], lanes)

    def biases(layer, lanes, missing=0):
        """A bias by group, each padded to the same length: (C · length,)."""
        groups = [lanes_of(layer.bias, group, missing) for group in lanes]
        longest = max(map(len, groups))
        return np.concatenate([np.pad(group, (0, longest - len(group))) for group in groups])

    def each(function):
        return np.array([function(block) for block in blocks])

    return aligned(Weights(
        p=p, blocks=len(blocks), levels=levels, features=features,
        scaled=as_array(model.scale(torch.arange(levels))),
        vertical_at=each(vertical),
        vertical_bias=vertical_biases().ravel(),
        vertical_label=np.stack([of_labels(block.vertical_gate, both, np.zeros(2 * p))
                                 for block in blocks[:-1]], axis=1).ravel()
        if len(blocks) > 1 else np.zeros(0, np.float32),
        context_at=each(context),
        context_bias=np.stack([of_labels(block.horizontal_gate, contexts,
                                         block.vertical_to_horizontal.bias)
                               for block in blocks], axis=1).ravel(),
        context_begins=np.cumsum([0, *map(len, by_group)]), begins=np.array(begins),
        horizontal_at=each(lambda block: [horizontal(block, c) for c in channel]),
        out_at=each(lambda block: [pointwise(block.out, begins[c + 1], groups[c])
                                   for c in channel]),
        out_bias=np.concatenate([biases(block.out, groups) for block in blocks]),
        hidden_begins=np.array(hidden_begins),
        hidden_at=np.array([pointwise(model.hidden, begins[c + 1], hidden_groups[c])
                            for c in channel]),
        hidden_bias=biases(model.hidden, hidden_groups),
        logits_at=np.array([pointwise(model.logits, hidden_begins[c + 1], codes[c])
                            for c in channel]),
        logits_bias=biases(model.logits, codes, -np.inf),
        rows=np.concatenate(rows.parts)))
