"""Draw sounds from a WaveNet, in batches that fit into memory, and write them while they grow."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from common.signals import Signals
from models.wavenet import WaveNet, WaveNetConfig
from sampling.output.sound import Pipe, Progress, WavFiles, pcm_table, write_sounds
from sampling.random_streams import RandomStreams
from sampling.rendering import SamplingOptions
from sampling.speech import SpokenText
from sampling.wavenet import sample_sounds

# Limits of a batch, which bound the memory: sounds, and floats that the sampler keeps.
BATCH_SOUNDS, BATCH_FLOATS = 64, 2 ** 28
NO_PRIME = np.empty(0, np.uint8)


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound to draw.

    stream: number of its random stream. label: its number, None for a network without labels.
    length: samples to draw, prime excluded; None to draw without end. prime: codes (P,) that it
    continues. frames: (K, features), float32, of a network with features. text: instead of them,
    one array of frames for each sentence; the sound then ends with the text, or after `length`
    samples. path: of its wav, None for a pipe. row: what it is a sample of, in words.
    """

    stream: int
    label: int | None = None
    length: int | None = None
    prime: np.ndarray = field(default_factory=lambda: NO_PRIME)
    frames: np.ndarray | None = None
    text: SpokenText | None = None
    path: Path | None = None
    row: str = "samples"

    @property
    def wav(self) -> Path:
        """The path of a sound that is written to a file."""
        assert self.path is not None, "a sound for a pipe has no file"
        return self.path


def render_sounds(model: WaveNet, sounds: Sequence[Sound], options: SamplingOptions,
                  open_output: Callable[[Sequence[Sound]], WavFiles | Pipe],
                  progress: Progress, signals: Signals, encoding: str = "mulaw"
                  ) -> dict[Sound, float]:
    """Draw `sounds` and write them while they are drawn; a signal ends it early.

    open_output: makes the output of a batch of sounds. encoding: of the network's codes.
    Returns the seconds of each sound begun: its share of its batch's, by its length.
    """
    pcm, seconds = pcm_table(model.config.levels, encoding), {}
    for batch in sound_batches(model.config, sounds):
        before = progress.seconds
        write_sounds(draw_sounds(model, batch, options), [sound.length for sound in batch],
                     open_output(batch), batch[0].prime, pcm, progress, signals)
        total = sum(sound.length or 0 for sound in batch)
        for sound in batch:
            share = sound.length / total if sound.length else 1 / len(batch)
            seconds[sound] = share * (progress.seconds - before)
        if signals.number:
            break
    return seconds


def sound_batches(config: WaveNetConfig, sounds: Sequence[Sound]) -> list[Sequence[Sound]]:
    """Split `sounds` into batches that fit into memory.

    Sounds of a batch continue the same prime; those with features have similar lengths. A text is
    drawn alone.
    """
    floats = config.receptive_field * config.hidden_dim  # that a sampler keeps of a sound
    if any(sound.text for sound in sounds):
        return [[sound] for sound in sounds]
    if config.features:
        groups = [sorted(sounds, key=lambda sound: sound.length or 0)]
        frames = groups[0][-1].frames
        assert frames is not None, "a network with features draws by frames"
        floats += len(frames) * (config.features + 2 * config.hidden_dim)
    else:
        groups = [list(group) for _, group in groupby(sounds, lambda sound: id(sound.prime))]
    size = max(1, min(BATCH_SOUNDS, BATCH_FLOATS // floats))
    return [group[i:i + size] for group in groups for i in range(0, len(group), size)]


def draw_sounds(model: WaveNet, sounds: Sequence[Sound], options: SamplingOptions
                ) -> Iterator[torch.Tensor]:
    """Draw one batch of sounds until the longest ends, as blocks of codes (sounds, n) on the CPU.

    All sounds continue the same prime, and all or none have a label and frames.
    """
    if sounds[0].text:
        sound, = sounds
        yield from _draw_text(model, sound, options)
        return
    label = frames = None
    if sounds[0].label is not None:
        label = torch.tensor([sound.label for sound in sounds], device=model.logits.weight.device)
    if sounds[0].frames is not None:
        frames = [torch.from_numpy(sound.frames) for sound in sounds]
    lengths = [sound.length for sound in sounds if sound.length is not None]
    prime = torch.from_numpy(sounds[0].prime.astype(np.int64)).expand(len(sounds), -1)
    streams = RandomStreams(options.seed, [sound.stream for sound in sounds])
    yield from sample_sounds(model, streams, label, max(lengths, default=None),
                             options.temperature, options.top_p, prime, options.precision,
                             frames=frames)


def _draw_text(model: WaveNet, sound: Sound, options: SamplingOptions) -> Iterator[torch.Tensor]:
    """Draw the sentences of a text, each from silence, as blocks of codes (1, n) on the CPU."""
    assert sound.text
    drawn = 0
    for number, frames in enumerate(sound.text):
        length = len(frames) * model.config.hop
        if sound.length is not None:
            length = min(length, sound.length - drawn)
        if not length:
            return
        drawn += length
        # Each sentence has random numbers of its own.
        sentence = Sound(sound.stream + (number << 32), sound.label, length, frames=frames)
        yield from draw_sounds(model, [sentence], options)
