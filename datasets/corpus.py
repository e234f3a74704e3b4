"""The preprocessed corpus: the mu-law codes of many recordings, one after the other, in shards.

    vctk_manifest.json           settings, label names, and where each recording lies
    vctk_train_00000.npy …       codes, one-dimensional, uint8 (uint16 above 256 levels)
    vctk_validation_00000.npy …  the same for the recordings held back

No sample is stored twice: windows with their context are cut when read (datasets.windows). A
recording lies wholly in one shard, and shards are read as memory maps.
"""

import json
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.errors import UserError
from datasets.files import make_folder
from datasets.quantization import AUDIO_LEVELS, code_dtype

FORMAT = 1
MANIFEST = "vctk_manifest.json"
PARTS = ("train", "validation")
SETTINGS = ("rate", "levels", "stacks_num", "layers_num", "target_length")


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


class CorpusWriter:
    """Writes a corpus into `folder`; a context manager.

    Nothing appears under its final name before `close()`: a run that dies leaves the corpus that
    was there before. At most one shard of each part is held in memory. `flush_every` windows of
    `target_length` samples make a shard; `labels`: the kind, as of datasets.labels.Labelling.
    Raises UserError if `folder` can't be written to.
    """

    def __init__(self, folder, *, rate, levels, stacks_num, layers_num, target_length, labels,
                 flush_every):
        self.folder, self.labels = make_folder(folder, "--output"), labels
        self.dtype = code_dtype(levels)
        self.settings = dict(zip(SETTINGS, (rate, levels, stacks_num, layers_num, target_length),
                                 strict=True))
        self.shard_samples = flush_every * target_length
        self.pending = {part: [] for part in PARTS}  # codes of the open shards
        self.shards = {part: [] for part in PARTS}
        self.recordings = {part: [] for part in PARTS}  # labels still by name
        self.discard()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.discard()

    def add(self, part, name, label, codes):
        """Append a recording's `codes`, (length,), length > 0, to `part`; label: its name or None.

        Raises UserError if the disk is full.
        """
        pending = self.pending[part]
        offset = sum(map(len, pending))
        self.recordings[part].append(
            Recording(name, label, len(self.shards[part]), offset, len(codes)))
        pending.append(np.asarray(codes, self.dtype))
        if offset + len(codes) >= self.shard_samples:
            self.flush(part)

    def flush(self, part):
        """Write the open shard of `part` under a temporary name, and begin the next."""
        if not self.pending[part]:
            return
        codes = np.concatenate(self.pending[part])
        self.pending[part].clear()
        name = f"vctk_{part}_{len(self.shards[part]):05d}.npy"
        self.shards[part].append({"file": name, "samples": len(codes)})
        self.write(name, lambda file: np.save(file, codes))

    def close(self):
        """Put the corpus in place of any earlier one."""
        for part in PARTS:
            self.flush(part)
        names = sorted({recording.label for part in PARTS for recording in self.recordings[part]
                        if recording.label is not None})
        index = {name: number for number, name in enumerate(names)} | {None: None}
        parts = {part: {"shards": self.shards[part],
                        "recordings": [recording._replace(label=index[recording.label])._asdict()
                                       for recording in self.recordings[part]]}
                 for part in PARTS}
        manifest = {"format": FORMAT, **self.settings, "labels": self.labels,
                    "label_names": names, "parts": parts}
        self.write(MANIFEST, lambda file: file.write(json.dumps(manifest, indent=1).encode()))
        files = [shard["file"] for part in PARTS for shard in self.shards[part]]
        try:
            # Between here and the last line an old manifest would describe a mixture of shards.
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for name in [*files, MANIFEST]:
                os.replace(self.temporary(name), self.folder / name)
            for part in PARTS:
                for stale in self.folder.glob(f"vctk_{part}_[0-9][0-9][0-9][0-9][0-9].npy"):
                    if stale.name not in files:
                        stale.unlink()
        except OSError as error:
            raise self.failure(error) from None

    def discard(self):
        """Remove whatever this or a killed run has written under a temporary name."""
        for leftover in self.folder.glob(".vctk_*.temporary"):
            leftover.unlink()

    def temporary(self, name):
        """Where the file `name` is written before it is complete."""
        return self.folder / f".vctk_{name}.temporary"

    def write(self, name, save):
        """`save(file)` to the temporary file for `name`, down to the disk."""
        try:
            with self.temporary(name).open("wb") as file:
                save(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self.failure(error) from None

    def failure(self, error):
        """The UserError for an OSError while writing."""
        return UserError(f"--output {self.folder}: {error.strerror or error}; "
                         "give a folder that can be written to, with room in it")


class Part:
    """The recordings of one part of a corpus, as memory maps."""

    def __init__(self, recordings, shards):
        self.recordings, self.shards = recordings, shards

    def codes(self, index):
        """The codes of recording `index`: (length,), uint8 or uint16, not read before used."""
        recording = self.recordings[index]
        return self.shards[recording.shard][recording.offset:recording.offset + recording.length]


class Corpus:
    """What preprocess.py wrote into `folder`: `train` and `validation`, each a Part, and settings.

    rate (Hz), levels, stacks_num, layers_num, target_length, label_names ([] without labels).
    Raises UserError naming the file that is missing, of another version, or damaged.
    """

    def __init__(self, folder):
        folder = Path(folder)
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_bytes())
            version = manifest["format"]
        except FileNotFoundError:
            raise UserError(f"{path}: not found; run preprocess.py first: "
                            f"python preprocess.py --data RECORDINGS --output {folder}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a manifest ({error!r}); "
                            "run preprocess.py again") from None
        if version != FORMAT:
            raise UserError(f"{path}: format {version!r}, this program reads {FORMAT}; "
                            "run preprocess.py again")
        try:
            self.rate, self.levels, self.stacks_num, self.layers_num, self.target_length = (
                int(manifest[name]) for name in SETTINGS)
            if min(manifest[name] for name in SETTINGS) < 1 or not 2 <= self.levels <= AUDIO_LEVELS:
                raise ValueError("impossible settings")
            self.label_names = [str(name) for name in manifest["label_names"]]
            self.train, self.validation = (
                self.read_part(folder, manifest["parts"][part]) for part in PARTS)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged ({error!r}); run preprocess.py again") from None

    def read_part(self, folder, entry):
        """The Part that a manifest's `entry` describes; ValueError where it can't be so."""
        shards = [self.open_shard(folder / shard["file"], shard["samples"])
                  for shard in entry["shards"]]
        recordings = [Recording(**recording) for recording in entry["recordings"]]
        for name, label, shard, offset, length in recordings:
            if not (0 <= shard < len(shards) and offset >= 0 and 0 < length <= len(shards[shard])
                    and offset + length <= len(shards[shard])):
                raise ValueError(f"{name} does not lie in its shard")
            if label not in (range(len(self.label_names)) if self.label_names else [None]):
                raise ValueError(f"{name} has the label {label}")
        return Part(recordings, shards)

    def open_shard(self, path, samples):
        """The shard at `path` as a memory map."""
        try:
            codes = np.load(path, mmap_mode="r")
        except FileNotFoundError:
            raise UserError(f"{path}: missing; run preprocess.py again") from None
        except (OSError, ValueError, EOFError):
            raise UserError(f"{path}: damaged or incomplete; run preprocess.py again") from None
        if codes.shape != (samples,) or codes.dtype != code_dtype(self.levels):
            raise UserError(f"{path}: holds {codes.dtype} {codes.shape}, the manifest says "
                            f"{samples} codes of {self.levels} levels; run preprocess.py again")
        return codes
