"""Arrays on the disk that rows are appended to, beyond what fits into memory."""

import io
import os

import numpy as np


class GrowingArray:
    """A .npy file at `path` that grows: rows of `dtype`, numbers or, by `width`, arrays (width,).

    It is one that numpy can read only after `finish()`. Raises OSError if it can't be written.
    """

    def __init__(self, path, dtype, width=None):
        self.path, self.dtype = path, np.dtype(dtype)
        self.row = () if width is None else (width,)
        self.rows, self.file = 0, None

    def begin(self):
        """Begin without rows, with a header to be overwritten."""
        self.file = self.path.open("wb", buffering=0)
        write_all(self.file, self.header())
        return self

    def go_on(self, rows):
        """Go on behind the first `rows`, which are there already."""
        self.rows = rows
        self.file = self.path.open("r+b", buffering=0)
        self.file.seek(self.file.truncate(self.size(rows)))
        return self

    def add(self, rows):
        """Append `rows`, (n, …)."""
        write_all(self.file, np.asarray(rows, self.dtype).tobytes())
        self.rows += len(rows)

    def finish(self):
        """Bring all down to the disk, the number of rows in the header."""
        self.file.seek(0)
        write_all(self.file, self.header())
        self.sync()

    def sync(self):
        """Bring what was added down to the disk, if that has not been done for good."""
        if not self.file.closed:  # Ctrl+C may come just after a shard was closed
            to_disk(self.file)

    def close(self):
        """No more rows."""
        self.file.close()

    def header(self):
        """What numpy.save writes before so many rows; as long for any number of them."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
                     "shape": (self.rows, *self.row)})
        return header.getvalue()

    def size(self, rows):
        """Bytes that the file is long with so many rows."""
        return len(self.header()) + rows * self.dtype.itemsize * int(np.prod(self.row))


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
