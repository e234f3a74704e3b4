"""The preprocessed corpus: the mu-law codes of many recordings, one after the other, in shards.

    vctk_manifest.json           settings, label names, and where each recording lies
    vctk_train_00000.npy …       codes, one-dimensional, uint8 (uint16 above 256 levels)
    vctk_validation_00000.npy …  the same for the recordings held back

With features (datasets.audio.features) there are for each of these shards, in the same order,

    vctk_train_features_00000.npy …  the recordings' frames, (frames, width), float32

A corpus that several machines prepare has all of these for each of its shares, as in
vctk_2_of_8_manifest.json; read together they are the corpus that one would have written.

No sample is stored twice: windows with their context are cut when read (datasets.corpus.windows). A
recording lies wholly in one shard, and shards are read as memory maps.
"""

import os
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from datasets.arrays import NoArrayError, map_array
from datasets.corpus.manifest import (
    AGAIN,
    ENTIRE_CORPUS,
    PARTS,
    CorpusPart,
    read_manifest,
    shares_in,
)
from datasets.quantization import code_dtype

SURVEYED = 20_000  # frames that tell what frames are like


class Recording(NamedTuple):
    """Where the codes of one recording lie; lengths and offsets in samples."""

    name: str  # its path relative to the data folder
    label: int | None
    shard: int
    offset: int
    length: int


def validation_names(names, wanted):
    """The set of the `names` that are held back for validation: about a fraction of them.

    wanted: the fraction, or a regular expression (text) that those have which are held back. By a
    fraction they are chosen by a hash of the name, so it is the same at every run, in whatever
    order they come. At least one of two or more, and never all. What two microphones recorded at
    once, as in VCTK's p225_001_mic1.flac and p225_001_mic2.flac, stays together.
    """
    if isinstance(wanted, str):
        return {name for name in names if re.search(wanted, name)}
    takes = {}
    for name in set(names):
        takes.setdefault(re.sub(r"_mic\d+(?=\.\w+$)", "", name), []).append(name)
    order = sorted(takes, key=lambda take: (zlib.crc32(os.fsencode(take)), take))
    if not wanted or len(order) < 2:
        return set()
    held_back = order[:min(max(1, round(len(order) * wanted)), len(order) - 1)]
    return {name for take in held_back for name in takes[take]}


class Part:
    """The recordings of one part of a corpus, as memory maps.

    features: what their frames are (`Features`), or None; frame_shards: these, for
    each of the `shards` of codes. ValueError if there are not as many as cover the recordings.
    """

    def __init__(self, recordings, shards, features=None, frame_shards=()):
        self.recordings, self.shards = recordings, shards
        self.features, self.frame_shards = features, frame_shards
        if features:
            self.first_frames, filled = _first_frames(recordings, features)
            if [filled[number] for number in range(len(shards))] != [*map(len, frame_shards)]:
                raise ValueError("there are more frames or fewer than cover the recordings")

    def shard(self, index):
        """The codes of all recordings in one file with recording `index`."""
        return self.shards[self.recordings[index].shard]

    def frame_shard(self, index):
        """The frames of these."""
        return self.frame_shards[self.recordings[index].shard]

    def codes(self, index):
        """The codes of recording `index`: (length,), uint8 or uint16, not read before used."""
        recording = self.recordings[index]
        return self.shard(index)[recording.offset:recording.offset + recording.length]

    def frames(self, index):
        """The frames of recording `index`: (frames, width), float32, not read before used."""
        recording, first = self.recordings[index], self.first_frames[index]
        return self.frame_shard(index)[first:first + self.features.count(recording.length)]

    def read_frames(self, index, begin=0, end=None):
        """Frames of recording `index`, from `begin` up to `end`, in memory: (n, width), float32.

        Raises UserError where they are not finite.
        """
        frames = np.array(self.frames(index)[begin:end])
        check_frames(frames, self.frame_shard(index))
        return frames

    def frame_statistics(self):
        """The mean and the standard deviation of each of a frame's numbers: two arrays (width,).

        Of all frames, or of SURVEYED and some more, evenly chosen. What never changes is said to
        have a deviation of 1. Raises UserError where they are not finite.
        """
        step = max(sum(map(len, self.frame_shards)) // SURVEYED, 1)
        for shard in self.frame_shards:
            check_frames(shard[::step], shard)
        surveyed = np.concatenate([shard[::step] for shard in self.frame_shards], dtype=np.float64)
        mean, deviation = surveyed.mean(axis=0), surveyed.std(axis=0)
        return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1)


def check_codes(codes, levels, shard):
    """Raises UserError naming the file of `shard` where its `codes`, not none, reach `levels`."""
    most = codes.max()
    if most >= levels:
        raise UserError(f"{file_of(shard)}: damaged (the code {most} of {levels} levels); {AGAIN}")


def check_frames(frames, shard):
    """Raises UserError naming the file of `shard` where its `frames` are not finite."""
    if not np.isfinite(frames).all():
        raise UserError(f"{file_of(shard)}: damaged (NaN or infinite numbers); {AGAIN}")


def file_of(shard):
    """What to call the file that a shard is a memory map of."""
    return getattr(shard, "filename", None) or "a shard of the corpus"


def _first_frames(recordings, features):
    """Where in its shard the frames of each recording begin: they lie in the order of its codes.

    And {shard: its frames in all}.
    """
    first, filled = [0] * len(recordings), Counter()
    for index in sorted(range(len(recordings)), key=lambda index: recordings[index][2:4]):
        recording = recordings[index]
        first[index] = filled[recording.shard]
        filled[recording.shard] += features.count(recording.length)
    return first, filled


class Corpus:
    """What preprocess.py wrote into `folder`: `train` and `validation`, each a Part, and settings.

    rate (Hz), levels, stacks_num, layers_num, target_length, label_names ([] without labels),
    features (datasets.audio.features.Features, or None).
    Raises UserError naming the file that is missing, of another version, damaged, or of another
    corpus than the others.
    """

    def __init__(self, folder):
        folder = Path(folder)
        shares = [_Stored(folder, share) for share in _complete(folder)]
        first = shares[0]
        for other in shares[1:]:
            if ((other.settings, other.features, other.collection)
                    != (first.settings, first.features, first.collection)):
                raise UserError(f"{other.path}: prepared with other flags or from other recordings "
                                f"than {first.path.name}; run preprocess.py with the same for "
                                "every --part")
        self.rate, self.levels, self.stacks_num, self.layers_num, self.target_length = (
            first.settings)
        self.features = first.features
        self.label_names = sorted({name for share in shares for name in share.label_names})
        self.train, self.validation = (
            merge_splits([share.parts[part] for share in shares],
                         [share.label_names for share in shares], self.label_names)
            for part in PARTS)
        where = first.path if len(shares) == 1 else folder
        if not self.train.recordings:
            what = "there is no recording" if len(shares) == 1 else (
                f"in none of its {len(shares)} parts there is a recording")
            raise UserError(f"{where}: {what} to train on; run preprocess.py on others")
        names = Counter(one.name for part in (self.train, self.validation)
                        for one in part.recordings)
        name, times = names.most_common(1)[0]
        if times > 1:
            raise UserError(f"{where}: {ascii(name)} is in it {times} times; run preprocess.py "
                            "again, for every --part")


def _complete(folder):
    """The shares that make up the corpus in `folder`; UserError if there is none, or not one."""
    found = shares_in(folder)
    if not found:
        raise UserError(f"{folder / ENTIRE_CORPUS.manifest}: not found; run preprocess.py first: "
                        f"python preprocess.py --data RECORDINGS --output {folder}")
    if found[0].count != found[-1].count:
        raise UserError(f"{folder}: holds {found[0].manifest} and {found[-1].manifest}, which are "
                        "of different corpora; move the files of one to a folder of their own")
    count = found[0].count
    for share in (CorpusPart(number, count) for number in range(1, count + 1)):
        if share not in found:
            raise UserError(f"{folder / share.manifest}: not found, one of {count} parts; prepare "
                            "it with the same flags as the others: python preprocess.py --part "
                            f"{share.number}/{count} --data RECORDINGS --output {folder}")
    return found


def merge_splits(parts, names, all_names):
    """One Part of several: recordings in the order of their paths, labels by number in `all_names`.

    names: of each part its label names.
    """
    index = {name: number for number, name in enumerate(all_names)}
    recordings, shards, frame_shards = [], [], []
    for part, own_names in zip(parts, names, strict=True):
        recordings += [
            recording._replace(shard=recording.shard + len(shards),
                               label=None if recording.label is None
                               else index[own_names[recording.label]])
            for recording in part.recordings]
        shards += part.shards
        frame_shards += part.frame_shards
    if len(parts) > 1:
        recordings.sort(key=lambda recording: recording.name.split("/"))  # as paths are sorted
    return Part(recordings, shards, parts[0].features, frame_shards)


class _Stored:
    """What the manifest of a share in `folder` describes.

    settings: in the order of SETTINGS. features: a Features or None. collection: what all shares of
    a corpus have in common. label_names. parts: {"train": Part, "validation": Part}.
    """

    def __init__(self, folder, share):
        self.path = folder / share.manifest
        manifest = read_manifest(folder, share)
        self.settings, self.features = manifest.settings, manifest.features
        self.collection, self.label_names = manifest.collection, manifest.label_names
        self.parts = {}
        for name in PARTS:
            stored = getattr(manifest.parts, name)
            try:
                self.parts[name] = Part(
                    [Recording(os.fsdecode(one.name), one.label, one.shard, one.offset, one.length)
                     for one in stored.recordings],
                    *_open_shards(folder, stored.shards, code_dtype(manifest.levels),
                                  manifest.features))
            except ValueError as error:
                raise UserError(f"{self.path}: damaged (parts.{name}: {error}); {AGAIN}") from None


def _open_shards(folder, shards, dtype, features):
    """([codes of each of a manifest's shards], features, [frames of each]), memory-mapped."""
    codes = [open_shard(folder / shard.file, (shard.samples,), dtype) for shard in shards]
    frames = [open_shard(folder / shard.features, (shard.frames, features.width), np.float32)
              for shard in shards if features]
    return codes, features, frames


def open_shard(path, shape, dtype):
    """The array at `path` as a memory map; UserError if it is another than is said."""
    try:
        array = map_array(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {AGAIN}") from None
    except NoArrayError as error:
        raise UserError(f"{path}: damaged or incomplete ({error}); {AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); make it readable") from None
    if array.shape != shape or array.dtype != dtype:
        raise UserError(f"{path}: holds {array.dtype} {array.shape}, the manifest says "
                        f"{np.dtype(dtype)} {shape}; {AGAIN}")
    return array
