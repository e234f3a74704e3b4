"""A WaveNet's weights as the compiled sampler reads them, in the order in which it needs them."""

from typing import NamedTuple

import numpy as np

from models.kernels.products import (
    aligned,
    as_array,
    consecutive,
    gate_lanes,
    lanes_of,
    packed,
    rows_of,
)


class Weights(NamedTuple):
    """A WaveNet's weights as the kernel reads them.

    p residual and q skip channels, each layer's p gated features made in `gates` tiles. A stream's
    `sums` are its residual channels, then its skip connections so far.
    """

    p: int
    q: int
    levels: int
    dilations: np.ndarray  # (L,)
    embed_past: np.ndarray  # (levels · sums,), with the biases of all skip connections
    embed_now: np.ndarray  # (levels · sums,)
    past: np.ndarray  # rows: each layer's, of its input at t - d
    step: np.ndarray  # rows: each layer's of its input at t, then of its gated features
    constant: np.ndarray  # (labels · L · gates,): biases of the gates, with the label's embedding
    residual_bias: np.ndarray  # (L · sums,)
    output: np.ndarray  # rows: of the hidden layer, then of the logits
    hidden_bias: np.ndarray  # (hidden,)
    logits_bias: np.ndarray  # (logits,), -inf beyond the levels


def lay_out(model):
    """The weights of a WaveNet of float32 on the CPU, in the kernel's order: Weights."""
    config, layers = model.config, model.layers
    p, q = config.hidden_dim, config.out_hidden_dim
    gate, sums, skips = gate_lanes(0, p, p), consecutive(0, p + q), consecutive(0, q)
    logits = consecutive(0, config.levels)

    def of_layer(residual, skip):
        """A layer's residual and skip parameters, one after the other."""
        residual = np.zeros((p, *skip.shape[1:])) if residual is None else as_array(residual)
        return np.concatenate((residual, as_array(skip)))

    constant = [layer.now.bias if layer.gate.condition is None
                else layer.now.bias + layer.gate.condition.weight for layer in layers]
    constant = np.stack([as_array(one).reshape(-1, 2 * p) for one in constant], axis=1)
    residual_bias = np.stack([of_layer(layer.residual and layer.residual.bias,
                                       np.zeros(q)) for layer in layers])
    skip_bias = of_layer(None, sum(as_array(layer.skip.bias) for layer in layers))
    step = [rows for layer in layers for rows in (
        rows_of(layer.now.weight, gate),
        rows_of(of_layer(layer.residual and layer.residual.weight, layer.skip.weight), sums))]
    embed_past, embed_now = (
        np.concatenate((as_array(embedding.weight), np.zeros((config.levels, q))), axis=1)
        for embedding in (model.embed_past, model.embed_now))
    return aligned(Weights(
        p, q, config.levels, np.array(config.dilations, np.int64),
        lanes_of(embed_past + skip_bias, sums).ravel(), lanes_of(embed_now, sums).ravel(),
        np.concatenate([rows_of(layer.past.weight, gate) for layer in layers]),
        np.concatenate(step), lanes_of(constant, gate).ravel(),
        lanes_of(residual_bias, sums).ravel(),
        np.concatenate((rows_of(model.hidden.weight, skips), rows_of(model.logits.weight, logits))),
        lanes_of(model.hidden.bias, skips), lanes_of(model.logits.bias, logits, -np.inf)))


def in_16_bits(weights):
    """Weights whose matrices, which bfloat16 must be able to hold, are stored in 16 bits."""
    return aligned(weights._replace(past=packed(weights.past), step=packed(weights.step),
                                    output=packed(weights.output)))
