"""A journal on disk of what a long task has done, so that the task continues after interruption."""

import errno
import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import UserError

SECONDS = 5  # between two syncs


class JournalLockedError(UserError):
    """Another process has opened the journal."""


class Journal:
    """A file of records, one line of JSON each; the first line is the `fingerprint` of the task.

    records: what an earlier run of the same task recorded; [] if it was another task. In its
    context no other process can open the same journal.
    Raises JournalLockedError if another process has, and OSError if the file can't be written.
    """

    def __init__(self, path: Path, fingerprint: Any):
        self.path, self.header = path, json.dumps(fingerprint).encode() + b"\n"
        if path.is_symlink():  # not ours: we would empty the file that it leads to
            path.unlink()
        self.file = open(path, "a+b")  # noqa: SIM115 - __exit__ closes it
        self.lock()
        self.records: list[Any] = []
        self.pending: list[bytes] = []
        size = self.read()
        if size:
            self.file.truncate(size)
        else:
            self.reset()
        self.synced = time.monotonic()

    def lock(self) -> None:
        """Keep other processes out."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Any other error means that the file system has no locks: continue without one.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                self.file.close()
                raise JournalLockedError(f"{self.path.parent}: another process is writing "
                                         "there") from None

    def read(self) -> int:
        """Read the records; return how many bytes hold them, 0 if they belong to another task."""
        self.file.seek(0)
        header, *lines = self.file.readlines() or [b""]
        if header != self.header:
            return 0
        size = len(header)
        for line in lines:
            # A killed run may leave a torn last line; others may be damaged.
            with suppress(ValueError, RecursionError):
                if line.endswith(b"\n"):
                    self.records.append(json.loads(line))
                    size += len(line)
                    continue
            break
        return size

    def reset(self) -> None:
        """Discard all records."""
        self.records.clear()
        self.file.truncate(0)
        self.file.write(self.header)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.file.close()

    def add(self, record: Any) -> None:
        """Add `record`, which JSON can hold. It reaches the disk at the next sync."""
        self.pending.append(json.dumps(record).encode() + b"\n")

    @property
    def is_due(self) -> bool:
        """Whether it is time for a sync."""
        return time.monotonic() - self.synced >= SECONDS

    def sync(self) -> None:
        """Flush the records to disk. What they describe must be on disk already."""
        # Cleared first, so that an interrupted sync writes no record twice.
        lines, self.pending = self.pending, []
        self.file.writelines(lines)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()
