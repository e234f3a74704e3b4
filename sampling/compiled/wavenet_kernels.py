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
from models.kernels.products import accumulate, add_bias, copy_tiles, gate_tiles, relu
from models.kernels.vectors import HALF, TILE, add, load, load_half, store
from sampling.compiled.categorical import sample_categorical
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
    dilations: np.ndarray  # (L,)
    embed_past: np.ndarray  # (levels · sums,), plus the biases of all skip connections
    embed_now: np.ndarray  # (levels · sums,)
    past: np.ndarray  # rows: per layer, for its input at t - d
    step: np.ndarray  # rows: per layer, for its input at t, then for its gated features
    constant: np.ndarray  # (labels · L · gates,): the gates' biases plus the label's embedding
    residual_bias: np.ndarray  # (L · sums,)
    output: np.ndarray  # rows: the hidden layer, then the logits
    hidden_bias: np.ndarray  # (hidden,)
    logits_bias: np.ndarray  # (logits,), -inf beyond the levels


class WaveNetState(NamedTuple):
    """The past of some streams, and the buffers of a step.

    Widths are padded: features to HALF, gates = 2 · features, sums, hidden and logits to TILE.
    """

    label: np.ndarray  # (streams,)
    code: np.ndarray  # (streams, 2): the codes at t - 1 and t
    rings: np.ndarray  # per layer (d, streams, features): ring buffers of its last d inputs
    gate_sums: np.ndarray  # (L, lookahead, streams, gates): partial sums of the gates' inputs
    sums: np.ndarray  # (streams, sums): residual channels, then sums of the skip connections
    gated: np.ndarray  # (streams, features)
    hidden: np.ndarray  # (2, hidden): its inputs, then its outputs
    logits: np.ndarray  # (streams, logits)
    probs: np.ndarray  # (logits,)
    lookahead: int  # inputs at t - d, t + 1 - d, … used per reading of their weights; power of 2


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
        gate_sums=aligned_zeros(layers * lookahead * streams * 2 * features),
        sums=aligned_zeros(streams * sums), gated=aligned_zeros(streams * features),
        hidden=aligned_zeros(2 * hidden), logits=aligned_zeros(streams * logits),
        probs=aligned_zeros(logits), lookahead=lookahead)


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
    tiles_per_gate, sum_tiles, times = 2 * features // TILE, sums // TILE, codes.size - 1
    streams = state.label.size
    inputs = np.empty(PREFILL_CHUNK * 2 * features, np.float32)
    gated = np.empty(PREFILL_CHUNK * features, np.float32)
    for t in range(times):
        embed(weights, codes[max(t - 1, 0)], codes[t], columns, t * sums, sum_tiles)
    ring = 0
    for layer in range(layers):
        d = weights.dilations[layer]
        for m in range(1, d + 1):
            write_ring(columns, max(times - m, 0) * sums, state.rings,
                       (ring + (d - m) * streams + stream) * features, features)
        ring += d * streams
        constant = (state.label[stream] * layers + layer) * 2 * features
        past, now = layer * tiles_per_gate * p, layer * (tiles_per_gate + sum_tiles) * p
        # Backwards in time, because a chunk overwrites inputs that only later times need.
        for first in range((times - 1) // PREFILL_CHUNK * PREFILL_CHUNK, -1, -PREFILL_CHUNK):
            count = min(PREFILL_CHUNK, times - first)
            for c in range(count):
                copy_tiles(weights.constant, constant, inputs, c * 2 * features, tiles_per_gate)
                add_frames(local, stream, first + c, layer, layers, inputs, c * 2 * features,
                           tiles_per_gate)
            silent = min(max(d - first, 0), count)  # columns whose t - d is silence
            accumulate(weights.past, past, p, columns, 0, 0,
                       inputs, 0, 2 * features, tiles_per_gate, silent)
            accumulate(weights.past, past, p, columns, (first + silent - d) * sums, sums,
                       inputs, silent * 2 * features, 2 * features, tiles_per_gate, count - silent)
            accumulate(weights.step, now, p, columns, first * sums, sums,
                       inputs, 0, 2 * features, tiles_per_gate, count)
            gate_tiles(inputs, 0, 2 * features, gated, 0, features, tiles_per_gate, count)
            add_bias(columns, first * sums, sums, weights.residual_bias, layer * sums, sum_tiles,
                     count)
            accumulate(weights.step, now + tiles_per_gate * p, p, gated, 0, features,
                       columns, first * sums, sums, sum_tiles, count)
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
            code = sample_categorical(state.logits, s * size, weights.levels, uniforms[s, k],
                                      temperature, top_p, state.probs)
            codes[s, k] = code
            state.code[s, 0] = state.code[s, 1]
            state.code[s, 1] = code


@inlined
def advance(weights, state, t, local):
    """Compute the logits of each stream's next code."""
    p, layers, streams = weights.p, weights.dilations.size, state.label.size
    features, sums = round_up(p, HALF), round_up(p + weights.q)
    tiles_per_gate, sum_tiles = 2 * features // TILE, sums // TILE
    for s in range(streams):
        embed(weights, state.code[s, 0], state.code[s, 1], state.sums, s * sums, sum_tiles)
    past = now = ring = 0  # where the layer's weights and its ring buffer begin
    for layer in range(layers):
        d = weights.dilations[layer]
        lookahead, slot = min(d, state.lookahead), t & (d - 1)
        step = t & (lookahead - 1)  # steps since the weights of t - d were last read
        gates = layer * state.lookahead * streams * 2 * features
        if step == 0:
            for c in range(lookahead * streams):
                constant = (state.label[c % streams] * layers + layer) * 2 * features
                copy_tiles(weights.constant, constant, state.gate_sums, gates + c * 2 * features,
                           tiles_per_gate)
                add_frames(local, c % streams, t + c // streams, layer, layers,
                           state.gate_sums, gates + c * 2 * features, tiles_per_gate)
            accumulate(weights.past, past, p, state.rings, (ring + slot * streams) * features,
                       features, state.gate_sums, gates, 2 * features, tiles_per_gate,
                       lookahead * streams)
        for s in range(streams):
            write_ring(state.sums, s * sums, state.rings, (ring + slot * streams + s) * features,
                       features)
        gates += step * streams * 2 * features
        accumulate(weights.step, now, p, state.sums, 0, sums,
                   state.gate_sums, gates, 2 * features, tiles_per_gate, streams)
        gate_tiles(state.gate_sums, gates, 2 * features, state.gated, 0, features, tiles_per_gate,
                   streams)
        add_bias(state.sums, 0, sums, weights.residual_bias, layer * sums, sum_tiles, streams)
        accumulate(weights.step, now + tiles_per_gate * p, p, state.gated, 0, features,
                   state.sums, 0, sums, sum_tiles, streams)
        past += tiles_per_gate * p
        now += (tiles_per_gate + sum_tiles) * p
        ring += d * streams
    for s in range(streams):
        output(weights, state, s, s * sums + p)


@inlined
def embed(weights, past, now, outputs, o, tiles):
    """The first causal convolution plus the skip connections' biases: a column of sums."""
    for i in range(0, tiles * TILE, TILE):
        store(outputs, o + i, add(load(weights.embed_past, past * tiles * TILE + i),
                                  load(weights.embed_now, now * tiles * TILE + i)))


@inlined
def write_ring(sums, s, rings, r, features):
    """Copy a layer's input to its ring buffer. Nothing reads the copy beyond p channels."""
    for i in range(0, features, HALF):
        store(rings, r + i, load_half(sums, s + i))


@inlined
def output(weights, state, stream, skips):
    """The logits of one stream, from the sum of its skip connections."""
    hidden, logits, q = weights.hidden_bias.size, weights.logits_bias.size, weights.q
    relu(state.sums, skips, state.hidden, 0, q)
    copy_tiles(weights.hidden_bias, 0, state.hidden, hidden, hidden // TILE)
    accumulate(weights.output, 0, q, state.hidden, 0, 0, state.hidden, hidden, 0, hidden // TILE, 1)
    relu(state.hidden, hidden, state.hidden, hidden, q)
    copy_tiles(weights.logits_bias, 0, state.logits, stream * logits, logits // TILE)
    accumulate(weights.output, hidden // TILE * q, q, state.hidden, hidden, 0,
               state.logits, stream * logits, 0, logits // TILE, 1)
