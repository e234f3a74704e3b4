"""WaveNet's samples on the CPU, compiled: one column of the network a sample, in one function.

For one sound every weight is read for every sample: at 32 channels and 5×10 layers 1.2 MB, more
than fits the cache next to a core. How fast they are read is how fast sound is made. So

- weights lie in the order in which they are needed;
- a layer of dilation d needs the weights of its input at t - d not at every t: d such inputs are
  already there, and up to AHEAD of them are used at one reading;
- all else that a sample needs, some kilobytes, stays in the cache of the core.

For many sounds each layer's weights are read once for all of a thread's; sounds are shared out
between threads, which never wait for one another within a block of samples.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from datasets.quantization import silence
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
from models.kernels.vectors import HALF, TILE, add, load, load_half, store
from sampling.compiled.local_conditioning import Projection, mix, nothing
from sampling.compiled.wavenet_weights import in_16_bits, lay_out

cache = KernelCache(__file__)

AHEAD = 8  # inputs at t - d, t + 1 - d, … that are used at one reading of their weights


class State(NamedTuple):
    """What is known of the past of some streams, and the space that a step works in."""

    label: np.ndarray  # (streams,)
    code: np.ndarray  # (streams, 2): those at t - 1 and t
    rings: np.ndarray  # (d, streams, features) of each layer in turn: its last d inputs
    ahead: np.ndarray  # (L, looks, streams, gates): sums of the gates' inputs
    sums: np.ndarray  # (streams, sums)
    gated: np.ndarray  # (streams, features)
    hidden: np.ndarray  # (2, hidden)
    logits: np.ndarray  # (streams, logits)
    odds: np.ndarray  # (logits,)
    looks: int  # inputs at t - d, t + 1 - d, … used at one reading: a power of 2


def begin(weights, label):
    """The space for streams of the given labels (streams,): a State."""
    streams, layers = len(label), len(weights.dilations)
    features, sums = padded(weights.p, HALF), padded(weights.p + weights.q)
    hidden, logits = len(weights.hidden_bias), len(weights.logits_bias)
    looks = 1
    while 2 * looks * streams <= AHEAD:
        looks *= 2
    sizes = (
        weights.dilations.sum() * streams * features, layers * looks * streams * 2 * features,
        streams * sums, streams * features, 2 * hidden, streams * logits, logits)
    return State(label, np.zeros((streams, 2), np.int64), *map(space, sizes), looks)


@cache.kernel
def remember(weights, state, stream, codes, columns, local):
    """Bring a stream to where `codes` (P,) have been heard, the last of which is yet to be told.

    The convolutional form: a layer after the other, of all times at once. Before the codes there
    is silence, of which the first two codes of `codes` are some; the column that is made of them no
    frame conditions and, since nothing changes, it stands for all. columns: space for
    (P - 1) · sums floats. local: t is the number of a column.
    """
    p, layers = weights.p, weights.dilations.size
    features, sums = padded(p, HALF), padded(p + weights.q)
    gate_tiles, sum_tiles, times = 2 * features // TILE, sums // TILE, codes.size - 1
    streams, block = state.label.size, 64
    inputs = np.empty(block * 2 * features, np.float32)
    gated = np.empty(block * features, np.float32)
    for t in range(times):
        embed(weights, codes[max(t - 1, 0)], codes[t], columns, t * sums, sum_tiles)
    ring = 0
    for layer in range(layers):
        d = weights.dilations[layer]
        for m in range(1, d + 1):
            keep(columns, max(times - m, 0) * sums, state.rings,
                 (ring + (d - m) * streams + stream) * features, features)
        ring += d * streams
        constant = (state.label[stream] * layers + layer) * 2 * features
        past, now = layer * gate_tiles * p, layer * (gate_tiles + sum_tiles) * p
        # From the last block to the first: those before need the inputs, which are overwritten.
        for first in range((times - 1) // block * block, -1, -block):
            count = min(block, times - first)
            for c in range(count):
                copy(weights.constant, constant, inputs, c * 2 * features, gate_tiles)
                mix(local, stream, first + c, layer, layers, inputs, c * 2 * features, gate_tiles)
            before = min(max(d - first, 0), count)  # columns whose t - d is silence
            accumulate(weights.past, past, p, columns, 0, 0,
                       inputs, 0, 2 * features, gate_tiles, before)
            accumulate(weights.past, past, p, columns, (first + before - d) * sums, sums,
                       inputs, before * 2 * features, 2 * features, gate_tiles, count - before)
            accumulate(weights.step, now, p, columns, first * sums, sums,
                       inputs, 0, 2 * features, gate_tiles, count)
            gates(inputs, 0, 2 * features, gated, 0, features, gate_tiles, count)
            add_to(columns, first * sums, sums, weights.residual_bias, layer * sums, sum_tiles,
                   count)
            accumulate(weights.step, now + gate_tiles * p, p, gated, 0, features,
                       columns, first * sums, sums, sum_tiles, count)
    state.code[stream, 0] = codes[max(times - 1, 0)]
    state.code[stream, 1] = codes[times]


@cache.kernel
def draw(weights, state, t, uniforms, temperature, top_p, codes, local):
    """Draw `codes` (streams, n), given random numbers (streams, n); t: how many were before."""
    streams, n = uniforms.shape
    size = weights.logits_bias.size
    for k in range(n):
        advance(weights, state, t + k, local)
        for s in range(streams):
            code = pick(state.logits, s * size, weights.levels, uniforms[s, k], temperature, top_p,
                        state.odds)
            codes[s, k] = code
            state.code[s, 0] = state.code[s, 1]
            state.code[s, 1] = code


@inlined
def advance(weights, state, t, local):
    """The logits of each stream's next code."""
    p, layers, streams = weights.p, weights.dilations.size, state.label.size
    features, sums = padded(p, HALF), padded(p + weights.q)
    gate_tiles, sum_tiles = 2 * features // TILE, sums // TILE
    for s in range(streams):
        embed(weights, state.code[s, 0], state.code[s, 1], state.sums, s * sums, sum_tiles)
    past = now = ring = 0  # where the layer's weights and its ring begin
    for layer in range(layers):
        d = weights.dilations[layer]
        looks, slot = min(d, state.looks), t & (d - 1)
        look = t & (looks - 1)
        ahead = layer * state.looks * streams * 2 * features
        if look == 0:
            for c in range(looks * streams):
                constant = (state.label[c % streams] * layers + layer) * 2 * features
                copy(weights.constant, constant, state.ahead, ahead + c * 2 * features, gate_tiles)
                mix(local, c % streams, t + c // streams, layer, layers,
                    state.ahead, ahead + c * 2 * features, gate_tiles)
            accumulate(weights.past, past, p, state.rings, (ring + slot * streams) * features,
                       features, state.ahead, ahead, 2 * features, gate_tiles, looks * streams)
        for s in range(streams):
            keep(state.sums, s * sums, state.rings, (ring + slot * streams + s) * features,
                 features)
        ahead += look * streams * 2 * features
        accumulate(weights.step, now, p, state.sums, 0, sums,
                   state.ahead, ahead, 2 * features, gate_tiles, streams)
        gates(state.ahead, ahead, 2 * features, state.gated, 0, features, gate_tiles, streams)
        add_to(state.sums, 0, sums, weights.residual_bias, layer * sums, sum_tiles, streams)
        accumulate(weights.step, now + gate_tiles * p, p, state.gated, 0, features,
                   state.sums, 0, sums, sum_tiles, streams)
        past += gate_tiles * p
        now += (gate_tiles + sum_tiles) * p
        ring += d * streams
    for s in range(streams):
        output(weights, state, s, s * sums + p)


@inlined
def embed(weights, past, now, outputs, o, tiles):
    """The first causal convolution, and the skip connections' biases: a column of sums."""
    for i in range(0, tiles * TILE, TILE):
        store(outputs, o + i, add(load(weights.embed_past, past * tiles * TILE + i),
                                  load(weights.embed_now, now * tiles * TILE + i)))


@inlined
def keep(sums, s, rings, r, features):
    """Copy a layer's input to a ring. Beyond its p channels there is what nobody reads."""
    for i in range(0, features, HALF):
        store(rings, r + i, load_half(sums, s + i))


@inlined
def output(weights, state, stream, skips):
    """The logits of one stream, from the sum of its skip connections."""
    hidden, logits, q = weights.hidden_bias.size, weights.logits_bias.size, weights.q
    rectify(state.sums, skips, state.hidden, 0, q)
    copy(weights.hidden_bias, 0, state.hidden, hidden, hidden // TILE)
    accumulate(weights.output, 0, q, state.hidden, 0, 0, state.hidden, hidden, 0, hidden // TILE, 1)
    rectify(state.hidden, hidden, state.hidden, hidden, q)
    copy(weights.logits_bias, 0, state.logits, stream * logits, logits // TILE)
    accumulate(weights.output, hidden // TILE * q, q, state.hidden, hidden, 0,
               state.logits, stream * logits, 0, logits // TILE, 1)


class Compiled:
    """A sampler of `sampling.wavenet.sample`, for a network in single precision on the CPU.

    Streams are shared out between as many threads as torch is set to. Each code costs its stream
    the same computation, to the last bit, whatever is drawn beside it.
    """

    def __init__(self, model, label, codes, precision, local=None):
        """codes: (B, P), P from 1 up, before which there is silence. local: a Conditioning."""
        self.weights = lay_out(model)
        if precision == "bf16":
            self.weights = in_16_bits(self.weights)
        self.first = local.first + codes.shape[1] if local else 0  # sample that is drawn first
        codes = F.pad(codes.long(), (2, 0), value=silence(model.config.levels)).numpy()
        label = checked(label, codes, model.config)
        self.time, self.shares = 0, Shares(len(codes))
        self.projection = Projection(local, self.shares.parts) if local else None
        self.states = [begin(self.weights, label[part]) for part in self.shares.parts]
        cache.prepare("WaveNet" if precision == "fp32" else f"WaveNet {precision}", self._load)
        times = codes.shape[1] - 1
        self._each(self._remember, self.first - times, times, codes)

    def draw(self, uniforms, temperature, top_p):
        """Codes (B, n) for random numbers (B, n)."""
        codes = np.empty(uniforms.shape, np.int64)

        def of_part(state, local, uniforms, codes):
            local = local._replace(first=self.first)
            draw(self.weights, state, self.time, uniforms, float(temperature), float(top_p), codes,
                 local)

        self._each(of_part, self.first + self.time, codes.shape[1] + AHEAD, uniforms.numpy(), codes)
        self.time += codes.shape[1]
        return torch.from_numpy(codes)

    def _each(self, work, number, samples, *arrays):
        """Call `work` for each part: its state, its Local for so many samples from that number on,
        and its slices of the arrays."""
        locals_ = (self.projection.of(number, samples) if self.projection else
                   [nothing()] * len(self.states))
        self.shares.each(lambda of_part, *parts: work(*of_part, *parts),
                         list(zip(self.states, locals_, strict=True)), *arrays)

    def _load(self):
        """Call each kernel for next to nothing."""
        state, none = self.states[0], np.zeros((len(self.states[0].label), 0))
        self._remember(state, nothing(), np.zeros((1, 3), np.int64))
        draw(self.weights, state, 0, none, 1.0, 1.0, none.astype(np.int64), nothing())

    def _remember(self, state, local, codes):
        columns = space((codes.shape[1] - 1) * padded(self.weights.p + self.weights.q))
        for stream, heard in enumerate(codes):
            remember(self.weights, state, stream, heard, columns, local)
