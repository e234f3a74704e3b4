"""WaveNet: p(sound) as a product over its samples, each given those before it [1].

    p(x | h) = ∏_t p(x_t | x_1, …, x_{t-1}, h)                                      eq. 1 and 3

A causal convolution of width 2, then `stacks_num` stacks of `layers_num` gated residual layers
whose dilation doubles, 1, 2, 4, …, 2^(layers_num - 1), then two 1×1 convolutions on the sum of
all layers' skip connections, as figure 4 of the paper draws it.

What is done otherwise than in the paper and in the original study:

- The first convolution is on one-hot codes: each of its two taps picks a row of its matrix. So it
  is the sum of two embeddings, and nothing one-hot is ever stored.
- No padding is computed. A layer of dilation d makes d outputs fewer than it has inputs, and of
  T codes come the T - R + 1 outputs whose whole receptive field R is inside. Skip connections are
  computed for those outputs alone. Where all sequences begin with silence (a code repeated), each
  layer's input is constant there: one column stands for all of it, and the result is the same.
- Sequences are (T, B, p) inside, the time first: a shift in time is then a contiguous view, and a
  layer's dilated convolution two matrix products without a copy. `models.dilated` makes one
  operation of all layers, forward and backward; a layer by itself is what a sampler begins with.
- The last layer has a skip connection only, for no layer takes its residual output.
- The rows of those embeddings begin as smooth functions of the code, lest the network have to
  learn first that neighbouring codes are neighbouring amplitudes.
- A layer's skip connection and its residual one have a 1×1 convolution each, where the figure
  draws one for both. The skip connections are `out_hidden_dim` wide, as is the output's hidden
  layer.

[1] van den Oord et al., WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import nn

from models.dilated import Workspace, dilated_layers, times_at_once
from models.gated import GatedActivation
from models.local import FrameNetwork

MOST_LAYERS = 4096


@dataclass(frozen=True)
class WaveNetConfig:
    """What a WaveNet is made of.

    levels: values that a sample can take. hidden_dim: p, residual channels. out_hidden_dim: skip
    channels, and width of the hidden layer before the logits. stacks_num × layers_num dilated
    layers. labels: to condition on, 0 for none. features: numbers in a frame of features to
    condition on, 0 for none, and hop: samples that a frame covers.
    The bounds are for what is read from a file. Raises ValueError for what can't be built.
    """

    levels: Annotated[int, Meta(ge=2, le=65_536)] = 256
    hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 32
    out_hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 32
    stacks_num: Annotated[int, Meta(ge=1, le=MOST_LAYERS)] = 5
    layers_num: Annotated[int, Meta(ge=1, le=24)] = 10
    labels: Annotated[int, Meta(ge=0, le=2 ** 24)] = 0
    features: Annotated[int, Meta(ge=0, le=2 ** 16)] = 0
    hop: Annotated[int, Meta(ge=0, le=2 ** 20)] = 0

    def __post_init__(self):
        for name, least in (("levels", 2), ("hidden_dim", 1), ("out_hidden_dim", 1),
                            ("stacks_num", 1), ("layers_num", 1), ("labels", 0),
                            ("features", 0), ("hop", int(self.features > 0))):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)}: the least is {least}")
        if self.layers_num > 24:
            raise ValueError(f"layers_num {self.layers_num}: the last layer's dilation would be "
                             f"2^{self.layers_num - 1} samples; the most is 24")
        if self.stacks_num * self.layers_num > MOST_LAYERS:
            raise ValueError(f"stacks_num {self.stacks_num}: with layers_num "
                             f"{self.layers_num} the most is {MOST_LAYERS // self.layers_num}")

    @property
    def dilations(self):
        """1, 2, 4, …, 2^(layers_num - 1), once for each stack."""
        return [2 ** i for _ in range(self.stacks_num) for i in range(self.layers_num)]

    @property
    def receptive_field(self):
        """R, the number of past samples that an output depends on."""
        return sum(self.dilations) + 2


class ResidualLayer(nn.Module):
    """One dilated gated layer: figure 4 and equation 2 of the paper, section 2.5 with a label.

    The layer knows nothing of time: it is given the inputs at t - d and at t, of one t or of many.
    """

    def __init__(self, config, last=False):
        super().__init__()
        p = config.hidden_dim
        self.past = nn.Linear(p, 2 * p, bias=False)
        self.now = nn.Linear(p, 2 * p)
        self.gate = GatedActivation(p, config.labels)
        self.local = nn.Linear(2 * p, 2 * p, bias=False) if config.features else None
        self.skip = nn.Linear(p, config.out_hidden_dim)
        self.residual = None if last else nn.Linear(p, p)

    def forward(self, past, now, label=None, local=None):
        """past, now: the layer's inputs (B, n, p) at t - d and at t; label: (B,) or None; local:
        what local conditioning adds to the gate's input, (B, n, 2p), or None.

        Returns the next layer's input (B, n, p), which of the last layer is None, and the skip
        connection (B, n, out_hidden_dim).
        """
        parts = [self.past(past), self.now(now), *([] if local is None else [local])]
        y = self.gate(*parts, label=label)
        return None if self.residual is None else now + self.residual(y), self.skip(y)


class WaveNet(nn.Module):
    """Logits of each sample given the R before it, and a label if the network has labels.

    Attributes that may be set:
        dropout: the probability that a gated feature is left out in training; at first 0.
        compute_dtype: what the layers' matrix products are computed in, such as torch.bfloat16;
            None, as at first, for the weights' own.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.dropout, self.compute_dtype = 0.0, None
        self.embed_past = nn.Embedding(config.levels, config.hidden_dim)
        self.embed_now = nn.Embedding(config.levels, config.hidden_dim)
        for embedding in (self.embed_past, self.embed_now):
            embedding.weight.data = smooth_rows(config.levels, config.hidden_dim)
        self.dilations = config.dilations
        last = len(self.dilations) - 1
        self.layers = nn.ModuleList(
            ResidualLayer(config, last=i == last) for i in range(len(self.dilations)))
        self.frames = (FrameNetwork(config.features, 2 * config.hidden_dim, config.hop)
                       if config.features else None)
        self.hidden = nn.Linear(config.out_hidden_dim, config.out_hidden_dim)
        self.logits = nn.Linear(config.out_hidden_dim, config.levels)
        self._workspace = Workspace()

    def forward(self, codes, label=None, frames=None):
        """codes: (B, T), integers in [0, levels), T ≥ R; label: (B,) or None; frames: a
        `datasets.batches.Frames`, or None.

        Returns logits: (B, levels, T - R + 1). Output k is of the sample after code k + R - 1, so
        the last one is of the sample that is still to come.
        """
        outputs = codes.shape[1] - self.config.receptive_field + 1
        if outputs < 1:
            raise ValueError(f"{codes.shape[1]} codes are fewer than the receptive field of "
                             f"{self.config.receptive_field}")
        codes = codes.t().long()
        start = min(constant_start(codes), self._unconditioned_start(frames)) - 2
        start = max(min(start, len(codes) - outputs - 1), 0)
        codes = codes[start:]
        skips = dilated_layers(
            self.embed(codes[:-1], codes[1:]), outputs, self._weights(label, codes.shape[1]),
            self.dilations, self._workspace, self.dropout if self.training else 0.0,
            self.compute_dtype, *self._local(frames, start, len(codes) - 1))
        skips = skips + sum(layer.skip.bias for layer in self.layers)
        return self.output(skips).permute(1, 2, 0)

    def _weights(self, label, batch):
        """The layers' weights as `dilated_layers` takes them, for a batch of so many sequences.

        The biases of the residual connections are left out of the columns. What they would add to a
        layer's input is the same everywhere, so it is multiplied by the layer's weights once.
        """
        layers, p = self.layers, self.config.hidden_dim
        past, now, skip = (torch.stack([getattr(layer, name).weight.t() for layer in layers])
                           for name in ("past", "now", "skip"))
        bias = torch.stack([layer.now.bias for layer in layers])[:, None]
        if self.config.labels:
            bias = bias + torch.stack([layer.gate.condition(label) for layer in layers])
        residual, left_out = past.new_empty(0, p, p), past.new_zeros(1, p)
        if len(layers) > 1:
            residual = torch.stack([layer.residual.weight.t() for layer in layers[:-1]])
            biases = torch.stack([layer.residual.bias for layer in layers[:-1]])
            left_out = torch.cat((left_out, biases.cumsum(0)))
        bias = bias + left_out[:, None] @ (past + now)
        return past, now, bias.expand(-1, batch, -1), residual, skip

    def _unconditioned_start(self, frames):
        """How many of the first codes are before those whose successor there is a frame for."""
        if frames is None or not len(frames.real):
            return math.inf
        first = torch.where(frames.real.any(1), frames.real.to(torch.uint8).argmax(1),
                            frames.real.shape[1])
        return int((first * self.config.hop - frames.offset).amin()) - 1

    def _local(self, frames, start, times):
        """What `dilated_layers` takes of the frames, for so many columns from codes[:, start] on.

        A column is conditioned by what covers the sample that it is to predict.
        """
        if frames is None:
            return ()
        h = self.frames(frames.values, frames.real)
        projection = torch.stack([layer.local.weight for layer in self.layers])[:, None]
        size = times_at_once(max(len(h), 1), h.device) or times
        return h @ projection.mT, self.frames.mixtures(frames.real, frames.offset + start + 2,
                                                       times, size)

    def embed(self, past, now):
        """The first causal convolution, of the codes at t - 1 and at t: (…,) -> (…, p)."""
        return self.embed_past(past) + self.embed_now(now)

    def output(self, skips):
        """Sum of all skip connections (…, out_hidden_dim) -> logits (…, levels)."""
        return self.logits(F.relu(self.hidden(F.relu(skips))))


def smooth_rows(levels, width):
    """Initial embeddings (levels, width): cosines of the code, a random rotation of them.

    These are the first functions of the discrete cosine transform, from low frequency to high, of
    mean square 1/2 each; the rotation gives every feature map a mixture.
    """
    frequency = math.pi * (torch.arange(width) % levels)
    cosines = torch.cos(frequency * (torch.arange(levels)[:, None] + 0.5) / levels)
    cosines[:, 0] *= 0.5 ** 0.5
    rotation, _ = torch.linalg.qr(torch.randn(width, width))
    return cosines @ rotation


def constant_start(codes):
    """How many of the first codes (T, B) repeat the very first, in every sequence: an int."""
    changed = (codes != codes[:1]).any(dim=1)
    return int(changed.to(torch.uint8).argmax()) if changed.any() else len(codes)
