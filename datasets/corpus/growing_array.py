"""Arrays on disk that rows are appended to, larger than the memory."""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


class GrowingArray:
    """A .npy file at `path` that grows by rows of `dtype`: numbers, or arrays (width,).

    numpy can read it only after `finish()`. Methods raise OSError if the file can't be written.
    """

    file: Any

    def __init__(self, path: Path, dtype: Any, width: int | None = None):
        self.path, self.dtype = path, np.dtype(dtype)
        self.row = () if width is None else (width,)
        self.rows, self.file = 0, None

    def create(self) -> "GrowingArray":
        """Create the file without rows, with a header that `finish()` overwrites."""
        self.file = self.path.open("wb", buffering=0)
        write_all(self.file, self.header())
        return self

    def reopen(self, rows: int) -> "GrowingArray":
        """Open the file again, keep its first `rows`, and discard everything after them."""
        self.rows = rows
        self.file = self.path.open("r+b", buffering=0)
        self.file.seek(self.file.truncate(self.size(rows)))
        return self

    def append(self, rows: np.ndarray) -> None:
        """Append `rows`, (n, …)."""
        write_all(self.file, np.asarray(rows, self.dtype).tobytes())
        self.rows += len(rows)

    def finish(self) -> None:
        """Write the number of rows into the header, and flush everything to disk."""
        self.file.seek(0)
        write_all(self.file, self.header())
        self.sync()

    def sync(self) -> None:
        """Flush the appended rows to disk, unless the file is complete and closed."""
        if not self.file.closed:  # Ctrl+C may arrive just after a shard was closed
            flush_to_disk(self.file)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def header(self) -> bytes:
        """Return the header that numpy.save writes. Its length doesn't depend on the rows."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
                     "shape": (self.rows, *self.row)})
        return header.getvalue()

    def size(self, rows: int) -> int:
        """Return the file's size in bytes with that many rows."""
        return len(self.header()) + rows * self.dtype.itemsize * int(np.prod(self.row))


def write_all(file: Any, content: bytes) -> None:
    """Write all bytes of `content` to the unbuffered `file`, which may take only some at a time.

    Unbuffered, because a full disk would leave rows in a buffer that is lost later.
    """
    left = memoryview(content)
    while left:
        left = left[file.write(left):]


def flush_to_disk(file: BinaryIO) -> None:
    """Flush everything written to `file` to disk."""
    file.flush()
    os.fsync(file.fileno())
