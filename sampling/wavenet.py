"""Exact sampling from a WaveNet, sample by sample, without computing anything twice.

For the sample at t, a layer of dilation d needs its inputs at t - d and at t. So each layer keeps
its last d inputs in a ring buffer, and a sample costs one column of the network, however long the
receptive field. Three samplers draw the same codes from the same random numbers:

- `NaiveWaveNetSampler` runs the network on a whole receptive field for every sample: the reference.
- `CachedWaveNetSampler` is the plain PyTorch form of the above, for any device and precision.
- `sampling.compiled.wavenet.CompiledWaveNetSampler` does the same in compiled loops, on the CPU.

A sound begins after silence. Where the input is constant, every layer is constant: the state after
an endless silence is one column per layer, repeated.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F

from datasets.quantization import silence
from models.wavenet import ResidualLayer, WaveNet
from sampling.local_conditioning import Conditioning
from sampling.random_streams import RandomStreams

CONDITIONING_CHUNK = 64  # samples whose conditioning CachedWaveNetSampler computes at a time
MAX_CHUNK = 1024  # samples in a chunk: enough to amortise the calls from Python
CHUNK_SECONDS = 0.05  # a chunk stops growing at this duration, so that a listener waits little


def sample_sounds(model: WaveNet, streams: RandomStreams, label: torch.Tensor | None,
                  length: int | None = None, temperature: float = 1.0, top_p: float = 1.0,
                  prime: torch.Tensor | None = None, precision: str = "fp32",
                  sampler: Callable | None = None,
                  frames: Sequence[torch.Tensor] | None = None) -> Iterator[torch.Tensor]:
    """Draw a sound for each of B random streams, chunk by chunk.

    Args:
        model: a WaveNet, on any device.
        streams: B random streams.
        label: (B,), or None for a network without labels.
        length: samples to draw, 1 or more; None for an endless sound. Memory does not grow.
        temperature, top_p: see the `sample` of the network's distribution, `models.distributions`.
            For a softmax they divide the logits, and restrict it to the most probable codes.
        prime: codes (B, P) that the sound continues; None to begin after silence.
        precision: "fp32", or "bf16" to round the weights of the matrix products to 16 bits. Both
            compute in single precision.
        sampler: a sampler class of this module, or CompiledWaveNetSampler; by default the latter
            for a network in single precision on the CPU, otherwise CachedWaveNetSampler.
        frames: for a network with features, per stream (K, features). Frame k covers the samples
            from k · hop on, counted from the start of the prime. K may differ if the longest
            suffices; after its last frame a stream is unconditioned.

    Yields the drawn codes without the prime: (B, n), int64, on the CPU, n from 1 to MAX_CHUNK.
    Raises ValueError if the frames do not cover the length.
    """
    weight = model.logits.weight
    sampler = sampler or _default_sampler(weight)
    if precision == "bf16":
        model = round_to_bf16(model)
    # An output depends on no more than R codes. Without a prime, the last code is silence.
    primed = torch.empty(len(streams), 0, dtype=torch.long) if prime is None else prime
    prime_length = primed.shape[1]
    context = F.pad(primed[:, -model.config.receptive_field:], (int(prime_length == 0), 0),
                    value=silence(model.config.levels))
    local = None
    if frames is not None:
        most = max(map(len, frames))
        if length is None or prime_length + length > most * model.config.hop:
            raise ValueError(f"{most} frames are not enough for the length asked for")
        local = Conditioning(model, frames, prime_length - context.shape[1])
    state = sampler(model, label, context.to(weight.device), precision, local)
    drawn, chunk = 0, 1
    while length is None or drawn < length:
        n = chunk if length is None else min(chunk, length - drawn)
        began = time.perf_counter()
        codes = state.draw(streams.next_uniforms(n), temperature, top_p)
        if time.perf_counter() - began < CHUNK_SECONDS:
            chunk = min(2 * chunk, MAX_CHUNK)
        drawn += codes.shape[1]
        yield codes


def _default_sampler(weight: torch.Tensor) -> Callable:
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        # Here, because importing numba takes a moment.
        from sampling.compiled.wavenet import CompiledWaveNetSampler
        return CompiledWaveNetSampler
    return CachedWaveNetSampler


def round_to_bf16(model: WaveNet) -> WaveNet:
    """A copy of the network in which bfloat16 represents the weights of all matrix products."""
    model = deepcopy(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(module.weight.bfloat16())
    return model


class _StepwiseSampler:
    """Draws code after code. Subclasses set `model`, `code` (B,), the last one, and `advance`."""

    model: WaveNet
    code: torch.Tensor

    def advance(self, code: torch.Tensor) -> torch.Tensor:
        """The parameters (B, n) of the distribution after `code` (B,)."""
        raise NotImplementedError

    @torch.inference_mode()
    def draw(self, uniforms: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
        """Draw codes (B, n), on the CPU, from uniform random numbers (B, n)."""
        codes, sample = [], self.model.distribution.sample
        for uniform in uniforms.to(self.code.device).t():
            self.code = sample(self.advance(self.code), uniform, temperature, top_p)
            codes.append(self.code)
        return torch.stack(codes, dim=1).cpu()


class NaiveWaveNetSampler(_StepwiseSampler):
    """Runs the network on a whole receptive field for every sample.

    codes: (B, P), P ≥ 1; silence precedes them. local: the conditioning, or None.
    """

    def __init__(self, model: WaveNet, label: torch.Tensor | None, codes: torch.Tensor,
                 precision: str, local: Conditioning | None = None) -> None:
        self.model, self.label, self.local = model, label, local
        size = model.config.receptive_field
        field = F.pad(codes[:, :-1], (size, 0), value=silence(model.config.levels))
        self.field, self.code = field[:, -size:], codes[:, -1]
        if local:
            self.number = local.first + codes.shape[1] - 1 - size  # of the field's first code

    @torch.inference_mode()
    def advance(self, code: torch.Tensor) -> torch.Tensor:
        """The parameters (B, n) of the distribution after `code` (B,)."""
        self.field = torch.cat((self.field[:, 1:], code[:, None]), dim=1)
        frames = None
        if self.local:
            self.number += 1
            frames = self.local.frames(self.number)
        return self.model(self.field, self.label, frames)[:, :, 0]


class CachedWaveNetSampler(_StepwiseSampler):
    """Caches the columns of the past, and arranges the weights for a single step.

    Features are (features, B), so both halves of a gate are contiguous. A step makes four calls per
    layer, which dominate its time for small B:

    - All layers' products with the inputs at t - d are one batched product at the start of a step,
      because those inputs are cached. It includes the biases and the label's embedding.
    - σ(b) = (1 + tanh(b / 2)) / 2, so with b's weights halved, one tanh serves both halves of the
      gate. The next weights absorb the factor 1/2.
    - Residual and skip connections are one product, added to (x; sum of skips). A gated feature
      that is always 1 carries their biases.

    codes: (B, P), P ≥ 1; silence precedes them. local: the conditioning, or None.
    """

    @torch.inference_mode()
    def __init__(self, model: WaveNet, label: torch.Tensor | None, codes: torch.Tensor,
                 precision: str, local: Conditioning | None = None) -> None:
        self.model, self.batch, self.local = model, codes.shape[0], local
        p, layers = model.config.hidden_dim, model.layers
        if local:
            self.number = local.first + codes.shape[1]  # of the next sample
            self.projected = range(0)  # the numbers of the samples whose frames are projected
            self.proportions = local.network.proportions.tolist()
        codes = F.pad(codes, (3, 0), value=silence(model.config.levels))
        inputs = _cached_inputs(model, label, codes[:, :-1], local)
        self.before, self.code = codes[:, -2], codes[:, -1]

        self.dilations = torch.tensor(model.dilations, device=codes.device)
        self.ring_starts = self.dilations.cumsum(0) - self.dilations
        self.oldest = torch.zeros_like(self.dilations)  # the oldest input in each ring buffer
        self.rings = torch.cat(inputs)

        halved = torch.cat((torch.ones(p), torch.full((p,), 0.5))).to(self.rings)[:, None]
        self.halved = halved
        self.past = torch.stack([halved * layer.past.weight for layer in layers])
        self.bias = torch.stack([halved * _gate_bias(layer, label) for layer in layers])
        self.gates = self.rings.new_empty(len(layers), 2 * p, self.batch)
        self.sums = self.rings.new_zeros(len(layers) + 1, p + model.config.out_hidden_dim,
                                         self.batch)
        gated = self.rings.new_ones(p + 1, self.batch)
        self.steps = [
            (gate, gate[:p], gate[p:], gated[:p], gated, halved * layer.now.weight, before[:p],
             before, after, _residual_and_skip(layer))
            for layer, gate, before, after in zip(layers, self.gates, self.sums[:-1],
                                                  self.sums[1:], strict=True)]

    @torch.inference_mode()
    def advance(self, code: torch.Tensor) -> torch.Tensor:
        """The parameters (B, n) of the distribution after `code` (B,)."""
        p = self.model.config.hidden_dim
        oldest = self.ring_starts + self.oldest
        torch.baddbmm(self._constant_inputs(), self.past, self.rings[oldest], out=self.gates)
        self.sums[0, :p] = self.model.embed(self.before, code).t()
        for gate, a, b, y, y_and_1, now, x, before, after, out in self.steps:
            gate.addmm_(now, x).tanh_()
            torch.addcmul(a, a, b, out=y)
            torch.addmm(before, out, y_and_1, out=after)
        self.rings[oldest] = self.sums[:-1, :p]
        self.oldest = (self.oldest + 1) % self.dilations
        before, self.before = self.before, code
        return self.model.output(self.sums[-1, p:].t(), before, code)

    def _constant_inputs(self) -> torch.Tensor:
        """What biases, label and frames add to the gates of the next sample: (L, 2p, B)."""
        if not self.local:
            return self.bias
        local, number = self.local, self.number
        if number not in self.projected:
            self.projected = range(number, number + CONDITIONING_CHUNK)
            self.low, frames = local.projected_frames(number, CONDITIONING_CHUNK)
            self.frames = frames.mul_(self.halved)
        frame, position = divmod(number, local.hop)
        # The first of the two frames: before a frame's centre it is the previous frame.
        first = frame - (2 * position + 1 < local.hop) - self.low
        inputs = self.bias
        for tap, proportion in enumerate(self.proportions[position]):
            inputs = torch.add(inputs, self.frames[first + tap], alpha=proportion)
        self.number += 1
        if frame >= local.shortest:
            inputs = torch.where(frame < local.counts.to(inputs.device), inputs, self.bias)
        return inputs


def _cached_inputs(model: WaveNet, label: torch.Tensor | None, codes: torch.Tensor,
                   local: Conditioning | None) -> list[torch.Tensor]:
    """Each layer's last d inputs, [(d, p, B), …], after `codes` (B, P), P ≥ 3.

    Computes all times at once. The first three codes are silence, which no frame conditions. A
    layer's input is constant before that, so repeating its first column continues it exactly.
    """
    x, inputs = model.embed(codes[:, :-1], codes[:, 1:]), []
    gate_inputs: Sequence[torch.Tensor | None] = [None] * len(model.layers)
    if local:
        gate_inputs = [*local.gate_inputs(local.first - 1, x.shape[1])]
    for layer, dilation, gate_input in zip(model.layers, model.dilations, gate_inputs, strict=True):
        padded = torch.cat((x[:, :1].expand(-1, dilation, -1), x), dim=1)
        inputs.append(padded[:, -dilation:].permute(1, 2, 0))
        x, _ = layer(padded[:, :-dilation], x, label, gate_input)
    return inputs


def _gate_bias(layer: ResidualLayer, label: torch.Tensor | None) -> torch.Tensor:
    """The bias of a layer's gate plus the label's embedding: (2p, 1), or (2p, B) with labels."""
    bias = layer.now.bias[:, None]
    condition = layer.gate.condition
    return bias if condition is None else bias + condition(label).t()


def _residual_and_skip(layer: ResidualLayer) -> torch.Tensor:
    """The residual above the skip weights, for twice the gated features and a 1.

    Returns (p + skips, p + 1). The last layer's residual weights are 0.
    """
    skip = torch.cat((layer.skip.weight / 2, layer.skip.bias[:, None]), dim=1)
    if layer.residual is None:
        residual = skip.new_zeros(layer.past.in_features, skip.shape[1])
    else:
        residual = torch.cat((layer.residual.weight / 2, layer.residual.bias[:, None]), dim=1)
    return torch.cat((residual, skip))
