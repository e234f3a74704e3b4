"""Frames that say what a recording says: phonemes, pitch, and the log-mel spectrum of the sound.

A frame of the features of kind "text" holds TEXT_COLUMNS, then a log-mel frame. All frames of a
phoneme have the same number, so that its length can be counted.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from common.errors import UserError
from datasets.audio.features import Features, MelFrames
from datasets.audio.recordings import read_recording
from datasets.text import alignment
from datasets.text.alignment import AlignedPhoneme, align
from datasets.text.phonemes import PAUSES, PHONEMES, SILENCE, Sentence, read_sentences
from datasets.text.transcripts import Transcripts

# What the network reads of a phoneme, and how many values each has. first, last: whether it begins
# and ends its word. pause: after it, as in PAUSES. ending: of its sentence, as in PAUSES.
PHONEME_COLUMNS = {"phoneme": len(PHONEMES), "stress": 3, "first": 2, "last": 2,
                   "pause": len(PAUSES), "ending": len(PAUSES)}
# number: of the phoneme in its recording. pitch: the logarithm of the fundamental frequency in Hz;
# 0 where `voiced` is 0.
TEXT_COLUMNS = ("number", *PHONEME_COLUMNS, "voiced", "pitch")
LOWEST_PITCH, HIGHEST_PITCH = 60.0, 500.0  # Hz
PITCH_WINDOW = 1024  # samples at alignment.RATE
LONGEST = 120  # seconds of a recording
FULL_STOP = PAUSES.index(".")


class SpokenPhonemes(NamedTuple):
    """The phonemes of a recording or of a sentence to speak, silences included.

    rows: (n, len(PHONEME_COLUMNS)), int64. frames: (n,), how many frames each lasts.
    """

    rows: np.ndarray
    frames: np.ndarray


def phoneme_rows(sentence: Sentence) -> np.ndarray:
    """Return the rows of a sentence to speak, (n, len(PHONEME_COLUMNS)).

    It begins and ends with silence, and there is one wherever the text has a pause.
    """
    words = [(None, FULL_STOP), *((word, PAUSES.index(word.pause)) for word in sentence)]
    ending = words[-1][1]
    rows: list[list[int]] = []
    for word, pause in words:
        phonemes = word.phonemes if word else ()
        for place, phoneme in enumerate(phonemes):
            is_last = place == len(phonemes) - 1
            rows.append([PHONEMES.index(phoneme.symbol), phoneme.stress, int(place == 0),
                         int(is_last), pause if is_last else 0, ending])
        if pause:
            rows.append(_silence(pause, ending))
    return np.array(rows, np.int64)


def _silence(pause: int, ending: int) -> list[int]:
    return [PHONEMES.index(SILENCE), 0, 0, 0, pause, ending]


def aligned_rows(aligned: Sequence[AlignedPhoneme], sentences: Sequence[Sentence], hop: float,
                 total: int) -> SpokenPhonemes:
    """Return the phonemes of an aligned recording, for `total` frames of `hop` seconds.

    The recording begins and ends with silence, which may last no frame.
    """
    words = [word for sentence in sentences for word in sentence]
    endings = [PAUSES.index(sentence[-1].pause) for sentence in sentences for _ in sentence]
    rows, begins = [_silence(FULL_STOP, endings[0])], [0.0]
    word, pause = 0, FULL_STOP
    for place, one in enumerate(aligned):
        if one.word is None:
            if PHONEMES[rows[-1][0]] != SILENCE:
                rows.append(_silence(pause, endings[word]))
                begins.append(one.first * alignment.FRAME)
            continue
        word, pause = one.word, PAUSES.index(words[one.word].pause)
        is_first = not place or aligned[place - 1].word != word
        is_last = place == len(aligned) - 1 or aligned[place + 1].word != word
        rows.append([PHONEMES.index(one.phoneme.symbol), one.phoneme.stress, int(is_first),
                     int(is_last), pause if is_last else 0, endings[word]])
        begins.append(one.first * alignment.FRAME)
    if PHONEMES[rows[-1][0]] != SILENCE:
        rows.append(_silence(pause, endings[word]))
        begins.append((aligned[-1].first + aligned[-1].frames) * alignment.FRAME)
    bounds = np.minimum(np.rint(np.array(begins) / hop), total)
    return SpokenPhonemes(np.array(rows, np.int64),
                          np.diff(bounds, append=total).astype(np.int64))


def pitch_of(samples: np.ndarray, hop: float, total: int) -> np.ndarray:
    """Return `voiced` and `pitch` of TEXT_COLUMNS for `total` frames of `hop` seconds: (total, 2).

    samples: (n,) at alignment.RATE. The pitch is that of the probabilistic YIN algorithm.
    """
    _compile_pyin()
    step = hop * alignment.RATE
    found, voiced = _pyin(samples, max(round(step), 1))
    # pyin's frames are round(step) apart and centred on their samples.
    places = np.rint((np.arange(total) + 0.5) * step / max(round(step), 1)).astype(int)
    places = np.minimum(places, len(found) - 1)
    voiced = voiced[places]
    return np.stack((voiced, np.where(voiced, np.log(found[places]), 0)), axis=1)


def _pyin(samples: np.ndarray, hop_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The pitch in Hz of frames of samples, (frames,), and whether there is one."""
    import librosa  # here, because it takes a second
    return librosa.pyin(samples, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=alignment.RATE,
                        frame_length=PITCH_WINDOW, hop_length=hop_length)[:2]


@cache
def _compile_pyin() -> None:
    """Let librosa compile, or load what it compiled before, in one process at a time.

    numba caches machine code without a lock. Files of several processes can mix, and crash every
    process that loads them.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # a folder that can't be written, or locked
            stack.enter_context(FileLock(Path(gettempdir(), f"compiling-librosa-{user}.lock")))
        _pyin(np.zeros(2 * PITCH_WINDOW, np.float32), PITCH_WINDOW // 4)


class TextFrames:
    """Makes the text frames of the recording at `path`, with the interface of MelFrames.

    Raises UserError, at the latest in `end()`, for a recording without a transcript, or that does
    not say it.
    """

    def __init__(self, path: Path, features: Features, transcripts: Transcripts) -> None:
        self.path, self.features = path, features
        self.sentences = [*read_sentences(transcripts.text_of(path))]
        if not self.sentences:
            raise UserError(f"{path}: its transcript has no words of English; write what is said, "
                            "or remove the recording")
        self.mel = MelFrames(features.mel)
        self.mel_frames: list[np.ndarray] = []

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Take the next `samples`, (n,). Returns no frames, because the words come at the end."""
        self.mel_frames.append(self.mel.add(samples))
        if self.mel.length > LONGEST * self.features.rate:
            raise UserError(f"{self.path}: longer than {LONGEST} seconds; cut it into sentences")
        return np.empty((0, self.features.width), np.float32)

    def end(self) -> np.ndarray:
        """Return all frames: (frames, width) float32."""
        mel = np.concatenate([*self.mel_frames, self.mel.end()])
        samples = read_recording(self.path, alignment.RATE)
        hop = self.features.hop / self.features.rate
        phonemes = aligned_rows(align(samples, self.sentences, str(self.path)), self.sentences,
                                hop, len(mel))
        numbers = np.repeat(np.arange(len(phonemes.rows)), phonemes.frames)
        return np.concatenate([numbers[:, None], phonemes.rows[numbers],
                               pitch_of(samples, hop, len(mel)), mel], axis=1, dtype=np.float32)


def read_phonemes(frames: np.ndarray) -> SpokenPhonemes:
    """Read the phonemes back from text frames (n, width): those that last a frame or more."""
    bounds = np.flatnonzero(np.diff(frames[:, 0], prepend=-1, append=-1))
    columns = slice(1, 1 + len(PHONEME_COLUMNS))
    return SpokenPhonemes(frames[bounds[:-1], columns].astype(np.int64), np.diff(bounds))
