"""A PixelCNN's weights in the order in which the compiled sampler reads them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from models.convolutions import group_bounds
from models.gated import GatedActivation
from models.kernels.layout import (
    align_arrays,
    consecutive_lanes,
    gate_lanes,
    pack_lanes,
    pack_rows,
    round_up,
    to_numpy,
)
from models.kernels.vectors import HALF
from models.pixelcnn import Block, PixelCNN, PixelCNNConfig
from models.position import sinusoids
from sampling.compiled.pixelcnn_kernels import PixelCNNWeights


class _Lanes:
    """Which output each lane of a product computes, by layer."""

    def __init__(self, config: PixelCNNConfig, parameters: int) -> None:
        p, channels = config.hidden_dim, config.channels
        self.p = p
        self.features = group_bounds(p, channels)
        self.hidden = group_bounds(config.out_hidden_dim, channels)
        self.gate = gate_lanes(0, p, p)
        self.group_gates = [gate_lanes(*bounds, p) for bounds in pairwise(self.features)]
        self.contexts = np.concatenate(self.group_gates)
        self.group_features = [consecutive_lanes(*bounds) for bounds in pairwise(self.features)]
        self.group_hidden = [consecutive_lanes(*bounds) for bounds in pairwise(self.hidden)]
        self.group_logits = [consecutive_lanes(c * parameters, (c + 1) * parameters)
                             for c in range(channels)]


class _Rows:
    """Packed matrices, one after the other."""

    def __init__(self) -> None:
        self.matrices: list[np.ndarray] = []
        self.size = 0

    def add(self, matrix: np.ndarray, lanes: np.ndarray) -> int:
        """Pack a matrix (out, inputs). Returns the row at which it begins."""
        begin = self.size
        self.matrices.append(pack_rows(matrix, lanes))
        self.size += len(self.matrices[-1])
        return begin

    def concatenated(self) -> np.ndarray:
        """All rows: (rows, TILE)."""
        return np.concatenate(self.matrices)


def pack_pixelcnn(model: PixelCNN, height: int, width: int,
                  vectors: torch.Tensor | None = None) -> PixelCNNWeights:
    """Pack the weights of a PixelCNN of float32 on the CPU.

    Args:
        height, width: of the images.
        vectors: (labels, width), scaled, for a network conditioned on vectors. The kernels know
            each of them as a label.
    """
    config, blocks, rows = model.config, model.blocks, _Rows()
    lanes = _Lanes(config, model.distribution.parameters)
    channels = range(config.channels)
    # The rows hold the matrices in the order of their use.
    vertical_at = [_pack_vertical(block, lanes, rows) for block in blocks]
    context_at = [_pack_context(block, lanes, rows) for block in blocks]
    left_at = [_pack_left(block, lanes, rows) for block in blocks]
    horizontal_at = np.array([[(_pack_here(block, c, config, lanes, rows),
                                _pack_out(block, c, lanes, rows))
                               for block in blocks] for c in channels])  # (C, L, 2)
    hidden_at = [_pack_pointwise(model.hidden, lanes.features, lanes.group_hidden, c, rows)
                 for c in channels]
    logits_at = [_pack_pointwise(model.logits, lanes.hidden, lanes.group_logits, c, rows)
                 for c in channels]
    return align_arrays(PixelCNNWeights(
        p=config.hidden_dim, blocks=len(blocks), levels=config.levels,
        mixtures=config.mixtures, features=round_up(config.hidden_dim, HALF),
        rows=rows.concatenated(),
        code_features=config.code_features,
        code_table=to_numpy(model.read_code(torch.arange(config.levels))).ravel(),
        vertical_at=np.array(vertical_at),
        first_bias=_first_bias(blocks[0], height, width, lanes),
        vertical_bias=np.concatenate([pack_lanes(block.vertical.bias, lanes.gate)
                                      for block in blocks]),
        vertical_label=_vertical_labels(blocks, vectors, lanes),
        context_at=np.array(context_at),
        context_bias=_context_biases(blocks, vectors, lanes),
        context_bounds=np.cumsum([0, *map(len, lanes.group_gates)]),
        feature_bounds=np.array(lanes.features),
        left_at=np.array(left_at),
        here_at=np.ascontiguousarray(horizontal_at[:, :, 0].T),
        out_at=np.ascontiguousarray(horizontal_at[:, :, 1].T),
        hidden_bounds=np.array(lanes.hidden), hidden_at=np.array(hidden_at),
        hidden_bias=_group_biases(model.hidden, lanes.group_hidden),
        logits_at=np.array(logits_at),
        logits_bias=_group_biases(model.logits, lanes.group_logits, -np.inf)))


# ------------------------------------------------------------------------------ matrices

def _pack_vertical(block: Block, lanes: _Lanes, rows: _Rows) -> int:
    """Pack one matrix (2p, columns · inputs) for each row of the vertical kernel."""
    kernel = to_numpy(block.vertical.weight)
    p = len(kernel) // 2
    if not block.first:
        kernel = np.pad(kernel, ((0, 0), (0, round_up(p, HALF) - p), (0, 0), (0, 0)))
    matrices = kernel.transpose(2, 0, 3, 1).reshape(block.rows, 2 * p, -1)
    return [rows.add(matrix, lanes.gate) for matrix in matrices][0]


def _pack_context(block: Block, lanes: _Lanes, rows: _Rows) -> int:
    """Pack the 1×1 convolution of the vertical features, with its inputs in the gate's tiles."""
    weight = to_numpy(block.vertical_to_horizontal.weight)[:, :, 0, 0]
    return rows.add(np.where(lanes.gate < 0, 0, weight[:, lanes.gate]), lanes.contexts)


def _pack_left(block: Block, lanes: _Lanes, rows: _Rows) -> int:
    """Pack the weights of the pixels to the left, for the gates of all channels."""
    kernel = to_numpy(block.left.weight)[:, :, 0]
    return rows.add(kernel.transpose(0, 2, 1).reshape(len(kernel), -1), lanes.contexts)


def _pack_here(block: Block, channel: int, config: PixelCNNConfig, lanes: _Lanes,
               rows: _Rows) -> int:
    """Pack the weights of what `channel` sees of its own pixel."""
    seen = channel * config.code_features if block.first else lanes.features[channel + 1]
    kernel = (np.zeros((2 * lanes.p, 0)) if block.here is None
              else to_numpy(block.here.weight)[:, :seen, 0, 0])
    return rows.add(kernel, lanes.group_gates[channel])


def _pack_out(block: Block, channel: int, lanes: _Lanes, rows: _Rows) -> int:
    """Pack the bias of `channel`'s group, then its weights of the gated features."""
    seen = lanes.features[channel + 1]
    matrix = to_numpy(block.out.weight)[:, :seen, 0, 0]
    bias = to_numpy(block.out.bias)
    return rows.add(np.concatenate((bias[:, None], matrix), axis=1), lanes.group_features[channel])


def _pack_pointwise(layer: nn.Conv2d, bounds: Sequence[int], groups: Sequence[np.ndarray],
                    channel: int, rows: _Rows) -> int:
    """Pack a 1×1 convolution for `channel`'s group of outputs, from the inputs up to its own group.

    bounds: where each group of the inputs begins. groups: the lanes of each group of outputs.
    """
    weight = to_numpy(layer.weight)[:, :bounds[channel + 1], 0, 0]
    return rows.add(weight, groups[channel])


# ------------------------------------------------------------------------------ biases

def _project(weight: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """V h for each vector h (width,): (vectors, 2p), the same to the last bit in any batch.

    One vector at a time, because a matrix product may add in an order that depends on its size.
    """
    return np.stack([np.multiply(weight, vector, dtype=np.float64).sum(1) for vector in vectors])


def _conditions(gate: GatedActivation, vectors: torch.Tensor | None, p: int) -> np.ndarray:
    """What each label or vector adds to a gate: (labels, 2p); one row of zeros without any."""
    if gate.condition is None:
        return np.zeros((1, 2 * p))
    weight = to_numpy(gate.condition.weight)
    return weight if vectors is None else _project(weight, to_numpy(vectors))


def _first_bias(first: Block, height: int, width: int, lanes: _Lanes) -> np.ndarray:
    """The first vertical bias: (2 features,), or with positions (H · W · 2 features,)."""
    bias, position = to_numpy(first.vertical.bias), first.position
    if position is not None:
        rows, columns = (
            _project(to_numpy(layer.weight), to_numpy(sinusoids(0, count, layer.weight)))
            for layer, count in ((position.of_row, height), (position.of_column, width)))
        bias = bias + (rows[:, None] + columns)
    return pack_lanes(bias, lanes.gate).ravel()


def _vertical_labels(blocks: Sequence[Block], vectors: torch.Tensor | None,
                     lanes: _Lanes) -> np.ndarray:
    """What the labels add to the vertical gates, of all blocks but the last: (labels · …,)."""
    gates = [block.vertical_gate for block in blocks if block.vertical_gate is not None]
    if not gates:
        return np.zeros(0, np.float32)
    return np.stack([pack_lanes(_conditions(gate, vectors, lanes.p), lanes.gate)
                     for gate in gates], axis=1).ravel()


def _context_biases(blocks: Sequence[Block], vectors: torch.Tensor | None,
                    lanes: _Lanes) -> np.ndarray:
    """The biases of the 1×1 convolutions into the horizontal gates, plus the labels' part."""
    return np.stack([
        pack_lanes(_conditions(block.horizontal_gate, vectors, lanes.p)
                   + to_numpy(block.vertical_to_horizontal.bias), lanes.contexts)
        for block in blocks], axis=1).ravel()


def _group_biases(layer: nn.Conv2d, groups: Sequence[np.ndarray], fill: float = 0) -> np.ndarray:
    """A layer's biases by group, each padded to the same length: (C · length,)."""
    biases = [pack_lanes(to_numpy(layer.bias), group, fill) for group in groups]
    longest = max(map(len, biases))
    return np.concatenate([np.pad(bias, (0, longest - len(bias))) for bias in biases])
