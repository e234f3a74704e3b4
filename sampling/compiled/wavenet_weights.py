"""A WaveNet's weights in the order in which the compiled sampler reads them."""

import numpy as np
import torch

from models.code_numbers import code_numbers
from models.kernels.layout import (
    align_arrays,
    consecutive_lanes,
    gate_lanes,
    pack_bf16,
    pack_lanes,
    pack_rows,
    round_up,
    to_numpy,
)
from models.kernels.vectors import HALF
from models.wavenet import ResidualLayer, WaveNet
from sampling.compiled.wavenet_kernels import WaveNetWeights


def pack_wavenet(model: WaveNet) -> WaveNetWeights:
    """Pack the weights of a WaveNet of float32 on the CPU."""
    config, layers = model.config, model.layers
    p, q = config.hidden_dim, config.out_hidden_dim
    gate, sums = gate_lanes(0, p, p), consecutive_lanes(0, p + q)
    skips = consecutive_lanes(0, q)
    logits = consecutive_lanes(0, model.distribution.parameters)

    past = [pack_rows(layer.past.weight, gate) for layer in layers]
    step = []
    for layer in layers:
        step.append(pack_rows(layer.now.weight, gate))
        residual = np.zeros((p, p)) if layer.residual is None else layer.residual.weight
        step.append(pack_rows(_concatenate(residual, layer.skip.weight), sums))
    constant = np.stack([_gate_constant(layer) for layer in layers], axis=1)
    residual_bias = np.stack([
        np.zeros(p) if layer.residual is None else to_numpy(layer.residual.bias)
        for layer in layers])
    embed_past, embed_now, code_table = _first_convolution(model)
    output = pack_rows(model.hidden.weight, skips), pack_rows(model.logits.weight, logits)

    return align_arrays(WaveNetWeights(
        p=p, q=q, levels=config.levels, mixtures=config.mixtures,
        dilations=np.array(config.dilations, np.int64),
        embed_past=pack_lanes(embed_past, sums).ravel(),
        embed_now=pack_lanes(embed_now, sums).ravel(),
        code_features=code_table.shape[1], code_table=code_table.ravel(),
        prediction=(to_numpy(model.prediction) if config.prediction
                    else np.zeros(0, np.float32)),
        past=np.concatenate(past),
        step=np.concatenate(step),
        constant=pack_lanes(constant, gate).ravel(),
        residual_bias=np.pad(residual_bias, ((0, 0), (0, round_up(p, HALF) - p))).astype(
            np.float32).ravel(),
        output=np.concatenate(output),
        hidden_bias=pack_lanes(model.hidden.bias, skips),
        logits_bias=pack_lanes(model.logits.bias, logits, -np.inf)))


def to_bf16(weights: WaveNetWeights) -> WaveNetWeights:
    """Store the matrices in 16 bits per weight. bfloat16 must represent them exactly."""
    return align_arrays(weights._replace(past=pack_bf16(weights.past), step=pack_bf16(weights.step),
                                         output=pack_bf16(weights.output)))


def _first_convolution(model: WaveNet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows `embed_past` and `embed_now` (…, p + q), and `code_table` (levels, numbers)."""
    config = model.config
    p, q = config.hidden_dim, config.out_hidden_dim
    skip_bias = sum((to_numpy(layer.skip.bias) for layer in model.layers), np.zeros(q, np.float32))
    if config.reads_numbers:
        codes = torch.arange(config.levels)
        table = to_numpy(code_numbers(codes, config.levels, torch.float32))
        past, now = to_numpy(model.read_past.weight).T, to_numpy(model.read_now.weight).T
        bias = _concatenate(model.read_now.bias, skip_bias)
        past = np.concatenate((np.pad(past, ((0, 0), (0, q))), bias[None]))
        return past, np.pad(now, ((0, 0), (0, q))), table
    past, now = (np.concatenate((to_numpy(embedding.weight), np.zeros((config.levels, q))), axis=1)
                 for embedding in (model.embed_past, model.embed_now))
    return (past + _concatenate(np.zeros(p), skip_bias), now,
            np.zeros((config.levels, 0), np.float32))


def _gate_constant(layer: ResidualLayer) -> np.ndarray:
    """The bias of a layer's gate plus each label's embedding: (labels or 1, 2p)."""
    constant = to_numpy(layer.now.bias)
    if layer.gate.condition is not None:
        constant = constant + to_numpy(layer.gate.condition.weight)
    return constant.reshape(-1, 2 * layer.past.in_features)


def _concatenate(residual: torch.Tensor | np.ndarray,
                 skip: torch.Tensor | np.ndarray) -> np.ndarray:
    """A layer's residual parameters (p, …), then its skip parameters (q, …)."""
    return np.concatenate((to_numpy(residual), to_numpy(skip)))
