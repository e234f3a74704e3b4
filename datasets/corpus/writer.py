"""Write a corpus that datasets.corpus.reader reads: append recordings to shards on disk."""

import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UnfinishedError, UserError
from common.files import make_folder, os_errors_as_lines
from datasets.audio.features import Features
from datasets.corpus.growing_array import GrowingArray, flush_to_disk
from datasets.corpus.manifest import (
    ENTIRE_CORPUS,
    FORMAT,
    SETTINGS,
    SPLITS,
    CorpusPart,
    check_settings,
    parts_in,
)
from datasets.corpus.reader import Recording
from datasets.quantization import code_dtype

TEMPORARY_OF_PART = re.compile(r"\.vctk_\d+_of_\d+_")  # how the temporary files of parts begin


class CorpusWriter:
    """Writes a corpus, or one part of it, into `folder`; a context manager.

    Nothing appears under its final name before `close()`: a run that dies leaves the earlier corpus
    in place. After Ctrl+C and UnfinishedError the temporary files stay, so that the next run can
    continue; after any other end they are removed. Memory holds only where the recordings lie.

    flush_every: windows of `target_length` samples in a shard. labels: the kind of label, see
    Labelling. features: the Features of the recordings, or None. collection: a text that all parts
    of a corpus have in common. encoding: of the codes, one of `datasets.quantization.ENCODINGS`.
    Raises UserError if `folder` can't be written, if it holds a corpus that doesn't go with this
    part, and for settings that the reader would refuse.
    """

    def __init__(self, folder: str | Path, *, rate: int, levels: int, stacks_num: int,
                 layers_num: int, target_length: int, labels: str, flush_every: int,
                 features: Features | None = None, part: CorpusPart = ENTIRE_CORPUS,
                 collection: str = "", encoding: str = "mulaw"):
        self.settings = dict(zip(SETTINGS, (rate, levels, stacks_num, layers_num, target_length),
                                 strict=True))
        check_settings(self.settings)
        self.folder, self.part = make_folder(folder, "--output"), part
        check_same_corpus(self.folder, part)
        self.dtype, self.features = code_dtype(levels), features
        self.description: dict[str, Any] = {"labels": labels}
        if features:
            self.description["features"] = features.as_dict()
        if encoding != "mulaw":  # which earlier versions wrote without saying so
            self.description["encoding"] = encoding
        if part != ENTIRE_CORPUS:
            self.description["collection"] = collection
        self.shard_samples = flush_every * target_length
        self.reset()

    def reset(self) -> None:
        """Discard everything added so far."""
        self.shards: dict[str, list] = {split: [] for split in SPLITS}
        # A label's number isn't known before the last recording.
        self.recordings: dict[str, list[tuple[str | None, Recording]]] = {
            split: [] for split in SPLITS}
        self.arrays: dict[str, list] = {split: [] for split in SPLITS}  # of shards that aren't full

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for array in self.open_arrays():
            array.close()
        if not (kind and issubclass(kind, (KeyboardInterrupt, OSError, UnfinishedError))):
            self.remove_temporaries()

    def add(self, split: str, name: str, label: str | None, codes: Iterable[np.ndarray],
            frames: Iterable[np.ndarray] = ()) -> None:
        """Append a recording to `split`; label: its name or None.

        codes: blocks, (n,) each. frames: blocks, (n, width) each, as many frames as cover the
        codes. Raises UnfinishedError if the disk is full.
        """
        with needing_room(self.folder):
            arrays = self.arrays[split] or self.open_shard(split)
            before = arrays[0].rows
            for array, blocks in zip(arrays, (codes, frames), strict=False):
                for block in blocks:
                    array.append(block)
            self.register(split, name, label, arrays[0].rows - before)
            if self.is_full(split):
                self.finish_shard(split)

    def register(self, split: str, name: str, label: str | None, length: int) -> None:
        """Record that the next recording lies in the last shard of `split`, or in a new one."""
        if self.is_full(split):
            self.shards[split].append(self.describe_next_shard(split))
        shard = self.shards[split][-1]
        self.recordings[split].append(
            (label, Recording(name, None, len(self.shards[split]) - 1, shard["samples"], length)))
        shard["samples"] += length
        if self.features:
            shard["frames"] += self.features.count(length)

    def is_full(self, split: str) -> bool:
        """Whether the next recording of `split` begins a new shard."""
        return not self.shards[split] or self.shards[split][-1]["samples"] >= self.shard_samples

    def describe_next_shard(self, split: str) -> dict[str, Any]:
        """Return the manifest's entry for the next shard of `split`."""
        codes, frames = self.part.shard(split, len(self.shards[split]))
        shard: dict[str, Any] = {"file": codes, "samples": 0}
        if self.features:
            shard |= {"features": frames, "frames": 0}
        return shard

    def arrays_of(self, shard: dict[str, Any]) -> list[tuple[GrowingArray, int]]:
        """Return the arrays of a shard, each with the number of its rows."""
        found = [(GrowingArray(self.temporary(shard["file"]), self.dtype), shard["samples"])]
        if self.features:
            found.append((GrowingArray(self.temporary(shard["features"]), np.float32,
                                       self.features.width), shard["frames"]))
        return found

    def open_shard(self, split: str) -> list[GrowingArray]:
        """Begin the next shard of `split`; return its arrays."""
        for array, _ in self.arrays_of(self.describe_next_shard(split)):
            self.arrays[split].append(array.create())
        return self.arrays[split]

    def finish_shard(self, split: str) -> None:
        """Flush the open shard of `split` to disk, and close it."""
        for array in self.arrays[split]:
            array.finish()
        for array in self.arrays[split]:  # only now: if one finds no room, all are still open
            array.close()
        self.arrays[split] = []

    def open_arrays(self) -> list[GrowingArray]:
        """List the arrays of shards that aren't full."""
        return [array for split in SPLITS for array in self.arrays[split]]

    def sync(self) -> None:
        """Flush everything added so far to disk."""
        with needing_room(self.folder):
            for array in self.open_arrays():
                array.sync()

    def resume(self, recordings: list[tuple[str, str, str | None, int]]) -> bool:
        """Take over the first `recordings` from an interrupted run; return whether they are there.

        recordings: (split, name, label, length) of each; [] to start afresh. Everything else that
        the run left is removed.
        """
        for recording in recordings:
            self.register(*recording)
        is_whole = all(self.has_shard(split, number) for split in SPLITS
                       for number in range(len(self.shards[split])))
        if not is_whole:
            self.reset()
        self.remove_temporaries({array.path for split in SPLITS for shard in self.shards[split]
                                 for array, _ in self.arrays_of(shard)} | {self.journal})
        for split in SPLITS:
            if not self.is_full(split):
                self.arrays[split] = [array.reopen(rows)
                                      for array, rows in self.arrays_of(self.shards[split][-1])]
        return is_whole

    def has_shard(self, split: str, number: int) -> bool:
        """Whether an interrupted run left all arrays of a shard. Only the last may be longer."""
        is_open = number == len(self.shards[split]) - 1 and not self.is_full(split)
        for array, rows in self.arrays_of(self.shards[split][number]):
            try:
                status = array.path.lstat()  # a link isn't ours: we would change its target
            except FileNotFoundError:
                return False
            size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                return False
            if size < array.size(rows) or size > array.size(rows) and not is_open:
                return False
        return True

    def close(self) -> None:
        """Put the corpus in the place of any earlier one. Raises UnfinishedError without room."""
        names = sorted({label for split in SPLITS for label, _ in self.recordings[split]
                        if label is not None})
        index: dict[str | None, int | None] = {None: None}
        index.update((name, number) for number, name in enumerate(names))
        parts = {split: {"shards": self.shards[split],
                         "recordings": [recording._replace(label=index[label])._asdict()
                                        for label, recording in self.recordings[split]]}
                 for split in SPLITS}
        manifest = {"format": FORMAT, **self.settings, **self.description, "label_names": names,
                    "parts": parts}
        files = [shard[array] for split in SPLITS for shard in self.shards[split]
                 for array in ("file", "features") if array in shard]
        with needing_room(self.folder):
            for split in SPLITS:
                self.finish_shard(split)
            with self.temporary(self.part.manifest).open("wb") as file:
                file.write(json.dumps(manifest, indent=1).encode())
                flush_to_disk(file)
            # From here to the end an old manifest would describe a mixture of shards.
            (self.folder / self.part.manifest).unlink(missing_ok=True)
            for name in [*files, self.part.manifest]:
                os.replace(self.temporary(name), self.folder / name)
            for array in (f"{split}{kind}" for split in SPLITS for kind in ("", "_features")):
                for stale in self.folder.glob(f"{self.part.stem}_{array}_{'[0-9]' * 5}.npy"):
                    if stale.name not in files:
                        stale.unlink()

    def remove_temporaries(self, kept: Collection[Path] = ()) -> None:
        """Remove all temporary files of this run or a killed one, except those in `kept`."""
        for leftover in self.folder.glob(f".{self.part.stem}_*.temporary"):
            is_of_part = self.part == ENTIRE_CORPUS and TEMPORARY_OF_PART.match(leftover.name)
            if leftover in kept or is_of_part:
                continue
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    @property
    def journal(self) -> Path:
        """Where the datasets.corpus.journal.Journal of the added recordings belongs."""
        return self.temporary(f"{self.part.stem}_progress")

    def temporary(self, name: str) -> Path:
        """Return where the file `name` is written before it is complete."""
        return self.folder / f".{name}.temporary"


def check_same_corpus(folder: Path, part: CorpusPart) -> None:
    """Raise UserError if `folder` holds a corpus that `part` can't be read together with."""
    for other in parts_in(folder):
        if other.count != part.count:
            what = f"a corpus in {other.count} parts"
            files = f"vctk_*_of_{other.count}_*"
            if other == ENTIRE_CORPUS:
                what = "a whole corpus"
                files = "vctk_manifest.json, vctk_train_* and vctk_validation_*"
            raise UserError(f"{folder}: holds {what}; remove {files} there, or give another "
                            "folder", parameter="output")


def needing_room(folder: str | Path) -> AbstractContextManager[None]:
    """Turn an OSError while writing into `folder` into an UnfinishedError."""
    return os_errors_as_lines(folder, "", "make room there, and the same command goes on where "
                              "this one stopped", UnfinishedError, parameter="output")
