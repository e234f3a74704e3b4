"""WaveNet: p(sound) as a product over its samples, each given those before it [1].

    p(x | h) = ∏_t p(x_t | x_1, …, x_{t-1}, h)                                      eq. 1 and 3

The network is a causal convolution of width 2, then `stacks_num` stacks of `layers_num` gated
residual layers, whose dilation doubles: 1, 2, 4, …, 2^(layers_num - 1), then two 1×1 convolutions
on the sum of all layers' skip connections (figure 4 of the paper).

Differences from the paper and from the original study:

- The first convolution reads one-hot codes, so each of its two taps selects a row of its matrix.
  Here it is the sum of two embeddings, and nothing is stored one-hot.
- Nothing is padded. A layer of dilation d has d outputs fewer than inputs, and T codes give the
  T - R + 1 outputs whose receptive field R lies within the codes. Skip connections are computed for
  those outputs only. Where all sequences begin with silence (a repeated code), each layer's input
  is constant: one column stands for all of it, with the same result.
- Sequences are (T, B, p) internally. A shift in time is then a contiguous view, and a dilated
  convolution is two matrix products without a copy. `models.dilated` computes all layers as one
  operation; samplers run a single `ResidualLayer`.
- The last layer has only a skip connection, because nothing reads its residual output.
- The embeddings' initial rows are smooth functions of the code, so the network need not learn that
  neighbouring codes are neighbouring amplitudes.
- With `distribution` "logistics" an output is not a softmax, and the first convolution reads a few
  numbers for each code instead of an embedding: see `models.distributions`, `models.code_numbers`.
  The means are relative to a fixed linear `prediction` from the last two samples. A sample of 16
  bits is known far better from them than gated units could tell.
- A layer's skip and residual connections have separate 1×1 convolutions, where the figure draws
  one. Skip connections are `out_hidden_dim` wide, like the output's hidden layer.

[1] van den Oord et al., WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import nn

from models.code_numbers import NUMBERS, code_numbers, code_positions
from models.dilated import dilated_layers
from models.distributions import MOST_MIXTURES, Name, check_distribution, output_distribution
from models.gated import GatedActivation
from models.local_conditioning import FrameNetwork, Frames, Interpolation
from models.workspace import Workspace

MOST_LAYERS = 4096


@dataclass(frozen=True)
class WaveNetConfig:
    """The architecture of a WaveNet.

    levels: values that a sample can take. hidden_dim: p, residual channels. out_hidden_dim: skip
    channels, and width of the hidden layer before the logits. stacks_num × layers_num: dilated
    layers. labels: number of labels to condition on, 0 for none. features: width of the frames to
    condition on, 0 for none. hop: samples per frame. distribution, mixtures: of a code, see
    `models.distributions`. prediction: whether logistics are relative to a linear prediction;
    those of older files are not.
    The annotated bounds apply to values read from a file. Raises ValueError, which begins with the
    parameter's name, for an impossible network.
    """

    levels: Annotated[int, Meta(ge=2, le=65_536)] = 256
    hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 32
    out_hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 20)] = 32
    stacks_num: Annotated[int, Meta(ge=1, le=MOST_LAYERS)] = 5
    layers_num: Annotated[int, Meta(ge=1, le=24)] = 10
    labels: Annotated[int, Meta(ge=0, le=2 ** 24)] = 0
    features: Annotated[int, Meta(ge=0, le=2 ** 16)] = 0
    hop: Annotated[int, Meta(ge=0, le=2 ** 20)] = 0
    distribution: Name = "softmax"
    mixtures: Annotated[int, Meta(ge=0, le=MOST_MIXTURES)] = 0
    prediction: bool = False

    def __post_init__(self) -> None:
        for name, least in (("levels", 2), ("hidden_dim", 1), ("out_hidden_dim", 1),
                            ("stacks_num", 1), ("layers_num", 1), ("labels", 0),
                            ("features", 0), ("hop", int(self.features > 0))):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)}: the least is {least}")
        check_distribution(self.distribution, self.mixtures)
        if self.prediction and not self.reads_numbers:
            raise ValueError("prediction True: goes with distribution logistics")
        if self.layers_num > 24:
            raise ValueError(f"layers_num {self.layers_num}: the last layer's dilation would be "
                             f"2^{self.layers_num - 1} samples; the most is 24")
        if self.stacks_num * self.layers_num > MOST_LAYERS:
            raise ValueError(f"stacks_num {self.stacks_num}: with layers_num "
                             f"{self.layers_num} the most is {MOST_LAYERS // self.layers_num}")

    @property
    def dilations(self) -> list[int]:
        """1, 2, 4, …, 2^(layers_num - 1), once per stack."""
        return [2 ** i for _ in range(self.stacks_num) for i in range(self.layers_num)]

    @property
    def reads_numbers(self) -> bool:
        """Whether the network reads numbers for a code, and not its embedding."""
        return self.distribution != "softmax"

    @property
    def receptive_field(self) -> int:
        """R, the number of past samples that an output depends on."""
        return sum(self.dilations) + 2


class ResidualLayer(nn.Module):
    """One dilated gated layer: figure 4 and equation 2 of the paper, section 2.5 with a label.

    The layer does not know the time: it reads the inputs at t - d and at t, for any number of t.
    """

    def __init__(self, config: WaveNetConfig, last: bool = False) -> None:
        super().__init__()
        p = config.hidden_dim
        self.past = nn.Linear(p, 2 * p, bias=False)
        self.now = nn.Linear(p, 2 * p)
        self.gate = GatedActivation(p, config.labels)
        self.local = nn.Linear(2 * p, 2 * p, bias=False) if config.features else None
        self.skip = nn.Linear(p, config.out_hidden_dim)
        self.residual = None if last else nn.Linear(p, p)

    def forward(self, past: torch.Tensor, now: torch.Tensor, label: torch.Tensor | None = None,
                local: torch.Tensor | None = None
                ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Compute the layer for n times of B sequences.

        Args:
            past, now: (B, n, p), the layer's input at t - d and at t.
            label: (B,), or None.
            local: what local conditioning adds to the gate's input, (B, n, 2p), or None.

        Returns the next layer's input (B, n, p), None in the last layer, and the skip connection
        (B, n, out_hidden_dim).
        """
        parts = [self.past(past), self.now(now)]
        if local is not None:
            parts.append(local)
        y = self.gate(*parts, label=label)
        return None if self.residual is None else now + self.residual(y), self.skip(y)


class WaveNet(nn.Module):
    """The distribution of each sample given the R before it, and a label if the network has labels.

    Attributes that may be set:
        dropout: the probability of zeroing a gated feature in training; initially 0.
        compute_dtype: the precision of the layers' matrix products, such as torch.bfloat16;
            initially None, for that of the weights.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, 0.0
        self.compute_dtype: torch.dtype | None = None
        self.distribution = output_distribution(config.distribution, config.levels, config.mixtures)
        if config.reads_numbers:
            self.read_past = nn.Linear(NUMBERS, config.hidden_dim, bias=False)
            self.read_now = nn.Linear(NUMBERS, config.hidden_dim)
        else:
            self.embed_past = nn.Embedding(config.levels, config.hidden_dim)
            self.embed_now = nn.Embedding(config.levels, config.hidden_dim)
            for embedding in (self.embed_past, self.embed_now):
                embedding.weight.data = smooth_embeddings(config.levels, config.hidden_dim)
        self.dilations = config.dilations
        last = len(self.dilations) - 1
        self.layers: Any = nn.ModuleList(  # of ResidualLayer, which torch's types can't say
            ResidualLayer(config, last=i == last) for i in range(len(self.dilations)))
        self.frames = (FrameNetwork(config.features, 2 * config.hidden_dim, config.hop)
                       if config.features else None)
        self.hidden = nn.Linear(config.out_hidden_dim, config.out_hidden_dim)
        self.logits = nn.Linear(config.out_hidden_dim, self.distribution.parameters)
        self.distribution.initialize(self.logits.weight, self.logits.bias)
        if config.prediction:
            self.prediction: torch.Tensor  # of the sample after those at t - 1 and t
            self.register_buffer("prediction", torch.tensor([0.0, 1.0]))
        self._workspace = Workspace()

    def forward(self, codes: torch.Tensor, label: torch.Tensor | None = None,
                frames: Frames | None = None) -> torch.Tensor:
        """Compute the parameters of the distributions, such as logits, for a batch of sequences.

        Args:
            codes: (B, T), integers in [0, levels), T ≥ R.
            label: (B,), or None.
            frames: the features that cover the codes and the sample after them, or None.

        Returns (B, parameters, T - R + 1), such as all levels' logits. Output k predicts the sample
        after code k + R - 1, so the last output predicts the sample after the codes.
        Raises ValueError for fewer codes than R.
        """
        outputs = codes.shape[1] - self.config.receptive_field + 1
        if outputs < 1:
            raise ValueError(f"{codes.shape[1]} codes are fewer than the receptive field of "
                             f"{self.config.receptive_field}")
        codes = codes.t().long()
        start = min(constant_length(codes), self._unconditioned_length(frames)) - 2
        start = int(max(min(start, len(codes) - outputs - 1), 0))
        codes = codes[start:]
        frame_inputs, interpolation = self._local_conditioning(frames, start, len(codes) - 1)
        skips = dilated_layers(
            self.embed(codes[:-1], codes[1:]), outputs, self._layer_weights(label, codes.shape[1]),
            self.dilations, self._workspace, self.dropout if self.training else 0.0,
            self.compute_dtype, frame_inputs, interpolation)
        skips = skips + sum(layer.skip.bias for layer in self.layers)
        return self.output(skips, codes[-outputs - 1:-1], codes[-outputs:]).permute(1, 2, 0)

    def _layer_weights(self, label: torch.Tensor | None, batch: int) -> tuple[torch.Tensor, ...]:
        """The weights that `dilated_layers` takes, for `batch` sequences.

        The columns leave out the biases of the residual connections. Such a bias shifts a layer's
        input equally at all times, so its product with the layer's weights is part of `bias`.
        """
        layers, p = self.layers, self.config.hidden_dim
        past, now, skip = (torch.stack([getattr(layer, name).weight.t() for layer in layers])
                           for name in ("past", "now", "skip"))
        bias = torch.stack([layer.now.bias for layer in layers])[:, None]
        if self.config.labels:
            bias = bias + torch.stack([layer.gate.condition(label) for layer in layers])
        residual, input_shift = past.new_empty(0, p, p), past.new_zeros(1, p)
        if len(layers) > 1:
            residual = torch.stack([layer.residual.weight.t() for layer in layers[:-1]])
            biases = torch.stack([layer.residual.bias for layer in layers[:-1]])
            input_shift = torch.cat((input_shift, biases.cumsum(0)))
        bias = bias + input_shift[:, None] @ (past + now)
        return past, now, bias.expand(-1, batch, -1), residual, skip

    def _unconditioned_length(self, frames: Frames | None) -> float:
        """How many of the first codes precede a sample without a frame, in every sequence."""
        if frames is None or not len(frames.valid):
            return math.inf
        first = torch.where(frames.valid.any(1), frames.valid.to(torch.uint8).argmax(1),
                            frames.valid.shape[1])
        return int((first * self.config.hop - frames.offset).amin()) - 1

    def _local_conditioning(self, frames: Frames | None, start: int, columns: int
                            ) -> tuple[torch.Tensor | None, Interpolation | None]:
        """The frames' inputs to the gates and their interpolation, as `dilated_layers` takes them,
        for the columns from codes[:, start] on.

        A column is conditioned on the frames around the sample that it predicts.
        """
        if frames is None:
            return None, None
        if self.frames is None:
            raise ValueError("the network has no features, so it takes no frames")
        h = self.frames(frames.values, frames.valid)
        projection = torch.stack([layer.local.weight for layer in self.layers])[:, None]
        return h @ projection.mT, self.frames.interpolation(
            frames.valid, frames.offset + start + 2, columns)

    def embed(self, past: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
        """The first causal convolution, of the codes at t - 1 and at t: (…,) -> (…, p)."""
        if self.config.reads_numbers:
            past, now = (code_numbers(codes, self.config.levels, self.logits.weight.dtype)
                         for codes in (past, now))
            return self.read_past(past) + self.read_now(now)
        return self.embed_past(past) + self.embed_now(now)

    def output(self, skips: torch.Tensor, past: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
        """The distribution (…, parameters) of the sample after the codes at t - 1 and t (…,).

        skips: the sum of all skip connections at t, (…, q).
        """
        parameters = self.logits(F.relu(self.hidden(F.relu(skips))))
        if not self.config.prediction:
            return parameters
        past, now = (code_positions(codes, self.config.levels, parameters.dtype)
                     for codes in (past, now))
        return self.distribution.shift(parameters,
                                       self.prediction[0] * past + self.prediction[1] * now)


def smooth_embeddings(levels: int, width: int) -> torch.Tensor:
    """Initial embeddings (levels, width): cosines of the code, randomly rotated.

    The cosines are the lowest frequencies of the discrete cosine transform, with mean square 1/2
    each. The rotation mixes them in every feature map.
    """
    frequency = math.pi * (torch.arange(width) % levels)
    cosines = torch.cos(frequency * (torch.arange(levels)[:, None] + 0.5) / levels)
    cosines[:, 0] *= 0.5 ** 0.5
    rotation, _ = torch.linalg.qr(torch.randn(width, width))
    return cosines @ rotation


def constant_length(codes: torch.Tensor) -> int:
    """How many of the first codes (T, B) repeat the very first one, in every sequence."""
    changed = (codes != codes[:1]).any(dim=1)
    return int(changed.to(torch.uint8).argmax()) if changed.any() else len(codes)
