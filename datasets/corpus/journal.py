"""What a long task has done so far, on the disk: begun again, it goes on from there."""

import errno
import fcntl
import json
import os
import time
from contextlib import suppress

from common.errors import UserError

SECONDS = 5  # between two times that the notes go down to the disk


class Journal:
    """A file of notes, a JSON line for each; the first line is the `fingerprint` of the task.

    notes: those that an earlier run made on the very same task, [] if it was another. A context
    manager, in which no other process can open the same journal.
    Raises UserError if one has, and OSError if the file can't be written.
    """

    def __init__(self, path, fingerprint):
        self.path, self.begin = path, json.dumps(fingerprint).encode() + b"\n"
        if path.is_symlink():  # not ours: what it leads to would be emptied
            path.unlink()
        self.file = open(path, "a+b")  # noqa: SIM115 - __exit__ closes it
        self.lock()
        self.notes, self.pending = [], []
        size = self.read()
        if size:
            self.file.truncate(size)
        else:
            self.forget()
        self.synced = time.monotonic()

    def lock(self):
        """Keep other processes out."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Any other error is that of a file system that has no locks: it goes without.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                self.file.close()
                raise UserError(f"--output {self.path.parent}: another preprocess.py is writing "
                                "there; wait for its end, or give another folder") from None

    def read(self):
        """Read the notes: the number of bytes that they are in, 0 if the task was another."""
        self.file.seek(0)
        begin, *lines = self.file.readlines() or [b""]
        if begin != self.begin:
            return 0
        size = len(begin)
        for line in lines:
            # The last line of a run that was killed may be torn, and others damaged.
            with suppress(ValueError, RecursionError):
                if line.endswith(b"\n"):
                    self.notes.append(json.loads(line))
                    size += len(line)
                    continue
            break
        return size

    def forget(self):
        """Begin as if nothing had been done."""
        self.notes.clear()
        self.file.truncate(0)
        self.file.write(self.begin)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(OSError):
            self.file.close()

    def add(self, note):
        """Note, at the next sync, that one thing more is done; `note` is what JSON can hold."""
        self.pending.append(json.dumps(note).encode() + b"\n")

    @property
    def is_due(self):
        """Whether it is time for a sync."""
        return time.monotonic() - self.synced >= SECONDS

    def sync(self):
        """Bring the notes down to the disk, where that which they are on must be already."""
        lines, self.pending = self.pending, []  # first, lest an interrupted one be repeated
        self.file.writelines(lines)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()
