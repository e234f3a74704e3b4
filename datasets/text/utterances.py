"""Recordings with their phonemes, as batches to train a `models.speech.SpeechNetwork` on."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from datasets.audio.features import TEXT_WIDTH
from datasets.corpus.reader import Split
from datasets.text.frames import TEXT_COLUMNS, read_phonemes

VOICED, PITCH = TEXT_COLUMNS.index("voiced"), TEXT_COLUMNS.index("pitch")
LEAST_VOICED = 2  # frames of a phoneme from which its pitch is known
BUCKET_BATCHES = 8  # batches whose recordings are sorted by length, so that little is padding


class UtteranceBatch(NamedTuple):
    """B recordings of up to n phonemes and up to T frames.

    phonemes: (B, n, columns), int64. mask: (B, n, 1), 0 beyond a recording's end. frames: (B, n),
    int64, how many each phoneme lasts. pitch: (B, n, 2), normalised, and 1 where it is known. mel:
    (B, T, bins). label: (B,), or None.
    """

    phonemes: torch.Tensor
    mask: torch.Tensor
    frames: torch.Tensor
    pitch: torch.Tensor
    mel: torch.Tensor
    label: torch.Tensor | None

    def to(self, device: torch.device | str) -> "UtteranceBatch":
        """Copy the batch to `device`."""
        phonemes, mask, frames, pitch, mel = (part.to(device) for part in self[:5])
        return UtteranceBatch(phonemes, mask, frames, pitch, mel,
                              None if self.label is None else self.label.to(device))


def pitch_statistics(split: Split) -> tuple[float, float]:
    """Return mean and standard deviation of the pitch of all voiced frames in a split."""
    pitch = np.concatenate([shard[:, PITCH][shard[:, VOICED] > 0]
                            for shard in split.frame_shards], dtype=np.float64)
    return (float(pitch.mean()), float(pitch.std()) or 1.0) if len(pitch) else (0.0, 1.0)


def read_batch(split: Split, indices: np.ndarray, pitch_statistics: tuple[float, float]
               ) -> UtteranceBatch:
    """Read the recordings `indices` of a split with features of kind "text".

    Raises UserError for a damaged corpus.
    """
    read = [split.read_frames(index) for index in indices]
    spoken = [read_phonemes(frames) for frames in read]
    size, most = len(read), max(len(one.frames) for one in spoken)
    columns = spoken[0].rows.shape[1]
    phonemes = np.zeros((size, most, columns), np.int64)
    mask = np.zeros((size, most, 1), np.float32)
    lengths = np.zeros((size, most), np.int64)
    pitch = np.zeros((size, most, 2), np.float32)
    mel = np.zeros((size, max(map(len, read)), read[0].shape[1] - TEXT_WIDTH), np.float32)
    for row, (frames, one) in enumerate(zip(read, spoken, strict=True)):
        count = len(one.frames)
        phonemes[row, :count], lengths[row, :count], mask[row, :count] = one.rows, one.frames, 1
        pitch[row, :count] = phoneme_pitch(frames, one.frames, *pitch_statistics)
        mel[row, :len(frames)] = frames[:, TEXT_WIDTH:]
    label = None
    if split.recordings[indices[0]].label is not None:
        label = torch.tensor([split.recordings[index].label for index in indices])
    return UtteranceBatch(torch.from_numpy(phonemes), torch.from_numpy(mask),
                          torch.from_numpy(lengths), torch.from_numpy(pitch),
                          torch.from_numpy(mel), label)


def phoneme_pitch(frames: np.ndarray, lengths: np.ndarray, mean: float,
                   deviation: float) -> np.ndarray:
    """Return the mean pitch of each phoneme's voiced frames, and whether there is one: (n, 2)."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    count = np.bincount(owner, frames[:, VOICED], len(lengths))
    total = np.bincount(owner, frames[:, PITCH] * frames[:, VOICED], len(lengths))
    known = count >= LEAST_VOICED
    pitch = np.where(known, (total / np.maximum(count, 1) - mean) / deviation, 0)
    return np.stack((pitch, known), axis=1)


def shuffled_batches(split: Split, size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Yield the recordings of an epoch in batches of `size`, of similar lengths, in random order.

    Recordings that don't fill a batch are left out; others are in the next epoch.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(split.recordings))
    lengths = np.array([recording.length for recording in split.recordings])
    size = min(size, len(order))
    batches = []
    for bucket in np.split(order, range(size * BUCKET_BATCHES, len(order), size * BUCKET_BATCHES)):
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        begin = random.integers(len(bucket) % size + 1)
        batches += [bucket[first:first + size]
                    for first in range(begin, len(bucket) - size + 1, size)]
    for number in random.permutation(len(batches)):
        yield batches[number]
