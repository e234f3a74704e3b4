"""From phonemes to the frames that a WaveNet speaks: durations, pitch, and a log-mel spectrum.

WaveNet's authors condition it on linguistic features of every frame, and predict durations and the
pitch with models that they do not describe [1, section 3.2]. This network predicts them, and then
the mel spectrum of the sound, which a WaveNet reads as local conditioning:

    phonemes -> encoder ─┬─> durations, pitch of each phoneme
                         └─> repeated for as many frames as each lasts, + pitch -> decoder -> mel

It is the plainest network that we found to be understood. Encoder and decoder are stacks of the
gated residual layer of both papers, not causal, because the whole sentence is known. There is no
attention: forced alignment says in training how long each phoneme lasts, and the predicted
durations say it when the network speaks. The order of prediction, with the true durations and pitch
as inputs in training, is that of FastPitch [2].

[1] van den Oord et al., WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499.
[2] Łańcucki, FastPitch: Parallel Text-to-speech with Pitch Prediction, arXiv 2006.06873.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import nn

from models.gated import GatedActivation

KERNEL = 5  # phonemes or frames that a layer sees
ENCODER_LAYERS = 4
DECODER_DILATIONS = (1, 2, 4, 1, 2, 4)
DROPOUT, HEAD_DROPOUT = 0.1, 0.3
PLACES = 3  # numbers that say where in its phoneme a frame is
NEAR = 20  # frames from a phoneme's ends that the network tells apart
PHONEME_VALUES = (40, 3, 2, 2, 5, 5)  # of each column of a phoneme's row


@dataclass(frozen=True)
class SpeechConfig:
    """The architecture of a SpeechNetwork.

    bins: numbers in a mel frame. hidden_dim: channels. labels: speakers, 0 for one without a name.
    """

    bins: Annotated[int, Meta(ge=1, le=2 ** 16)]
    hidden_dim: Annotated[int, Meta(ge=1, le=2 ** 16)] = 96
    labels: Annotated[int, Meta(ge=0, le=2 ** 24)] = 0


def speech_shapes(config: SpeechConfig) -> dict[str, tuple[int, ...]]:
    """Map the names in the network's `state_dict()` to shapes, without building it."""
    p = config.hidden_dim
    shapes: dict[str, tuple[int, ...]] = {"pitch_mean": (), "pitch_deviation": ()}
    shapes |= {f"embeddings.{i}.weight": (count, p) for i, count in enumerate(PHONEME_VALUES)}
    for stack, layers in (("encoder", ENCODER_LAYERS), ("decoder", len(DECODER_DILATIONS))):
        for i in range(layers):
            name = f"{stack}.{i}"
            shapes |= {f"{name}.convolution.weight": (2 * p, p, KERNEL),
                       f"{name}.convolution.bias": (2 * p,),
                       f"{name}.residual.weight": (p, p), f"{name}.residual.bias": (p,)}
            if config.labels:
                shapes[f"{name}.gate.condition.weight"] = config.labels, 2 * p
    for head, outputs in (("durations", 1), ("pitch", 2)):
        shapes |= {f"{head}.first.weight": (p, p, 3), f"{head}.first.bias": (p,),
                   f"{head}.second.weight": (outputs, p, 3), f"{head}.second.bias": (outputs,)}
    return shapes | {"read_pitch.weight": (p, 2, 3), "read_pitch.bias": (p,),
                     "read_place.weight": (p, PLACES), "read_place.bias": (p,),
                     "mel.weight": (config.bins, p), "mel.bias": (config.bins,)}


class Prosody(NamedTuple):
    """How phonemes are said.

    log_frames: (B, n), the logarithm of 1 + the frames that each lasts. pitch: (B, n), of its
    voiced frames, in the units of `SpeechNetwork.set_pitch`. voiced: (B, n), whether it has any: a
    number above 0 for yes.
    """

    log_frames: torch.Tensor
    pitch: torch.Tensor
    voiced: torch.Tensor


class GatedLayer(nn.Module):
    """A gated residual layer: equation 2 of [1], over past and future."""

    def __init__(self, channels: int, labels: int, dilation: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, 2 * channels, KERNEL, dilation=dilation,
                                     padding=dilation * (KERNEL // 2))
        self.gate = GatedActivation(channels, labels)
        self.residual = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor, mask: torch.Tensor,
                label: torch.Tensor | None) -> torch.Tensor:
        """x: (B, n, channels). mask: (B, n, 1), 0 beyond a sequence's end."""
        y = self.gate(self.convolution((x * mask).mT).mT, label=label)
        return x + self.residual(F.dropout(y, DROPOUT, self.training))


class SpeechNetwork(nn.Module):
    """Durations, pitch and mel frames of phonemes; see the module's docstring."""

    pitch_mean: torch.Tensor
    pitch_deviation: torch.Tensor

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.config, p = config, config.hidden_dim
        self.embeddings = nn.ModuleList(nn.Embedding(count, p) for count in PHONEME_VALUES)
        self.encoder = nn.ModuleList(GatedLayer(p, config.labels) for _ in range(ENCODER_LAYERS))
        self.durations = Head(p, 1)
        self.pitch = Head(p, 2)
        self.read_pitch = nn.Conv1d(2, p, 3, padding=1)
        self.read_place = nn.Linear(PLACES, p)
        self.decoder = nn.ModuleList(GatedLayer(p, config.labels, dilation)
                                     for dilation in DECODER_DILATIONS)
        self.mel = nn.Linear(p, config.bins)
        self.register_buffer("pitch_mean", torch.zeros(()))
        self.register_buffer("pitch_deviation", torch.ones(()))

    def set_pitch(self, mean: float, deviation: float) -> None:
        """Set mean and standard deviation of the logarithm of the pitch in Hz."""
        self.pitch_mean.fill_(mean)
        self.pitch_deviation.fill_(deviation)

    def encode(self, phonemes: torch.Tensor, mask: torch.Tensor,
               label: torch.Tensor | None = None) -> torch.Tensor:
        """Encode phonemes (B, n, len(PHONEME_VALUES)) with their mask (B, n, 1): (B, n, p)."""
        x = torch.stack([embedding(column) for embedding, column
                         in zip(self.embeddings, phonemes.unbind(2), strict=True)]).sum(0)
        for layer in self.encoder:
            x = layer(x, mask, label)
        return x * mask

    def prosody(self, encoded: torch.Tensor) -> Prosody:
        """Predict how the `encoded` phonemes are said."""
        pitch, voiced = self.pitch(encoded).unbind(2)
        return Prosody(self.durations(encoded)[..., 0], pitch, voiced)

    def decode(self, encoded: torch.Tensor, pitch: torch.Tensor, frames: torch.Tensor,
               label: torch.Tensor | None = None) -> torch.Tensor:
        """Compute mel frames.

        Args:
            encoded: (B, n, p), from `encode`.
            pitch: (B, n, 2), pitch and 1 for each voiced phoneme, 0 and 0 for others.
            frames: (B, n), integers, how many frames each phoneme lasts; 0 beyond a sequence's end.
            label: (B,), or None.

        Returns (B, the most frames of a sequence, bins); beyond a sequence's end they mean nothing.
        """
        x = encoded + self.read_pitch(pitch.mT).mT
        ends = frames.cumsum(1)
        total = int(ends[:, -1].max())
        time = torch.arange(total, device=x.device).expand(len(x), -1).contiguous()
        owner = torch.searchsorted(ends, time, right=True).clamp(max=x.shape[1] - 1)
        length = frames.gather(1, owner).clamp(min=1)
        place = time - (ends - frames).gather(1, owner)
        left = (length - 1 - place).clamp(min=0)
        places = torch.stack(((place + 0.5) / length, place.clamp(max=NEAR) * (2 / NEAR),
                              left.clamp(max=NEAR) * (2 / NEAR)), dim=2)
        mask = (time < ends[:, -1:])[..., None].to(x.dtype)
        y = x.gather(1, owner[..., None].expand(-1, -1, x.shape[2])) + self.read_place(places)
        for layer in self.decoder:
            y = layer(y, mask, label)
        return self.mel(y)

    @torch.no_grad()
    def speak(self, phonemes: torch.Tensor, label: int | None = None, speed: float = 1.0,
              pitch: float = 1.0) -> torch.Tensor:
        """Return the mel frames (frames, bins) of a sentence's phonemes (n, columns).

        label: of the speaker. speed, pitch: factors of what the network predicts.
        """
        said = self.say(phonemes, label, speed, pitch)
        return self.decode(said.encoded, said.pitch, said.frames, said.label)[0]

    @torch.no_grad()
    def say(self, phonemes: torch.Tensor, label: int | None = None, speed: float = 1.0,
            pitch: float = 1.0) -> "SaidPhonemes":
        """Predict durations and pitch of a sentence's phonemes; arguments as for `speak`."""
        device = self.mel.weight.device
        phonemes = phonemes[None].to(device)
        who = None if label is None else torch.tensor([label], device=device)
        encoded = self.encode(phonemes, torch.ones_like(phonemes[..., :1], dtype=torch.float32),
                              who)
        said = self.prosody(encoded)
        frames = (said.log_frames.exp() - 1) / speed
        # Whole frames, without a drift: the sum is rounded, not each phoneme.
        ends = frames.clamp(min=1).cumsum(1).round().long()
        voiced = (said.voiced > 0).to(encoded.dtype)
        shift = torch.tensor(pitch, device=device).log() / self.pitch_deviation
        pitches = torch.stack(((said.pitch + shift) * voiced, voiced), dim=2)
        return SaidPhonemes(encoded, pitches, ends.diff(dim=1, prepend=ends.new_zeros(1, 1)), who)


class SaidPhonemes(NamedTuple):
    """A sentence's phonemes with what `SpeechNetwork.decode` takes, for a batch of 1."""

    encoded: torch.Tensor
    pitch: torch.Tensor
    frames: torch.Tensor
    label: torch.Tensor | None


class Head(nn.Module):
    """Two convolutions that predict `outputs` numbers for each phoneme."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 3, padding=1)
        self.second = nn.Conv1d(channels, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, n, channels) -> (B, n, outputs)."""
        y = F.dropout(F.relu(self.first(x.mT)), HEAD_DROPOUT, self.training)
        return self.second(y).mT
