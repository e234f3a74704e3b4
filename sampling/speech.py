"""Texts as the frames that a WaveNet speaks, sentence by sentence."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from datasets.text.frames import phoneme_rows
from datasets.text.phonemes import read_sentences
from models.speech import SpeechNetwork


@dataclass(frozen=True, eq=False)
class SpokenText:
    """A text as it is spoken: its sentences are read and turned into frames when iterated.

    label: of the speaker, None for a network without labels. speed, pitch: factors.
    """

    network: SpeechNetwork
    text: str
    label: int | None = None
    speed: float = 1.0
    pitch: float = 1.0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the mel frames (K, bins) of each sentence, float32."""
        for sentence in read_sentences(self.text):
            phonemes = torch.from_numpy(phoneme_rows(sentence))
            yield self.network.speak(phonemes, self.label, self.speed, self.pitch).cpu().numpy()
