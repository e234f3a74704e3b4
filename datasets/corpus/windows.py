"""Windows of a corpus, cut when read: every sample is a target once, with its full context."""

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.batches import IGNORED, Batch
from datasets.corpus.reader import Split, check_codes, check_frames
from datasets.quantization import silence
from models.local_conditioning import Frames


class Windows(Dataset):
    """The windows of a corpus split: `target_length` targets each, and the codes before them.

    Window k of a recording begins at its sample s = k · target_length. Its targets are the codes
    from s on, with IGNORED after the recording's end. Its inputs are the `receptive_field` codes
    before s and all targets but the last, with silence outside the recording. So the network's
    output k, which sees the inputs k to k + receptive_field - 1, predicts target k.

    A batch is as long as its longest window: its rows have `outputs` ≤ target_length targets and
    T = receptive_field + outputs - 1 inputs. So a batch of short recordings costs no more than
    they need, however large target_length is.

    With features, each row has the frames from `margin` before the first input's to at least
    `margin` after the last target's. All rows of a batch have the same number of frames.
    """

    def __init__(self, split: Split, target_length: int, receptive_field: int, levels: int,
                 margin: int = 0):
        self.split, self.levels, self.margin = split, levels, margin
        self.target_length, self.receptive_field = target_length, receptive_field
        self.lengths = np.array([recording.length for recording in split.recordings], np.int64)
        # Windows up to the end of each recording.
        self.ends = np.cumsum(-(-self.lengths // target_length))
        self.labelled = any(recording.label is not None for recording in split.recordings)
        self.may_exceed = any(np.iinfo(shard.dtype).max >= levels for shard in split.shards)
        self.epoch = 0  # set by the loader; nothing here is random

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def label_counts(self, labels: int) -> list[int]:
        """Count the samples of each of `labels` labels; without labels, of all."""
        owners = [recording.label or 0 for recording in self.split.recordings]
        return np.bincount(owners, self.lengths, minlength=labels).astype(np.int64).tolist()

    def __getitem__(self, indices) -> Batch:
        """Return the Batch of the windows `indices`: codes (B, T), targets (B, outputs).

        Raises UserError naming the shard if codes exceed the levels or frames are not finite. Here,
        because the check costs almost nothing while they are read.
        """
        indices = np.asarray(indices, np.int64)
        owners = np.searchsorted(self.ends, indices, side="right")
        lengths = self.lengths[owners]
        firsts = self.ends[owners] - -(-lengths // self.target_length)
        starts = (indices - firsts) * self.target_length  # the sample of each row's first target
        outputs = int(np.minimum(lengths - starts, self.target_length).max(initial=1))
        shape = len(indices), self.receptive_field + outputs - 1
        codes = np.full(shape, silence(self.levels), np.int64)
        targets = np.full((len(indices), outputs), IGNORED, np.int64)
        origins = starts - self.receptive_field  # the sample of each row's first input
        for row, (owner, start, origin) in enumerate(zip(owners, starts, origins, strict=True)):
            recording = self.split.codes(owner)
            target = recording[start:start + outputs]
            targets[row, :len(target)] = target
            seen = recording[max(origin, 0):origin + shape[1]]
            skipped = max(-origin, 0)
            codes[row, skipped:skipped + len(seen)] = seen
        if self.may_exceed and max(codes.max(initial=0), targets.max(initial=0)) >= self.levels:
            for owner, *parts in zip(owners, codes, targets, strict=True):
                check_codes(np.concatenate(parts), self.levels, self.split.shard(owner))
        label = None
        if self.labelled:
            label = torch.tensor([self.split.recordings[owner].label for owner in owners],
                                 dtype=torch.long)
        frames = self._frames(owners, origins, shape[1]) if self.split.features else None
        return Batch(torch.from_numpy(codes), torch.from_numpy(targets), label, frames)

    def _frames(self, owners, origins, inputs):
        """Return the Frames of windows of recordings `owners`, for `inputs` samples from the
        samples `origins` on.
        """
        features = self.split.features
        # The worst case: the first input is the last sample of its frame.
        count = self.margin + (features.hop - 1 + inputs) // features.hop + 1 + self.margin
        values = np.zeros((len(owners), count, features.width), np.float32)
        valid = np.zeros((len(owners), count), bool)
        firsts = origins // features.hop - self.margin
        for row, (owner, first) in enumerate(zip(owners, firsts, strict=True)):
            recording = self.split.frames(owner)
            given = recording[max(first, 0):first + count]
            places = slice(max(-first, 0), max(-first, 0) + len(given))
            values[row, places], valid[row, places] = given, True
        if not np.isfinite(values).all():
            for row, owner in zip(values, owners, strict=True):
                check_frames(row, self.split.frame_shard(owner))
        return Frames(*map(torch.from_numpy, (values, valid, origins - firsts * features.hop)))
