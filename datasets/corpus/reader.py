"""Read a preprocessed corpus: the codes of many recordings, one after the other, in shards.

    vctk_manifest.json           settings, label names, and where each recording lies
    vctk_train_00000.npy …       codes, one-dimensional, uint8 (uint16 above 256 levels)
    vctk_validation_00000.npy …  the same for the recordings held back

With features (datasets.audio.features), each of these shards has a file of frames:

    vctk_train_features_00000.npy …  the recordings' frames, (frames, width), float32

If several machines prepare a corpus, each of its parts has all of these, as in
vctk_2_of_8_manifest.json. Together they are the corpus that one machine would have written.

No sample is stored twice: windows and their context are cut when read (datasets.corpus.windows). A
recording lies in one shard, and shards are read as memory maps.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.files import os_errors_as_lines
from datasets.arrays import InvalidArrayError, map_array
from datasets.audio.features import TEXT_WIDTH, Features
from datasets.corpus.manifest import (
    AGAIN,
    ENTIRE_CORPUS,
    SPLITS,
    CorpusPart,
    Shard,
    parts_in,
    read_manifest,
)
from datasets.quantization import code_dtype

STATISTICS_FRAMES = 20_000  # frames that estimate mean and deviation


class Recording(NamedTuple):
    """Where the codes of one recording lie; length and offset in samples."""

    name: str  # its path relative to the data folder
    label: int | None
    shard: int
    offset: int
    length: int


class Split:
    """The recordings of one split of a corpus, as memory maps.

    shards: arrays of codes. features: the `Features` of the frames, or None. frame_shards: arrays
    of frames, one for each of `shards`. Raises ValueError unless the frames cover the recordings.
    """

    def __init__(self, recordings: list[Recording], shards: list[np.ndarray],
                 features: Features | None = None, frame_shards: Sequence[np.ndarray] = ()):
        self.recordings, self.shards = recordings, shards
        self.features, self.frame_shards = features, frame_shards
        if features:
            self.first_frames, filled = _first_frames(recordings, features)
            if [filled[number] for number in range(len(shards))] != [*map(len, frame_shards)]:
                raise ValueError("there are more frames or fewer than cover the recordings")

    def shard(self, index: int) -> np.ndarray:
        """Return the shard of codes that holds recording `index`."""
        return self.shards[self.recordings[index].shard]

    def frame_shard(self, index: int) -> np.ndarray:
        """Return the shard of frames that holds recording `index`."""
        return self.frame_shards[self.recordings[index].shard]

    def codes(self, index: int) -> np.ndarray:
        """Return the codes of recording `index`: (length,), uint8 or uint16, a memory map."""
        recording = self.recordings[index]
        return self.shard(index)[recording.offset:recording.offset + recording.length]

    def frames(self, index: int) -> np.ndarray:
        """Return the frames of recording `index`: (frames, width), float32, a memory map."""
        recording, first = self.recordings[index], self.first_frames[index]
        assert self.features
        return self.frame_shard(index)[first:first + self.features.count(recording.length)]

    def with_mel_frames(self) -> "Split":
        """Return the split with the log-mel frames that its text frames hold."""
        assert self.features and self.features.kind == "text"
        return Split(self.recordings, self.shards, self.features.mel,
                     [shard[:, TEXT_WIDTH:] for shard in self.frame_shards])

    def read_frames(self, index: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Read frames `begin` to `end` of recording `index` into memory: (n, width), float32.

        Raises UserError if they are not finite.
        """
        frames = np.array(self.frames(index)[begin:end])
        check_frames(frames, self.frame_shard(index))
        return frames

    def frame_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each number in a frame: two arrays (width,).

        Uses all frames, or at least STATISTICS_FRAMES, evenly spaced. A number that never changes
        gets a deviation of 1. Raises UserError if frames are not finite.
        """
        step = max(sum(map(len, self.frame_shards)) // STATISTICS_FRAMES, 1)
        for shard in self.frame_shards:
            check_frames(shard[::step], shard)
        frames = np.concatenate([shard[::step] for shard in self.frame_shards], dtype=np.float64)
        mean, deviation = frames.mean(axis=0), frames.std(axis=0)
        return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1)


def check_codes(codes: np.ndarray, levels: int, shard: np.ndarray) -> None:
    """Raise UserError naming the file of `shard` if its `codes`, at least one, reach `levels`."""
    most = codes.max()
    if most >= levels:
        raise UserError(f"{file_of(shard)}: damaged (the code {most} of {levels} levels); {AGAIN}")


def check_frames(frames: np.ndarray, shard: np.ndarray) -> None:
    """Raise UserError naming the file of `shard` if its `frames` are not finite."""
    if not np.isfinite(frames).all():
        raise UserError(f"{file_of(shard)}: damaged (NaN or infinite numbers); {AGAIN}")


def file_of(shard: np.ndarray) -> str:
    """Return the name of the file that `shard` maps."""
    return getattr(shard, "filename", None) or "a shard of the corpus"


def _first_frames(recordings: list[Recording],
                  features: Features) -> tuple[list[int], Counter[int]]:
    """Return where in its shard each recording's frames begin, and {shard: its frames in all}.

    Frames lie in the order of the codes.
    """
    first, filled = [0] * len(recordings), Counter[int]()
    for index in sorted(range(len(recordings)), key=lambda index: recordings[index][2:4]):
        recording = recordings[index]
        first[index] = filled[recording.shard]
        filled[recording.shard] += features.count(recording.length)
    return first, filled


class Corpus:
    """The corpus that preprocess.py wrote into `folder`: Splits `train` and `validation`, settings.

    Settings: rate (Hz), levels, encoding (one of `datasets.quantization.ENCODINGS`), stacks_num,
    layers_num, target_length, label_names ([] without labels), features
    (datasets.audio.features.Features, or None).
    Raises UserError naming the file that is missing, damaged, of another version, or of another
    corpus than the rest.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        parts = [_OpenPart(folder, part) for part in _all_parts(folder)]
        first = parts[0]
        for other in parts[1:]:
            if ((other.settings, other.features, other.collection, other.encoding)
                    != (first.settings, first.features, first.collection, first.encoding)):
                raise UserError(f"{other.path}: prepared with other flags or from other recordings "
                                f"than {first.path.name}; run preprocess.py with the same for "
                                "every --part")
        self.rate, self.levels, self.stacks_num, self.layers_num, self.target_length = (
            first.settings)
        self.features, self.encoding = first.features, first.encoding
        self.label_names = sorted({name for part in parts for name in part.label_names})
        self.train, self.validation = (
            merge_splits([part.splits[split] for part in parts],
                         [part.label_names for part in parts], self.label_names)
            for split in SPLITS)
        where = first.path if len(parts) == 1 else folder
        if not self.train.recordings:
            what = "there is no recording" if len(parts) == 1 else (
                f"in none of its {len(parts)} parts there is a recording")
            raise UserError(f"{where}: {what} to train on; run preprocess.py on others")
        names = Counter(one.name for split in (self.train, self.validation)
                        for one in split.recordings)
        name, times = names.most_common(1)[0]
        if times > 1:
            raise UserError(f"{where}: {ascii(name)} is in it {times} times; run preprocess.py "
                            "again, for every --part")


    def use_mel_frames(self) -> None:
        """Let the log-mel frames that text frames hold take their place; other frames stay."""
        if self.features and self.features.kind == "text":
            self.features = self.features.mel
            self.train, self.validation = (split.with_mel_frames()
                                           for split in (self.train, self.validation))


def _all_parts(folder: Path) -> list[CorpusPart]:
    """List the parts that make up the corpus in `folder`; UserError unless there is exactly one."""
    found = parts_in(folder)
    if not found:
        raise UserError(f"{folder / ENTIRE_CORPUS.manifest}: not found; run preprocess.py first: "
                        f"python preprocess.py --data RECORDINGS --output {folder}")
    if found[0].count != found[-1].count:
        raise UserError(f"{folder}: holds {found[0].manifest} and {found[-1].manifest}, which are "
                        "of different corpora; move the files of one to a folder of their own")
    count = found[0].count
    for part in (CorpusPart(number, count) for number in range(1, count + 1)):
        if part not in found:
            raise UserError(f"{folder / part.manifest}: not found, one of {count} parts; prepare "
                            "it with the same flags as the others: python preprocess.py --part "
                            f"{part.number}/{count} --data RECORDINGS --output {folder}")
    return found


def merge_splits(splits: list[Split], names: list[list[str]], all_names: list[str]) -> Split:
    """Merge splits: recordings in the order of their paths, labels numbered by `all_names`.

    names: the label names of each split.
    """
    index = {name: number for number, name in enumerate(all_names)}
    recordings: list[Recording] = []
    shards: list[np.ndarray] = []
    frame_shards: list[np.ndarray] = []
    for split, own_names in zip(splits, names, strict=True):
        recordings += [
            recording._replace(shard=recording.shard + len(shards),
                               label=None if recording.label is None
                               else index[own_names[recording.label]])
            for recording in split.recordings]
        shards += split.shards
        frame_shards += split.frame_shards
    if len(splits) > 1:
        recordings.sort(key=lambda recording: recording.name.split("/"))  # as paths are sorted
    return Split(recordings, shards, splits[0].features, frame_shards)


class _OpenPart:
    """A part of a corpus in `folder`, opened.

    settings: in the order of SETTINGS. features: the Features, or None. collection: a text that all
    parts of a corpus have in common. label_names. splits: {"train": Split, "validation": Split}.
    """

    def __init__(self, folder: Path, part: CorpusPart):
        self.path = folder / part.manifest
        manifest = read_manifest(folder, part)
        self.settings, self.features = manifest.settings, manifest.features
        self.collection, self.label_names = manifest.collection, manifest.label_names
        self.encoding: str = manifest.encoding
        self.splits = {}
        for name in SPLITS:
            stored = getattr(manifest.splits, name)
            try:
                self.splits[name] = Split(
                    [Recording(os.fsdecode(one.name), one.label, one.shard, one.offset, one.length)
                     for one in stored.recordings],
                    *_open_shards(folder, stored.shards, code_dtype(manifest.levels),
                                  manifest.features))
            except ValueError as error:
                raise UserError(f"{self.path}: damaged (parts.{name}: {error}); {AGAIN}") from None


def _open_shards(folder: Path, shards: list[Shard], dtype: np.dtype, features: Features | None
                 ) -> tuple[list[np.ndarray], Features | None, list[np.ndarray]]:
    """Return (codes of each shard, features, frames of each shard), memory-mapped."""
    codes = [open_shard(folder / shard.file, (shard.samples,), dtype) for shard in shards]
    frames = [open_shard(folder / str(shard.features), (shard.frames, features.width),
                         np.dtype(np.float32)) for shard in shards] if features else []
    return codes, features, frames


def open_shard(path: Path, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """Return the array at `path` as a memory map; UserError unless shape and dtype are right."""
    try:
        with os_errors_as_lines(path, "can't be read", "make it readable",
                                missing=f"missing; {AGAIN}"):
            array = map_array(path)
    except InvalidArrayError as error:
        raise UserError(f"{path}: damaged or incomplete ({error}); {AGAIN}") from None
    if array.shape != shape or array.dtype != dtype:
        raise UserError(f"{path}: holds {array.dtype} {array.shape}, the manifest says "
                        f"{dtype} {shape}; {AGAIN}")
    return array
