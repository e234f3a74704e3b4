"""Writing a corpus, as datasets.corpus reads it: recordings are appended to shards on the disk."""

import io
import json
import os
import re
import shutil

import numpy as np

from datasets.corpus import FORMAT, PARTS, SETTINGS, WHOLE, Recording, shares_in
from datasets.errors import UnfinishedError, UserError
from datasets.files import make_folder
from datasets.quantization import code_dtype

OF_SHARE = re.compile(r"\.vctk_\d+_of_\d+_")  # how its temporary files begin


class CorpusWriter:
    """Writes a corpus, or a share of one, into `folder`; a context manager.

    Nothing appears under its final name before `close()`: a run that dies leaves the corpus that
    was there before. What it wrote under temporary names stays where that can be gone on with,
    after Ctrl+C and UnfinishedError, and is removed after any other. Nothing is held in memory but
    where the recordings lie. `flush_every` windows of `target_length` samples make a shard;
    `labels`: the kind, as of datasets.labels.Labelling; `collection`: a text that all shares of a
    corpus have in common.
    Raises UserError if `folder` can't be written to, or holds what would not go with the share.
    """

    def __init__(self, folder, *, rate, levels, stacks_num, layers_num, target_length, labels,
                 flush_every, share=WHOLE, collection=""):
        self.folder, self.share = make_folder(folder, "--output"), share
        check_beside(self.folder, share)
        self.dtype = code_dtype(levels)
        self.settings = dict(zip(SETTINGS, (rate, levels, stacks_num, layers_num, target_length),
                                 strict=True))
        self.described = {"labels": labels}
        if share != WHOLE:
            self.described["collection"] = collection
        self.shard_samples = flush_every * target_length
        self.forget()

    def forget(self):
        """Begin as if nothing had been written."""
        self.shards = {part: [] for part in PARTS}
        self.recordings = {part: [] for part in PARTS}  # labels still by name
        self.files = dict.fromkeys(PARTS)  # of the shards that are not full

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for file in filter(None, self.files.values()):
            file.close()
        if not (kind and issubclass(kind, (KeyboardInterrupt, OSError, UnfinishedError))):
            self.discard()

    def add(self, part, name, label, blocks):
        """Append a recording to `part`: its codes are `blocks`, (n,) each; label: its name or None.

        Raises UnfinishedError if the disk is full.
        """
        try:
            file = self.files[part] or self.open_shard(part)
            length = 0
            for codes in blocks:
                write_all(file, np.asarray(codes, self.dtype).tobytes())
                length += len(codes)
            self.enter(part, name, label, length)
            if self.is_full(part):
                self.finish_shard(part)
        except OSError as error:
            raise out_of_room(self.folder, error) from None

    def enter(self, part, name, label, length):
        """Note that the next recording lies in the last shard of `part`, or in a new one."""
        if self.is_full(part):
            self.shards[part].append({"file": self.next_file(part), "samples": 0})
        shard = self.shards[part][-1]
        self.recordings[part].append(
            Recording(name, label, len(self.shards[part]) - 1, shard["samples"], length))
        shard["samples"] += length

    def is_full(self, part):
        """Whether the next recording of `part` is to begin a shard."""
        return not self.shards[part] or self.shards[part][-1]["samples"] >= self.shard_samples

    def next_file(self, part):
        """The name of the shard after those that there are."""
        return f"{self.share.stem}_{part}_{len(self.shards[part]):05d}.npy"

    def open_shard(self, part):
        """Begin the next shard of `part`, with a header to be overwritten: its file."""
        file = self.files[part] = self.temporary(self.next_file(part)).open("wb", buffering=0)
        write_all(file, self.header(0))
        return file

    def finish_shard(self, part):
        """Bring the open shard of `part` down to the disk, its length in its header."""
        file = self.files[part]
        file.seek(0)
        write_all(file, self.header(self.shards[part][-1]["samples"]))
        to_disk(file)
        file.close()
        self.files[part] = None

    def header(self, samples):
        """What numpy.save writes before so many codes; 128 bytes for any number of them."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
                     "shape": (samples,)})
        return header.getvalue()

    def sync(self):
        """Bring what was added down to the disk."""
        try:
            for file in filter(None, self.files.values()):
                to_disk(file)
        except OSError as error:
            raise out_of_room(self.folder, error) from None

    def resume(self, recordings):
        """Take over from an interrupted run the first `recordings`: whether their codes are there.

        recordings: (part, name, label, length) of each, [] to begin anew. What else that run left
        is removed.
        """
        for recording in recordings:
            self.enter(*recording)
        whole = all(self.holds(part, number) for part in PARTS
                    for number in range(len(self.shards[part])))
        if not whole:
            self.forget()
        self.discard({self.temporary(shard["file"]) for part in PARTS
                      for shard in self.shards[part]} | {self.journal})
        for part in PARTS:
            if not self.is_full(part):
                self.reopen_shard(part)
        return whole

    def holds(self, part, number):
        """Whether an interrupted run left the codes of a shard, and only of the last one more."""
        shard = self.shards[part][number]
        try:
            size = self.temporary(shard["file"]).stat().st_size
        except FileNotFoundError:
            return False
        is_open = number == len(self.shards[part]) - 1 and not self.is_full(part)
        return size == self.size(shard) or is_open and size > self.size(shard)

    def reopen_shard(self, part):
        """Go on with the last shard of `part`, behind the codes that are known."""
        shard = self.shards[part][-1]
        file = self.files[part] = self.temporary(shard["file"]).open("r+b", buffering=0)
        file.seek(file.truncate(self.size(shard)))

    def size(self, shard):
        """Bytes that the file of `shard` is long."""
        return len(self.header(0)) + shard["samples"] * self.dtype.itemsize

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
        files = [shard["file"] for part in PARTS for shard in self.shards[part]]
        try:
            for part in filter(self.files.get, PARTS):
                self.finish_shard(part)
            with self.temporary(self.share.manifest).open("wb") as file:
                file.write(json.dumps(manifest, indent=1).encode())
                to_disk(file)
            # Between here and the last line an old manifest would describe a mixture of shards.
            (self.folder / self.share.manifest).unlink(missing_ok=True)
            for name in [*files, self.share.manifest]:
                os.replace(self.temporary(name), self.folder / name)
            for part in PARTS:
                for stale in self.folder.glob(f"{self.share.stem}_{part}_{'[0-9]' * 5}.npy"):
                    if stale.name not in files:
                        stale.unlink()
        except OSError as error:
            raise out_of_room(self.folder, error) from None

    def discard(self, kept=()):
        """Remove whatever this or a killed run has under a temporary name, but what is `kept`."""
        for leftover in self.folder.glob(f".{self.share.stem}_*.temporary"):
            of_another = self.share == WHOLE and OF_SHARE.match(leftover.name)
            if leftover in kept or of_another:
                continue
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    @property
    def journal(self):
        """Where a datasets.journal.Journal of what was added belongs."""
        return self.temporary(f"{self.share.stem}_progress")

    def temporary(self, name):
        """Where the file `name` is written before it is complete."""
        return self.folder / f".{name}.temporary"


def check_beside(folder, share):
    """Raises UserError if `folder` holds a corpus that `share` can't be read together with."""
    for other in shares_in(folder):
        if other.count != share.count:
            what = "a whole corpus" if other == WHOLE else f"a corpus in {other.count} parts"
            files = f"vctk_*_of_{other.count}_*"
            if other == WHOLE:
                files = "vctk_manifest.json, vctk_train_* and vctk_validation_*"
            raise UserError(f"--output {folder}: holds {what}; remove {files} there, or give "
                            "another folder")


def write_all(file, content):
    """Write the bytes `content` to the unbuffered `file`, which may take them bit by bit.

    Unbuffered, because what a full disk left in a buffer would be lost with what comes after it.
    """
    content = memoryview(content)
    while content:
        content = content[file.write(content):]


def to_disk(file):
    """All that was written to `file`, down to the disk."""
    file.flush()
    os.fsync(file.fileno())


def out_of_room(folder, error):
    """The UnfinishedError for an OSError while writing into `folder`."""
    return UnfinishedError(f"--output {folder}: {error.strerror or error}; make room there, and "
                           "the same command goes on where this one stopped")
