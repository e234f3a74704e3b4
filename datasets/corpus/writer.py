"""Writes a corpus that datasets.corpus.reader reads: recordings are appended to shards on disk."""

import json
import os
import re
import shutil
import stat

import numpy as np

from common.errors import UnfinishedError, UserError
from common.files import make_folder
from datasets.corpus.growing_array import GrowingArray, to_disk
from datasets.corpus.manifest import (
    ENTIRE_CORPUS,
    FORMAT,
    PARTS,
    SETTINGS,
    check_settings,
    shares_in,
)
from datasets.corpus.reader import Recording
from datasets.quantization import code_dtype

OF_SHARE = re.compile(r"\.vctk_\d+_of_\d+_")  # how its temporary files begin


class CorpusWriter:
    """Writes a corpus, or a share of one, into `folder`; a context manager.

    Nothing appears under its final name before `close()`: a run that dies leaves the corpus that
    was there before. What it wrote under temporary names stays where that can be gone on with,
    after Ctrl+C and UnfinishedError, and is removed after any other. Nothing is held in memory but
    where the recordings lie. `flush_every` windows of `target_length` samples make a shard;
    `labels`: the kind, as of Labelling; `features`: the Features
    of the recordings, or None; `collection`: a text that all shares of a corpus have in common.
    Raises UserError if `folder` can't be written to, or holds what would not go with the share, and
    for settings that could not be read again.
    """

    def __init__(self, folder, *, rate, levels, stacks_num, layers_num, target_length, labels,
                 flush_every, features=None, share=ENTIRE_CORPUS, collection=""):
        self.settings = dict(zip(SETTINGS, (rate, levels, stacks_num, layers_num, target_length),
                                 strict=True))
        check_settings(self.settings)
        self.folder, self.share = make_folder(folder, "--output"), share
        check_beside(self.folder, share)
        self.dtype, self.features = code_dtype(levels), features
        self.described = {"labels": labels}
        if features:
            self.described["features"] = features.as_dict()
        if share != ENTIRE_CORPUS:
            self.described["collection"] = collection
        self.shard_samples = flush_every * target_length
        self.forget()

    def forget(self):
        """Begin as if nothing had been written."""
        self.shards = {part: [] for part in PARTS}
        self.recordings = {part: [] for part in PARTS}  # labels still by name
        self.arrays = {part: [] for part in PARTS}  # of the shards that are not full

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for array in self.open_arrays():
            array.close()
        if not (kind and issubclass(kind, (KeyboardInterrupt, OSError, UnfinishedError))):
            self.discard()

    def add(self, part, name, label, codes, frames=()):
        """Append a recording to `part`; label: its name or None.

        codes: blocks, (n,) each. frames: blocks of as many as cover them, (n, width) each.
        Raises UnfinishedError if the disk is full.
        """
        try:
            arrays = self.arrays[part] or self.open_shard(part)
            before = arrays[0].rows
            for array, blocks in zip(arrays, (codes, frames), strict=False):
                for block in blocks:
                    array.add(block)
            self.enter(part, name, label, arrays[0].rows - before)
            if self.is_full(part):
                self.finish_shard(part)
        except OSError as error:
            raise out_of_room(self.folder, error) from None

    def enter(self, part, name, label, length):
        """Note that the next recording lies in the last shard of `part`, or in a new one."""
        if self.is_full(part):
            self.shards[part].append(self.next_shard(part))
        shard = self.shards[part][-1]
        self.recordings[part].append(
            Recording(name, label, len(self.shards[part]) - 1, shard["samples"], length))
        shard["samples"] += length
        if self.features:
            shard["frames"] += self.features.count(length)

    def is_full(self, part):
        """Whether the next recording of `part` is to begin a shard."""
        return not self.shards[part] or self.shards[part][-1]["samples"] >= self.shard_samples

    def next_shard(self, part):
        """The shard after those that there are, as the manifest is to describe it."""
        codes, frames = self.share.shard(part, len(self.shards[part]))
        shard = {"file": codes, "samples": 0}
        if self.features:
            shard |= {"features": frames, "frames": 0}
        return shard

    def arrays_of(self, shard):
        """The arrays of a shard, and how many rows belong into each: [(GrowingArray, rows)]."""
        found = [(GrowingArray(self.temporary(shard["file"]), self.dtype), shard["samples"])]
        if self.features:
            found.append((GrowingArray(self.temporary(shard["features"]), np.float32,
                                       self.features.width), shard["frames"]))
        return found

    def open_shard(self, part):
        """Begin the next shard of `part`: its arrays."""
        for array, _ in self.arrays_of(self.next_shard(part)):
            self.arrays[part].append(array.begin())
        return self.arrays[part]

    def finish_shard(self, part):
        """Bring the open shard of `part` down to the disk."""
        for array in self.arrays[part]:
            array.finish()
        for array in self.arrays[part]:  # only now: where one finds no room, all are still open
            array.close()
        self.arrays[part] = []

    def open_arrays(self):
        """Those of the shards that are not full: a list."""
        return [array for part in PARTS for array in self.arrays[part]]

    def sync(self):
        """Bring what was added down to the disk."""
        try:
            for array in self.open_arrays():
                array.sync()
        except OSError as error:
            raise out_of_room(self.folder, error) from None

    def resume(self, recordings):
        """Take over from an interrupted run the first `recordings`: whether what they are is there.

        recordings: (part, name, label, length) of each, [] to begin anew. What else that run left
        is removed.
        """
        for recording in recordings:
            self.enter(*recording)
        whole = all(self.holds(part, number) for part in PARTS
                    for number in range(len(self.shards[part])))
        if not whole:
            self.forget()
        self.discard({array.path for part in PARTS for shard in self.shards[part]
                      for array, _ in self.arrays_of(shard)} | {self.journal})
        for part in PARTS:
            if not self.is_full(part):
                self.arrays[part] = [array.go_on(rows)
                                     for array, rows in self.arrays_of(self.shards[part][-1])]
        return whole

    def holds(self, part, number):
        """Whether an interrupted run left the arrays of a shard, and only of the last one more."""
        is_open = number == len(self.shards[part]) - 1 and not self.is_full(part)
        for array, rows in self.arrays_of(self.shards[part][number]):
            try:
                status = array.path.lstat()  # a link isn't ours: what it leads to would be changed
            except FileNotFoundError:
                return False
            size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                return False
            if size < array.size(rows) or size > array.size(rows) and not is_open:
                return False
        return True

    def close(self):
        """Put the corpus in place of any earlier one."""
        names = sorted({recording.label for part in PARTS for recording in self.recordings[part]
                        if recording.label is not None})
        index = {name: number for number, name in enumerate(names)} | {None: None}
        parts = {part: {"shards": self.shards[part],
                        "recordings": [recording._replace(label=index[recording.label])._asdict()
                                       for recording in self.recordings[part]]}
                 for part in PARTS}
        manifest = {"format": FORMAT, **self.settings, **self.described, "label_names": names,
                    "parts": parts}
        files = [shard[array] for part in PARTS for shard in self.shards[part]
                 for array in ("file", "features") if array in shard]
        try:
            for part in PARTS:
                self.finish_shard(part)
            with self.temporary(self.share.manifest).open("wb") as file:
                file.write(json.dumps(manifest, indent=1).encode())
                to_disk(file)
            # Between here and the last line an old manifest would describe a mixture of shards.
            (self.folder / self.share.manifest).unlink(missing_ok=True)
            for name in [*files, self.share.manifest]:
                os.replace(self.temporary(name), self.folder / name)
            for array in (f"{part}{kind}" for part in PARTS for kind in ("", "_features")):
                for stale in self.folder.glob(f"{self.share.stem}_{array}_{'[0-9]' * 5}.npy"):
                    if stale.name not in files:
                        stale.unlink()
        except OSError as error:
            raise out_of_room(self.folder, error) from None

    def discard(self, kept=()):
        """Remove whatever this or a killed run has under a temporary name, but what is `kept`."""
        for leftover in self.folder.glob(f".{self.share.stem}_*.temporary"):
            of_another = self.share == ENTIRE_CORPUS and OF_SHARE.match(leftover.name)
            if leftover in kept or of_another:
                continue
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    @property
    def journal(self):
        """Where a datasets.corpus.journal.Journal of what was added belongs."""
        return self.temporary(f"{self.share.stem}_progress")

    def temporary(self, name):
        """Where the file `name` is written before it is complete."""
        return self.folder / f".{name}.temporary"


def check_beside(folder, share):
    """Raises UserError if `folder` holds a corpus that `share` can't be read together with."""
    for other in shares_in(folder):
        if other.count != share.count:
            what = f"a corpus in {other.count} parts"
            files = f"vctk_*_of_{other.count}_*"
            if other == ENTIRE_CORPUS:
                what = "a whole corpus"
                files = "vctk_manifest.json, vctk_train_* and vctk_validation_*"
            raise UserError(f"--output {folder}: holds {what}; remove {files} there, or give "
                            "another folder")


def out_of_room(folder, error):
    """The UnfinishedError for an OSError while writing into `folder`."""
    return UnfinishedError(f"--output {folder}: {error.strerror or error}; make room there, and "
                           "the same command goes on where this one stopped")
