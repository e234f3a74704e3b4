"""The preprocessed corpus: the mu-law codes of many recordings, one after the other, in shards.

    vctk_manifest.json           settings, label names, and where each recording lies
    vctk_train_00000.npy …       codes, one-dimensional, uint8 (uint16 above 256 levels)
    vctk_validation_00000.npy …  the same for the recordings held back

With features (datasets.features) there are for each of these shards, in the same order,

    vctk_train_features_00000.npy …  the recordings' frames, (frames, width), float32

A corpus that several machines prepare has all of these for each of its shares, as in
vctk_2_of_8_manifest.json; read together they are the corpus that one would have written.

No sample is stored twice: windows with their context are cut when read (datasets.windows). A
recording lies wholly in one shard, and shards are read as memory maps.
"""

import json
import os
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.errors import UserError
from datasets.features import Features
from datasets.quantization import AUDIO_LEVELS, code_dtype

FORMAT = 1
SURVEYED = 20_000  # frames that tell what frames are like
PARTS = ("train", "validation")
SETTINGS = ("rate", "levels", "stacks_num", "layers_num", "target_length")


class Recording(NamedTuple):
    """Where the codes of one recording lie; lengths and offsets in samples."""

    name: str  # its path relative to the data folder
    label: int | None
    shard: int
    offset: int
    length: int


class Share(NamedTuple):
    """What one of `count` machines prepares: of the recordings every count-th, from `number` on."""

    number: int  # from 1 up
    count: int

    @property
    def stem(self):
        """What the names of its files begin with."""
        return "vctk" if self == WHOLE else f"vctk_{self.number}_of_{self.count}"

    @property
    def manifest(self):
        """The name of its manifest."""
        return f"{self.stem}_manifest.json"


WHOLE = Share(1, 1)
MANIFEST_OF_SHARE = re.compile(r"vctk_([1-9]\d*)_of_([1-9]\d*)_manifest\.json")


def shares_in(folder):
    """The Shares whose manifests lie in `folder`: a sorted list."""
    found = [Share(*map(int, match.groups())) for path in Path(folder).glob("vctk_*_manifest.json")
             if (match := MANIFEST_OF_SHARE.fullmatch(path.name))]
    return sorted([WHOLE] * Path(folder, WHOLE.manifest).exists() + found)


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

    features: what their frames are (datasets.features.Features), or None; frame_shards: these, for
    each of the `shards` of codes. ValueError if there are not as many as cover the recordings.
    """

    def __init__(self, recordings, shards, features=None, frame_shards=()):
        self.recordings, self.shards = recordings, shards
        self.features, self.frame_shards = features, frame_shards
        if features:
            self.first_frames, filled = _first_frames(recordings, features)
            if [filled[number] for number in range(len(shards))] != [*map(len, frame_shards)]:
                raise ValueError("there are more frames or fewer than cover the recordings")

    def codes(self, index):
        """The codes of recording `index`: (length,), uint8 or uint16, not read before used."""
        recording = self.recordings[index]
        return self.shards[recording.shard][recording.offset:recording.offset + recording.length]

    def frames(self, index):
        """The frames of recording `index`: (frames, width), float32, not read before used."""
        recording, first = self.recordings[index], self.first_frames[index]
        return self.frame_shards[recording.shard][
            first:first + self.features.count(recording.length)]

    def frame_statistics(self):
        """The mean and the standard deviation of each of a frame's numbers: two arrays (width,).

        Of all frames, or of SURVEYED and some more, evenly chosen. What never changes is said to
        have a deviation of 1.
        """
        step = max(sum(map(len, self.frame_shards)) // SURVEYED, 1)
        surveyed = np.concatenate([shard[::step] for shard in self.frame_shards], dtype=np.float64)
        mean, deviation = surveyed.mean(axis=0), surveyed.std(axis=0)
        return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1)


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
    features (datasets.features.Features, or None).
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
            joined([share.parts[part] for share in shares], [share.label_names for share in shares],
                   self.label_names) for part in PARTS)
        if len(shares) > 1 and not self.train.recordings:
            raise UserError(f"{folder}: in none of its {len(shares)} parts there is a recording to "
                            "train on; run preprocess.py on others")


def _complete(folder):
    """The shares that make up the corpus in `folder`; UserError if there is none, or not one."""
    found = shares_in(folder)
    if not found:
        raise UserError(f"{folder / WHOLE.manifest}: not found; run preprocess.py first: "
                        f"python preprocess.py --data RECORDINGS --output {folder}")
    if found[0].count != found[-1].count:
        raise UserError(f"{folder}: holds {found[0].manifest} and {found[-1].manifest}, which are "
                        "of different corpora; move the files of one to a folder of their own")
    count = found[0].count
    for share in (Share(number, count) for number in range(1, count + 1)):
        if share not in found:
            raise UserError(f"{folder / share.manifest}: not found, one of {count} parts; prepare "
                            "it with the same flags as the others: python preprocess.py --part "
                            f"{share.number}/{count} --data RECORDINGS --output {folder}")
    return found


def joined(parts, names, all_names):
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
        try:
            manifest = json.loads(self.path.read_bytes())
            version = manifest["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path}: not a manifest ({error!r}); "
                            "run preprocess.py again") from None
        if version != FORMAT:
            raise UserError(f"{self.path}: format {version!r}, this program reads {FORMAT}; "
                            "run preprocess.py again")
        try:
            self.settings = tuple(int(manifest[name]) for name in SETTINGS)
            self.levels = self.settings[SETTINGS.index("levels")]
            if min(manifest[name] for name in SETTINGS) < 1 or not 2 <= self.levels <= AUDIO_LEVELS:
                raise ValueError("impossible settings")
            self.features = manifest.get("features") and Features(**manifest["features"])
            if self.features and min(self.features.width, self.features.hop) < 1:
                raise ValueError("impossible features")
            self.collection = None if share == WHOLE else manifest["collection"]
            self.label_names = [str(name) for name in manifest["label_names"]]
            self.parts = {part: self.read_part(folder, manifest["parts"][part]) for part in PARTS}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path}: damaged ({error!r}); run preprocess.py again") from None

    def read_part(self, folder, entry):
        """The Part that a manifest's `entry` describes; ValueError where it can't be so."""
        shards = [self.open_shard(folder / shard["file"], (shard["samples"],),
                                  code_dtype(self.levels)) for shard in entry["shards"]]
        frame_shards = [self.open_shard(folder / shard["features"],
                                        (shard["frames"], self.features.width), np.float32)
                        for shard in entry["shards"] if self.features]
        recordings = [Recording(**recording) for recording in entry["recordings"]]
        for name, label, shard, offset, length in recordings:
            if not (0 <= shard < len(shards) and offset >= 0 and 0 < length <= len(shards[shard])
                    and offset + length <= len(shards[shard])):
                raise ValueError(f"{name} does not lie in its shard")
            if label not in (range(len(self.label_names)) if self.label_names else [None]):
                raise ValueError(f"{name} has the label {label}")
        return Part(recordings, shards, self.features, frame_shards)

    def open_shard(self, path, shape, dtype):
        """The array at `path` as a memory map."""
        try:
            array = np.load(path, mmap_mode="r")
        except FileNotFoundError:
            raise UserError(f"{path}: missing; run preprocess.py again") from None
        except (OSError, ValueError, EOFError):
            raise UserError(f"{path}: damaged or incomplete; run preprocess.py again") from None
        if array.shape != shape or array.dtype != dtype:
            raise UserError(f"{path}: holds {array.dtype} {array.shape}, the manifest says "
                            f"{np.dtype(dtype)} {shape}; run preprocess.py again")
        return array
