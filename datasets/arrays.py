"""Read .npy files: arrays of plain numbers, memory-mapped, never unpickled."""

import io
import math
import os
import warnings
from os import PathLike
from typing import Literal

import numpy as np

from common.files import open_regular

KINDS = "fiub"  # of numpy.dtype.kind: floating-point, integers, unsigned integers, booleans
MAX_HEADER = 4096  # bytes; plain numbers need 128, and a longer header may be an attack


class InvalidArrayError(ValueError):
    """A file holds no complete .npy array of plain numbers; the message says why."""


def map_array(path: str | PathLike[str]) -> np.ndarray:
    """Map the array in the .npy file `path` into memory, read-only: numbers are read when used.

    Checks the header against the file's size before it allocates anything. Refuses objects, text,
    complex and structured numbers without reading them.
    Raises InvalidArrayError for anything else, OSError for a file that can't be read.
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        shape, is_fortran, dtype, begin = _header(file.read(MAX_HEADER))
        if dtype.kind not in KINDS:
            raise InvalidArrayError(f"it holds {dtype.name[:40]}, no plain numbers")
        if min(shape, default=0) < 0:
            raise InvalidArrayError(f"its shape is {shape}")
        count = math.prod(shape)
        if begin + count * dtype.itemsize > status.st_size:
            raise InvalidArrayError("it is cut off, or its header is damaged")
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        if not count:  # numpy maps no empty array
            return np.empty(shape, dtype, order)
        try:
            return np.memmap(file, dtype, "r", begin, shape, order)
        except ValueError as error:  # more dimensions than numpy has
            raise InvalidArrayError(str(error)) from None


def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Parse a file's first bytes: (shape, whether in Fortran order, dtype, where numbers begin).

    numpy parses them as Python, and raises anything if they are damaged.
    """
    file = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's parser warns about damage
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                found = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER)
            elif version == (2, 0):
                found = np.lib.format.read_array_header_2_0(file, max_header_size=MAX_HEADER)
            else:  # 3.0 is for structured numbers
                raise InvalidArrayError(f"its version {version} is not one of plain numbers")
        except InvalidArrayError:
            raise
        except Exception:
            raise InvalidArrayError("it has no header of a .npy file") from None
    shape, is_fortran, dtype = found
    return tuple(map(int, shape)), is_fortran, dtype, file.tell()
