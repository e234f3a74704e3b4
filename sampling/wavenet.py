"""Drawing sound from a WaveNet, sample by sample, without computing anything twice.

A layer of dilation d needs for the sample at t its inputs at t - d and at t. So each layer keeps
its last d inputs in a ring, and a sample costs one column of the network, however long the
receptive field. Three samplers give the same codes from the same draws:

- `Naive` runs the network over the whole field for every sample: the reference for tests;
- `Cached` is the plain PyTorch form of the above, for any device and precision;
- `sampling.compiled.wavenet.Compiled` does the same in compiled loops, on the CPU.

Before a sound begins there is silence. Where the input is constant every layer is constant: the
state after an endless silence is one column of each layer, repeated.
"""

import time
from copy import deepcopy

import torch
import torch.nn.functional as F

from datasets.quantization import silence
from sampling.local_conditioning import Conditioning
from sampling.random_streams import choose

LOCAL_BLOCK = 64  # samples whose conditioning `Cached` computes at a time
BLOCK, BLOCK_SECONDS = 1024, 0.05  # a block has up to so many samples, or takes about so long


def sample(model, draws, label, length=None, temperature=1.0, top_p=1.0, prime=None,
           precision="fp32", sampler=None, frames=None):
    """Draw a sound for each stream of `draws`, block by block: a generator.

    Args:
        model: a WaveNet, on any device.
        draws: a `sampling.random_streams.Draws` of B streams.
        label: (B,), or None for a network without labels.
        length: samples to draw, 1 or more; None to go on for ever. The memory does not grow.
        temperature: that the logits are divided by; 0 takes the most probable code everywhere.
        top_p: draw among the most probable codes that together have this probability, in (0, 1].
        prime: codes (B, P) that the sound goes on from; None to begin after silence.
        precision: "bf16" rounds the weights of the matrix products to 16 bits; they are computed
            with in single precision.
        sampler: Naive, Cached or Compiled; by default Compiled for a network in single precision
            on the CPU, otherwise Cached.
        frames: for a network with features, of each stream (K, features), frame k covering the
            samples from number k · hop on, of prime and sound together. K may differ, if that of
            one is enough: after its last frame a stream is conditioned by nothing.

    Yields the codes drawn, without the prime: (B, n), int64, on the CPU, n from 1 to BLOCK.
    """
    weight = model.logits.weight
    if sampler is None:
        sampler = Cached
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            from sampling.compiled.wavenet import Compiled as sampler  # takes a moment to import
    if precision == "bf16":
        model = rounded(model)
    # An output depends on no more than R codes. Where none is given the last one was silence.
    given = torch.empty(len(draws), 0, dtype=torch.long) if prime is None else prime
    given = F.pad(given[:, -model.config.receptive_field:], (int(given.shape[1] == 0), 0),
                  value=silence(model.config.levels))
    local = None
    if frames is not None:
        heard = 0 if prime is None else prime.shape[1]
        most = max(map(len, frames))
        if length is None or heard + length > most * model.config.hop:
            raise ValueError(f"{most} frames are not enough for the length asked for")
        first = heard - given.shape[1]
        local = Conditioning(model, frames, first)
    state = sampler(model, label, given.to(weight.device), precision, local)
    drawn, block = 0, 1
    while length is None or drawn < length:
        n = block if length is None else min(block, length - drawn)
        began = time.perf_counter()
        codes = state.draw(draws.next(n), temperature, top_p)
        if time.perf_counter() - began < BLOCK_SECONDS:
            block = min(2 * block, BLOCK)
        drawn += codes.shape[1]
        yield codes


def rounded(model):
    """A copy of the network in which bfloat16 can hold the weights of all matrix products."""
    model = deepcopy(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(module.weight.bfloat16())
    return model


class _Stepwise:
    """A sampler that draws code after code: `advance` gives the logits after another code."""

    @torch.inference_mode()
    def draw(self, uniforms, temperature, top_p):
        """Codes (B, n) for random numbers (B, n)."""
        codes = []
        for uniform in uniforms.to(self.code.device).t():
            self.code = choose(self.advance(self.code), uniform, temperature, top_p)
            codes.append(self.code)
        return torch.stack(codes, dim=1).cpu()


class Naive(_Stepwise):
    """The whole network over the whole field for every sample."""

    def __init__(self, model, label, codes, precision, local=None):
        """codes: (B, P), P from 1 up, before which there is silence. local: a Conditioning."""
        self.model, self.label, self.local = model, label, local
        size = model.config.receptive_field
        field = F.pad(codes[:, :-1], (size, 0), value=silence(model.config.levels))
        self.field, self.code = field[:, -size:], codes[:, -1]
        if local:
            self.number = local.first + codes.shape[1] - 1 - size  # of the field's first code

    @torch.inference_mode()
    def advance(self, code):
        """Logits (B, levels) of the sample after `code`: (B,)."""
        self.field = torch.cat((self.field[:, 1:], code[:, None]), dim=1)
        frames = None
        if self.local:
            self.number += 1
            frames = self.local.frames(self.number)
        return self.model(self.field, self.label, frames)[:, :, 0]


class Cached(_Stepwise):
    """The columns of the past kept, and the weights arranged for a single step.

    Inside, features are (features, B): both halves of a gate are then contiguous. A step makes
    four calls a layer, which is what its time goes into where B is small:

    - All layers' products with the inputs at t - d are one batched product, made first: they are
      from steps ago. So is the sum with the biases and the label's embedding.
    - σ(b) = (1 + tanh(b / 2)) / 2, so with b's weights halved one tanh serves both halves of the
      gate, and the half before the bracket goes into the next weights.
    - Residual and skip connections are one product, added to (x; sum of skips) so far; a gated
      feature that is always 1 carries their biases.
    """

    @torch.inference_mode()
    def __init__(self, model, label, codes, precision, local=None):
        """codes: (B, P), P from 1 up, before which there is silence. local: a Conditioning."""
        self.model, self.batch, self.local = model, codes.shape[0], local
        p, layers = model.config.hidden_dim, model.layers
        if local:
            self.number = local.first + codes.shape[1]  # of the next sample
            self.known = range(0)  # numbers of those that there are frames for
            self.proportions = model.frames.proportions.tolist()
        codes = F.pad(codes, (3, 0), value=silence(model.config.levels))
        inputs = _inputs_kept(model, label, codes[:, :-1], local)
        self.before, self.code = codes[:, -2], codes[:, -1]

        device = codes.device
        self.dilations = torch.tensor(model.dilations, device=device)
        self.begins = self.dilations.cumsum(0) - self.dilations  # where each layer's ring begins
        self.turn = torch.zeros_like(self.dilations)  # the oldest input in each ring
        self.rings = torch.cat(inputs)

        halved = torch.cat((torch.ones(p), torch.full((p,), 0.5))).to(self.rings)[:, None]
        self.halved = halved
        self.past = torch.stack([halved * layer.past.weight for layer in layers])
        self.bias = torch.stack([halved * _constant(layer, label) for layer in layers])
        self.gates = self.rings.new_empty(len(layers), 2 * p, self.batch)
        self.sums = self.rings.new_zeros(len(layers) + 1, p + model.config.out_hidden_dim,
                                         self.batch)
        gated = self.rings.new_ones(p + 1, self.batch)
        self.steps = [
            (gate, gate[:p], gate[p:], gated[:p], gated, halved * layer.now.weight, before[:p],
             before, after, _out(layer))
            for layer, gate, before, after in zip(layers, self.gates, self.sums[:-1],
                                                  self.sums[1:], strict=True)]

    @torch.inference_mode()
    def advance(self, code):
        """Logits (B, levels) of the sample after `code`: (B,)."""
        p = self.model.config.hidden_dim
        oldest = self.begins + self.turn
        torch.baddbmm(self._added(), self.past, self.rings[oldest], out=self.gates)
        self.sums[0, :p] = self.model.embed(self.before, code).t()
        for gate, a, b, y, y_and_1, now, x, before, after, out in self.steps:
            gate.addmm_(now, x).tanh_()
            torch.addcmul(a, a, b, out=y)
            torch.addmm(before, out, y_and_1, out=after)
        self.rings[oldest] = self.sums[:-1, :p]
        self.turn = (self.turn + 1) % self.dilations
        self.before = code
        return self.model.output(self.sums[-1, p:].t())

    def _added(self):
        """What is added to the gates of the next sample: (L, 2p, B)."""
        if not self.local:
            return self.bias
        local, number = self.local, self.number
        if number not in self.known:
            self.known = range(number, number + LOCAL_BLOCK)
            self.low, frames = local.projected(number, LOCAL_BLOCK)
            self.frames = frames.mul_(self.halved)
        frame, place = divmod(number, local.hop)
        first = frame - (2 * place + 1 < local.hop) - self.low  # of those that are mixed
        added = self.bias
        for tap, proportion in enumerate(self.proportions[place]):
            added = torch.add(added, self.frames[first + tap], alpha=proportion)
        self.number += 1
        if frame >= local.shortest:
            added = torch.where(frame < local.counts.to(added.device), added, self.bias)
        return added


def _inputs_kept(model, label, codes, local):
    """Each layer's last d inputs, [(d, p, B), …], once `codes` (B, P), P from 3 up, were heard.

    Runs them all at once. The first three are silence, which no frame conditions. Since before that
    nothing changes, a layer's input is continued to the left, exactly, by repeating its first
    column. local: a Conditioning, or None.
    """
    x, inputs = model.embed(codes[:, :-1], codes[:, 1:]), []
    added = local.added(local.first - 1, x.shape[1]) if local else [None] * len(model.layers)
    for layer, dilation, of_frames in zip(model.layers, model.dilations, added, strict=True):
        padded = torch.cat((x[:, :1].expand(-1, dilation, -1), x), dim=1)
        inputs.append(padded[:, -dilation:].permute(1, 2, 0))
        x, _ = layer(padded[:, :-dilation], x, label, of_frames)
    return inputs


def _constant(layer, label):
    """What is added to a layer's gate at all times: (2p, 1), or (2p, B) where there are labels."""
    bias = layer.now.bias[:, None]
    condition = layer.gate.condition
    return bias if condition is None else bias + condition(label).t()


def _out(layer):
    """Residual above skip weights of twice the gated features, and of a 1: (p + skips, p + 1)."""
    skip = torch.cat((layer.skip.weight / 2, layer.skip.bias[:, None]), dim=1)
    if layer.residual is None:  # the last layer: nothing takes the residual
        residual = skip.new_zeros(layer.past.in_features, skip.shape[1])
    else:
        residual = torch.cat((layer.residual.weight / 2, layer.residual.bias[:, None]), dim=1)
    return torch.cat((residual, skip))
