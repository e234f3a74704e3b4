"""Drawing sound from a WaveNet, sample by sample, without computing anything twice.

A layer of dilation d needs for the sample at t its inputs at t - d and at t. So each layer keeps
its last d inputs in a ring, and a sample costs one column of the network, however long the
receptive field. `sample_naive` runs the network over the whole field for every sample, and must
give the same codes.

Before a sound begins there is silence. Where the input is constant every layer is constant: the
state after an endless silence is one column of each layer, repeated.
"""

import torch
import torch.nn.functional as F

from datasets.quantization import silence
from sampling.draws import choose
from sampling.threads import threads_for

BLOCK = 128  # samples between two calls of on_block


@torch.inference_mode()
def sample(model, draws, label, length, temperature=1.0, prime=None, on_block=None):
    """Draw a sound for each stream of `draws`.

    Args:
        model: a WaveNet, on any device.
        draws: a `sampling.draws.Draws` of B streams.
        label: (B,), or None for a network without labels.
        length: samples to draw, 1 or more.
        temperature: that the logits are divided by; 0 takes the most probable code everywhere.
        prime: codes (B, P) that the sound begins with; None to begin after silence.
        on_block: called every 128 samples and at the end with how many were drawn since.

    Returns the codes drawn, without the prime: (B, length), int64, on the model's device.
    """
    with threads_for(model.config.hidden_dim, len(draws)):
        # An output, and what the layers keep for the next ones, depend on no more than R codes.
        prime = _prime(model, draws, prime)[:, -model.config.receptive_field:]
        state = _State(model, label, prime)
        return _draw(draws, length, temperature, on_block, state.logits, state.advance)


@torch.inference_mode()
def sample_naive(model, draws, label, length, temperature=1.0, prime=None, on_block=None):
    """What `sample` does, running the network over a field a sample: the reference for tests."""
    field_size = model.config.receptive_field
    field = F.pad(_prime(model, draws, prime), (field_size, 0), value=silence(model.config.levels))
    field = field[:, -field_size:]

    def advance(code):
        nonlocal field
        field = torch.cat((field[:, 1:], code[:, None]), dim=1)
        return model(field, label)[:, :, 0]

    logits = model(field, label)[:, :, 0]
    return _draw(draws, length, temperature, on_block, logits, advance)


def _prime(model, draws, prime):
    """The codes (B, P) that are given, or none (B, 0), on the model's device."""
    if prime is None:
        prime = torch.empty(len(draws), 0, dtype=torch.long)
    return prime.to(model.logits.weight.device)


def _draw(draws, length, temperature, on_block, logits, advance):
    """Draw `length` codes, the first from `logits`, those after from what `advance` returns."""
    codes = torch.empty(len(draws), length, dtype=torch.long, device=logits.device)
    for begin in range(0, length, BLOCK):
        end = min(begin + BLOCK, length)
        uniforms = draws.next(end - begin).to(codes.device)
        for t in range(begin, end):
            code = choose(logits, uniforms[:, t - begin], temperature)
            codes[:, t] = code
            if t + 1 < length:
                logits = advance(code)
        if on_block:
            on_block(end - begin)
    return codes


class _State:
    """What a WaveNet must know of the past, and its weights arranged for a single step.

    Inside, features are (features, B): both halves of a gate are then contiguous. A step makes
    four calls a layer, which is what its time goes into where B is small:

    - All layers' products with the inputs at t - d are one batched product, made first: they are
      from steps ago. So is the sum with the biases and the label's embedding.
    - σ(b) = (1 + tanh(b / 2)) / 2, so with b's weights halved one tanh serves both halves of the
      gate, and the half before the bracket goes into the next weights.
    - Residual and skip connections are one product, added to (x; sum of skips) so far; a gated
      feature that is always 1 carries their biases.
    """

    def __init__(self, model, label, codes):
        """codes: (B, P), those before the first to draw; before them there is silence."""
        self.model, self.batch = model, codes.shape[0]
        p, layers = model.config.hidden_dim, model.layers
        inputs, self.logits = _run(model, label, codes)
        self.code = F.pad(codes, (1, 0), value=silence(model.config.levels))[:, -1]

        device = self.logits.device
        self.dilations = torch.tensor(model.dilations, device=device)
        self.begins = self.dilations.cumsum(0) - self.dilations  # where each layer's ring begins
        self.turn = torch.zeros_like(self.dilations)  # the oldest input in each ring
        self.rings = torch.cat(inputs)

        halved = torch.cat((torch.ones(p), torch.full((p,), 0.5))).to(self.rings)[:, None]
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

    def advance(self, code):
        """Logits (B, levels) of the sample after `code`: (B,)."""
        p = self.model.config.hidden_dim
        oldest = self.begins + self.turn
        torch.baddbmm(self.bias, self.past, self.rings[oldest], out=self.gates)
        self.sums[0, :p] = self.model.embed(self.code, code).t()
        for gate, a, b, y, y_and_1, now, x, before, after, out in self.steps:
            gate.addmm_(now, x).tanh_()
            torch.addcmul(a, a, b, out=y)
            torch.addmm(before, out, y_and_1, out=after)
        self.rings[oldest] = self.sums[:-1, :p]
        self.turn = (self.turn + 1) % self.dilations
        self.code = code
        return self.model.output(self.sums[-1, p:].t())


def _run(model, label, codes):
    """Each layer's last d inputs, [(d, p, B), …], and the logits (B, levels) of the next sample.

    Runs all codes (B, P) at once, after one column of silence. Since before that nothing changes,
    a layer's input is continued to the left, exactly, by repeating its first column.
    """
    codes = F.pad(codes, (2, 0), value=silence(model.config.levels)).t()
    x, skips, inputs = model.embed(codes[:-1], codes[1:]), 0, []
    for layer, dilation in zip(model.layers, model.dilations, strict=True):
        padded = torch.cat((x[:1].expand(dilation, -1, -1), x))
        inputs.append(padded[-dilation:].transpose(1, 2))
        x, skip = layer(padded[:-dilation], x, label, outputs=1)
        skips = skips + skip
    return inputs, model.output(skips)[0]


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
