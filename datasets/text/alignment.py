"""When a recording says each phoneme of its words: forced alignment by pocketsphinx.

The package brings an acoustic model of English. Its phonemes are those of `datasets.text.phonemes`,
and its frames last 10 ms.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from common.errors import UserError
from datasets.text.phonemes import SILENCE, Phoneme, Sentence

RATE = 16000  # Hz, of the acoustic model
FRAME = 0.01  # seconds


class AlignedPhoneme(NamedTuple):
    """A phoneme in a recording.

    word: the number of its word among those of all sentences; None for silence. first, frames:
    where it begins, and how long it lasts.
    """

    phoneme: Phoneme
    word: int | None
    first: int
    frames: int


def align(samples: np.ndarray, sentences: Sequence[Sentence], source: str) -> list[AlignedPhoneme]:
    """Align a recording (n,), float32 at RATE, with the words it says.

    source: of the recording, for errors. Raises UserError if it does not fit its words, or if
    pocketsphinx is not installed.
    """
    words = [word for sentence in sentences for word in sentence]
    decoder, keys = _decoder(), []
    decoder.reinit_feat()  # the end of the recording before would move this one's first bounds
    for word in words:
        pronunciation = " ".join(phoneme.symbol for phoneme in word.phonemes)
        key = pronunciation.replace(" ", "_").lower()
        if decoder.lookup_word(key) is None:
            decoder.add_word(key, pronunciation, True)
        keys.append(key)
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
    try:
        decoder.set_align_text(" ".join(keys))
        _decode(decoder, pcm)
        if decoder.hyp() is None:
            raise RuntimeError
        decoder.set_alignment()
        _decode(decoder, pcm)
        return _read(decoder.get_alignment(), words)
    except (RuntimeError, ValueError):
        raise UserError(f"{source}: does not say what its transcript says; mend it, or remove "
                        "the recording") from None


def _decode(decoder: Any, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()


def _read(alignment: Any, words: Sentence) -> list[AlignedPhoneme]:
    """Read pocketsphinx's alignment; ValueError if it lacks a word."""
    aligned: list[AlignedPhoneme] = []
    number = 0
    for entry in alignment:
        if entry.name.startswith(("<", "[", "+")):
            phonemes, word = [Phoneme(SILENCE) for _ in entry], None
        else:
            phonemes, word, number = list(words[number].phonemes), number, number + 1
        aligned += [AlignedPhoneme(phoneme, word, part.start, part.duration)
                    for phoneme, part in zip(phonemes, entry, strict=True)]
    if number != len(words):
        raise ValueError
    return aligned


@cache
def _decoder() -> Any:
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise UserError("--features text needs the package pocketsphinx; pip install "
                        "pocketsphinx") from None
    return Decoder(samprate=RATE, lm=None, loglevel="FATAL")
