"""The one reader of .npy files: arrays of plain numbers, memory-mapped, never unpickled."""

import io
import math
import os
import warnings
from os import PathLike

import numpy as np

from common.files import open_regular

KINDS = "fiub"  # of numpy.dtype.kind: floating-point, integers, unsigned integers, booleans
HEADER = 4096  # bytes at most: plain numbers need 128, and a longer one may be made to harm


class NoArrayError(ValueError):
    """What is in a file is no whole .npy array of plain numbers; the message says why."""


def map_array(path: str | PathLike[str]) -> np.ndarray:
    """The array in the .npy file `path`, a read-only memory map: its numbers are read when used.

    The header is checked against the file's size before anything is allocated. Objects, text,
    complex and structured numbers are refused without a look at them.
    Raises NoArrayError for what is no such array, OSError for a file that can't be read.
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        shape, is_fortran, dtype, begin = _header(file.read(HEADER))
        if dtype.kind not in KINDS:
            raise NoArrayError(f"it holds {dtype.name[:40]}, no plain numbers")
        if min(shape, default=0) < 0:
            raise NoArrayError(f"its shape is {shape}")
        count = math.prod(shape)
        if begin + count * dtype.itemsize > status.st_size:
            raise NoArrayError("it is cut off, or its header is damaged")
        order = "F" if is_fortran else "C"
        if not count:  # numpy maps no empty array
            return np.empty(shape, dtype, order)
        try:
            return np.memmap(file, dtype, "r", begin, shape, order)
        except ValueError as error:  # more dimensions than numpy has
            raise NoArrayError(str(error)) from None


def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, whether in Fortran's order, dtype, where the numbers begin) of a file's first bytes.

    numpy reads it. What it raises for damage is whatever its Python parser comes to.
    """
    file = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser, about damage
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                found = np.lib.format.read_array_header_1_0(file, max_header_size=HEADER)
            elif version == (2, 0):
                found = np.lib.format.read_array_header_2_0(file, max_header_size=HEADER)
            else:  # 3.0 is for the names in structured numbers
                raise NoArrayError(f"its version {version} is not one of plain numbers")
        except NoArrayError:
            raise
        except Exception:
            raise NoArrayError("it has no header of a .npy file") from None
    shape, is_fortran, dtype = found
    return tuple(map(int, shape)), is_fortran, dtype, file.tell()
