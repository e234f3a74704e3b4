"""WaveNet sampling in compiled loops: one column of the network per sample, in one function.

For one sound, every sample needs every weight: at 32 channels and 5×10 layers 1.2 MB, more than a
core's own cache holds. Reading the weights bounds the speed. So

- weights are stored in the order of their use;
- a layer of dilation d already knows its inputs at t - d, t + 1 - d, …, t - 1. The kernel uses up
  to MAX_LOOKAHEAD of them per reading of their weights;
- everything else that a sample needs, some kilobytes, stays in the core's cache.

For many sounds, each layer's weights are read once for all streams of a thread.
"""

from typing import NamedTuple

import numpy as np

from models.kernels.compiling import KernelCache, inlined
from models.kernels.layout import aligned_zeros, round_up
from models.kernels.products import copy_tiles, gate_tiles, multiply, relu_tiles
from models.kernels.vectors import (
    HALF,
    TILE,
    add,
    add_scaled,
    load,
    load_half,
    pointer,
    shift,
    store,
)
from sampling.compiled.distributions import SamplingBuffers, sample_code, sampling_buffers
from sampling.compiled.local_conditioning import add_frames

cache = KernelCache(__file__)

# Streams × inputs per reading of their weights. At 8, reading the weights for t - d costs an eighth
# per sample, and the partial sums stay small.
MAX_LOOKAHEAD = 8
PREFILL_CHUNK = 64  # times computed per reading of a layer's weights in `prefill`


class WaveNetWeights(NamedTuple):
    """A WaveNet's weights as its kernels read them.

    The network has p residual and q skip channels. `gates` is the padded width of a gate's inputs.
    `sums` is the padded width of a stream's column: p residual channels, then the q sums of the
    skip connections so far. "rows" are as in `models.kernels.layout`.
    """

    p: int
    q: int
    levels: int
    mixtures: int  # components of a mixture of logistics, 0 for a softmax
    dilations: np.ndarray  # (L,)
    # What the first convolution makes of a code at t - 1, plus the biases of all skip connections,
    # and of a code at t: rows (…, sums). A row is for a code, or for one of the numbers of a code.
    embed_past: np.ndarray
    embed_now: np.ndarray
    code_features: int  # the numbers that the network reads for a code, 0 with embeddings
    code_table: np.ndarray  # (levels · code_features,): these numbers, first a code's position
    prediction: np.ndarray  # (2,): of the next position, from those at t - 1 and t; (0,) without
    past: np.ndarray  # rows: per layer, for its input at t - d
    step: np.ndarray  # rows: per layer, for its input at t, then for its gated features
    constant: np.ndarray  # (labels · L · gates,): the gates' biases plus the label's embedding
    residual_bias: np.ndarray  # (L · features,)
    output: np.ndarray  # rows: the hidden layer, then the logits
    hidden_bias: np.ndarray  # (hidden,)
    logits_bias: np.ndarray  # (logits,), -inf beyond a code's parameters


class WaveNetState(NamedTuple):
    """The past of some streams, and the buffers of a step.

    Widths are padded: features to HALF, gates = 2 · features, sums, hidden and logits to TILE.
    """

    label: np.ndarray  # (streams,)
    code: np.ndarray  # (streams, 2): the codes at t - 1 and t
    rings: np.ndarray  # per layer (d, streams, features): ring buffers of its last d inputs
    # (L, lookahead, streams, gates): partial sums of the gates' inputs. Without lookahead one
    # layer's, because the next layer can overwrite them.
    gate_sums: np.ndarray
    sums: np.ndarray  # (streams, sums): residual channels, then sums of the skip connections
    gated: np.ndarray  # (streams, features)
    hidden: np.ndarray  # (2, streams, hidden): its inputs, then its outputs
    logits: np.ndarray  # (streams, logits)
    buffers: SamplingBuffers
    lookahead: int  # inputs at t - d, t + 1 - d, … used per reading of their weights; power of 2
    one_label: bool  # all streams have the same label


def init_state(weights: WaveNetWeights, label: np.ndarray) -> WaveNetState:
    """The state of streams with the labels (streams,), before `prefill`."""
    streams, layers = len(label), len(weights.dilations)
    features, sums = round_up(weights.p, HALF), round_up(weights.p + weights.q)
    hidden, logits = len(weights.hidden_bias), len(weights.logits_bias)
    lookahead = 1
    while 2 * lookahead * streams <= MAX_LOOKAHEAD:
        lookahead *= 2
    return WaveNetState(
        label=label, code=np.zeros((streams, 2), np.int64),
        rings=aligned_zeros(weights.dilations.sum() * streams * features),
        gate_sums=aligned_zeros((layers if lookahead > 1 else 1) * lookahead * streams * 2
                                * features),
        sums=aligned_zeros(streams * sums + TILE), gated=aligned_zeros(streams * features),
        hidden=aligned_zeros(2 * streams * hidden), logits=aligned_zeros(streams * logits),
        buffers=sampling_buffers(logits, weights.mixtures), lookahead=lookahead,
        one_label=bool((label == label[0]).all()))


@cache.kernel
def prefill(weights, state, stream, codes, columns, local):
    """Fill a stream's ring buffers as if it had produced `codes` (P,).

    Computes layer by layer, all times at once, like a convolution. Silence precedes the codes, and
    the first two codes are silence too. No frame conditions the column that they make, and since
    nothing changes before it, it stands for the whole past.

    columns: a buffer of (P - 1) · sums floats. local: a ProjectedFrames, where t is the number of a
    column.
    """
    p, layers = weights.p, weights.dilations.size
    features, sums = round_up(p, HALF), round_up(p + weights.q)
    gates, times, streams = 2 * features, codes.size - 1, state.label.size
    tiles, sum_tiles, row = gates // TILE, sums // TILE, row_size(weights)
    inputs = np.empty(PREFILL_CHUNK * gates, np.float32)
    gated = np.empty(PREFILL_CHUNK * features, np.float32)
    for t in range(times):
        embed(weights, codes[max(t - 1, 0)], codes[t], columns, t * sums, sum_tiles)
    ring = 0
    for layer in range(layers):
        d = weights.dilations[layer]
        for m in range(1, d + 1):
            copy_halves(columns, max(times - m, 0) * sums, state.rings,
                        (ring + (d - m) * streams + stream) * features, features)
        ring += d * streams
        past = pointer(weights.past, layer * tiles * p * row)
        now = pointer(weights.step, layer * (tiles + sum_tiles) * p * row)
        output = pointer(weights.step, (layer * (tiles + sum_tiles) + tiles) * p * row)
        # Backwards in time, because a chunk overwrites inputs that only later times need.
        for first in range((times - 1) // PREFILL_CHUNK * PREFILL_CHUNK, -1, -PREFILL_CHUNK):
            count = min(PREFILL_CHUNK, times - first)
            for c in range(count):
                gate_constants(weights, state, stream, first + c, layer, local,
                               inputs, c * gates, tiles)
            silent = min(max(d - first, 0), count)  # columns whose t - d is silence
            multiply(pointer(inputs, 0), gates, past, p * row, row, pointer(columns, 0), 0, 1, p,
                     pointer(inputs, 0), gates, tiles, silent)
            multiply(pointer(inputs, silent * gates), gates, past, p * row, row,
                     pointer(columns, (first + silent - d) * sums), sums, 1, p,
                     pointer(inputs, silent * gates), gates, tiles, count - silent)
            multiply(pointer(inputs, 0), gates, now, p * row, row,
                     pointer(columns, first * sums), sums, 1, p,
                     pointer(inputs, 0), gates, tiles, count)
            gate_tiles(inputs, 0, gates, gated, 0, features, tiles, count)
            for c in range(first, first + count):
                add_halves(columns, c * sums, weights.residual_bias, layer * features, features)
            multiply(pointer(columns, first * sums), sums, output, p * row, row,
                     pointer(gated, 0), features, 1, p,
                     pointer(columns, first * sums), sums, sum_tiles, count)
    state.code[stream, 0] = codes[max(times - 1, 0)]
    state.code[stream, 1] = codes[times]


@cache.kernel
def draw(weights, state, t, uniforms, temperature, top_p, codes, local):
    """Draw `codes` (streams, n) from uniform random numbers (streams, n); t codes precede them."""
    streams, n = uniforms.shape
    size = weights.logits_bias.size
    for k in range(n):
        advance(weights, state, t + k, local)
        for s in range(streams):
            code = sample_code(state.logits, s * size, weights.levels, weights.mixtures,
                               uniforms[s, k], temperature, top_p, state.buffers)
            codes[s, k] = code
            state.code[s, 0] = state.code[s, 1]
            state.code[s, 1] = code


@inlined
def advance(weights, state, t, local):
    """Compute the logits of each stream's next code."""
    p, layers, streams = weights.p, weights.dilations.size, state.label.size
    features, sums, row = round_up(p, HALF), round_up(p + weights.q), row_size(weights)
    gates, sum_tiles = 2 * features, sums // TILE
    tiles = gates // TILE
    for s in range(streams):
        embed(weights, state.code[s, 0], state.code[s, 1], state.sums, s * sums, sum_tiles)
    past, step = pointer(weights.past, 0), pointer(weights.step, 0)
    ring = 0  # where the layer's ring buffer begins
    for layer in range(layers):
        d = weights.dilations[layer]
        lookahead, slot = min(d, state.lookahead), t & (d - 1)
        slot_at = (ring + slot * streams) * features
        ahead = t & (lookahead - 1)  # steps since the weights of t - d were last read
        gates_at = layer * state.lookahead * streams * gates if state.lookahead > 1 else 0
        if ahead == 0:
            constant, constant_step = pointer(state.gate_sums, gates_at), gates
            if state.one_label and local.frames == 0:
                constant_step = 0
                constant = pointer(weights.constant, (state.label[0] * layers + layer) * gates)
            else:
                for c in range(lookahead * streams):
                    gate_constants(weights, state, c % streams, t + c // streams, layer, local,
                                   state.gate_sums, gates_at + c * gates, tiles)
            multiply(constant, constant_step, past, p * row, row,
                     pointer(state.rings, slot_at), features, 1, p,
                     pointer(state.gate_sums, gates_at), gates, tiles, lookahead * streams)
        for s in range(streams):
            copy_halves(state.sums, s * sums, state.rings, slot_at + s * features, features)
            add_halves(state.sums, s * sums, weights.residual_bias, layer * features, features)
        gates_at += ahead * streams * gates
        multiply(pointer(state.gate_sums, gates_at), gates, step, p * row, row,
                 pointer(state.rings, slot_at), features, 1, p,
                 pointer(state.gate_sums, gates_at), gates, tiles, streams)
        gate_tiles(state.gate_sums, gates_at, gates, state.gated, 0, features, tiles, streams)
        multiply(pointer(state.sums, 0), sums, shift(step, tiles * p * row), p * row, row,
                 pointer(state.gated, 0), features, 1, p,
                 pointer(state.sums, 0), sums, sum_tiles, streams)
        past = shift(past, tiles * p * row)
        step = shift(step, (tiles + sum_tiles) * p * row)
        ring += d * streams
    output(weights, state)


@inlined
def row_size(weights):
    """The items of a row of weights: TILE floats, or HALF pairs of 16 bits."""
    return weights.step.shape[1]


@inlined
def gate_constants(weights, state, stream, t, layer, local, outputs, o, tiles):
    """Write what a gate's inputs begin with at time t: the bias, the label's part, the frames'."""
    layers = weights.dilations.size
    copy_tiles(weights.constant, (state.label[stream] * layers + layer) * tiles * TILE,
               outputs, o, tiles)
    add_frames(local, stream, t, layer, layers, outputs, o, tiles)


@inlined
def embed(weights, past, now, outputs, o, tiles):
    """The first causal convolution plus the skip connections' biases: a column of sums."""
    numbers, size = weights.code_features, tiles * TILE
    for i in range(0, size, TILE):
        if numbers == 0:
            total = add(load(weights.embed_past, past * size + i),
                        load(weights.embed_now, now * size + i))
        else:  # after the numbers' rows comes one of biases
            total = load(weights.embed_past, numbers * size + i)
            for n in range(numbers):
                total = add_scaled(total, load(weights.embed_past, n * size + i),
                                   weights.code_table, past * numbers + n)
                total = add_scaled(total, load(weights.embed_now, n * size + i),
                                   weights.code_table, now * numbers + n)
        store(outputs, o + i, total)


@inlined
def copy_halves(source, s, outputs, o, size):
    """Copy `size` floats, a multiple of HALF. For rings: nothing reads them beyond p channels."""
    for i in range(0, size, HALF):
        store(outputs, o + i, load_half(source, s + i))


@inlined
def add_halves(outputs, o, addend, a, size):
    """Add `size` floats, a multiple of HALF."""
    for i in range(0, size, HALF):
        store(outputs, o + i, add(load_half(outputs, o + i), load_half(addend, a + i)))


@inlined
def output(weights, state):
    """The logits of each stream, from the sums of its skip connections."""
    streams, p, q, row = state.label.size, weights.p, weights.q, row_size(weights)
    hidden, logits, sums = (weights.hidden_bias.size, weights.logits_bias.size,
                            round_up(p + weights.q))
    tiles, second = hidden // TILE, streams * hidden  # second: where the hidden layer's outputs are
    relu_tiles(state.sums, p, sums, state.hidden, 0, hidden, tiles, streams)
    multiply(pointer(weights.hidden_bias, 0), 0, pointer(weights.output, 0), q * row, row,
             pointer(state.hidden, 0), hidden, 1, q,
             pointer(state.hidden, second), hidden, tiles, streams)
    relu_tiles(state.hidden, second, hidden, state.hidden, second, hidden, tiles, streams)
    multiply(pointer(weights.logits_bias, 0), 0, pointer(weights.output, tiles * q * row),
             q * row, row, pointer(state.hidden, second), hidden, 1, q,
             pointer(state.logits, 0), logits, logits // TILE, streams)
    if weights.prediction.size:
        for s in range(streams):
            predicted = (weights.prediction[0] * position(weights, state.code[s, 0])
                         + weights.prediction[1] * position(weights, state.code[s, 1]))
            for k in range(weights.mixtures, 2 * weights.mixtures):
                state.logits[s * logits + k] += predicted


@inlined
def position(weights, code):
    """The position of a code in [-1, 1]."""
    return weights.code_table[code * weights.code_features]
