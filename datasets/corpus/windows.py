"""Windows of a corpus, cut when read: every sample is a target once, with its full context."""

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.batches import IGNORED, Batch
from datasets.corpus.reader import check_codes, check_frames
from datasets.quantization import silence
from models.local_conditioning import Frames


class Windows(Dataset):
    """The windows of a corpus part: `target_length` targets each, and the codes before them.

    Window k of a recording begins at its sample s = k · target_length. Its targets are the codes
    from s on, with IGNORED after the recording's end; its inputs are the `receptive_field` codes
    before s and all targets but the last, T = receptive_field + target_length - 1, with silence
    where there is no recording. So the network's output k, which has seen the inputs k to
    k + receptive_field - 1, is to predict target k.

    With features there are, in every row, `margin` frames before that of the first input, those up
    to the last target's, and `margin` after it, or more: as many in all windows.
    """

    def __init__(self, part, target_length, receptive_field, levels, margin=0):
        self.part, self.levels, self.margin = part, levels, margin
        self.target_length, self.receptive_field = target_length, receptive_field
        self.lengths = np.array([recording.length for recording in part.recordings], np.int64)
        self.ends = np.cumsum(-(-self.lengths // target_length))  # windows up to each recording's
        self.labelled = any(recording.label is not None for recording in part.recordings)
        self.may_exceed = any(np.iinfo(shard.dtype).max >= levels for shard in part.shards)
        self.epoch = 0  # set by the loader; nothing is drawn at random here

    def __len__(self):
        return int(self.ends[-1]) if len(self.ends) else 0

    def label_counts(self, labels):
        """Samples of each of that many labels; of all, where there are none: a list."""
        owners = [recording.label or 0 for recording in self.part.recordings]
        return np.bincount(owners, self.lengths, minlength=labels).astype(np.int64).tolist()

    def __getitem__(self, indices):
        """The Batch of the windows `indices`: codes (B, T), targets (B, target_length).

        Raises UserError naming the shard whose codes are beyond the levels, or whose frames are not
        finite: reading them is when it costs next to nothing to see.
        """
        indices = np.asarray(indices, np.int64)
        owners = np.searchsorted(self.ends, indices, side="right")
        shape = len(indices), self.receptive_field + self.target_length - 1
        codes = np.full(shape, silence(self.levels), np.int64)
        targets = np.full((len(indices), self.target_length), IGNORED, np.int64)
        origins = np.empty_like(indices)  # the samples that the rows' first inputs are
        for row, (index, owner) in enumerate(zip(indices, owners, strict=True)):
            recording = self.part.codes(owner)
            first = self.ends[owner] - -(-len(recording) // self.target_length)
            start = (index - first) * self.target_length
            ahead = recording[start:start + self.target_length]
            targets[row, :len(ahead)] = ahead
            origins[row] = origin = start - self.receptive_field
            seen = recording[max(origin, 0):origin + shape[1]]
            skipped = max(-origin, 0)
            codes[row, skipped:skipped + len(seen)] = seen
        if self.may_exceed and max(codes.max(initial=0), targets.max(initial=0)) >= self.levels:
            for index, *row in zip(owners, codes, targets, strict=True):
                check_codes(np.concatenate(row), self.levels, self.part.shard(index))
        label = None
        if self.labelled:
            label = torch.tensor([self.part.recordings[owner].label for owner in owners],
                                 dtype=torch.long)
        frames = self._frames(owners, origins) if self.part.features else None
        return Batch(torch.from_numpy(codes), torch.from_numpy(targets), label, frames)

    def _frames(self, owners, origins):
        """The Frames of windows of the recordings `owners`, whose first inputs are at `origins`."""
        features = self.part.features
        inputs = self.receptive_field + self.target_length - 1
        # Where the first input is the last sample of its frame, the last target is that far on.
        count = self.margin + (features.hop - 1 + inputs) // features.hop + 1 + self.margin
        values = np.zeros((len(owners), count, features.width), np.float32)
        valid = np.zeros((len(owners), count), bool)
        firsts = origins // features.hop - self.margin
        for row, (owner, first) in enumerate(zip(owners, firsts, strict=True)):
            recording = self.part.frames(owner)
            given = recording[max(first, 0):first + count]
            places = slice(max(-first, 0), max(-first, 0) + len(given))
            values[row, places], valid[row, places] = given, True
        if not np.isfinite(values).all():
            for row, owner in zip(values, owners, strict=True):
                check_frames(row, self.part.frame_shard(owner))
        return Frames(*map(torch.from_numpy, (values, valid, origins - firsts * features.hop)))
