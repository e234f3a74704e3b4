"""Open sound files whatever their headers say, without messages from the decoders."""

import errno
import io
import os
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import soundfile

from common.errors import UserError
from common.files import not_regular
from common.quiet import silent_stderr

# Container -> byte order of its chunk sizes, and the chunk that holds the samples.
CHUNKED = {b"RIFF": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
STREAMED = 0x7FFF0000  # programs that write to a pipe give 0 or a size from here on for "unknown"
UNKNOWN_SIZE = b"\xff" * 4  # one such size that libsndfile understands


class Sound(soundfile.SoundFile):
    """A sound file that is read from its beginning to its end.

    Wherever seeking is possible, soundfile seeks after each block, to the position it is at. In an
    mp3 that loses the bits that the next frame shares with the previous ones.
    """

    def __init__(self, file: Any):
        with silent_stderr:  # libmpg123 writes its notes there, without the name of the file
            super().__init__(file)
        self.context = silent_stderr if self.subtype.startswith("MPEG") else nullcontext()

    def seekable(self) -> bool:
        """Return False, for soundfile; see `can_seek`."""
        return False

    @property
    def can_seek(self) -> bool:
        """Whether the decoder can seek."""
        return super().seekable()

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """Read a block like any SoundFile."""
        with self.context:
            return super().read(*args, **kwargs)


def check_regular(path: Path) -> None:
    """Raise UserError, with the true reason, unless `path` is a regular file."""
    try:
        kind = not_regular(os.stat(path).st_mode)
    except OSError as error:
        raise unreadable(path, error) from None
    if kind:
        raise UserError(f"{path}: is {kind}, not a recording; remove it, or write what it "
                        "holds to a file")


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the UserError for a recording that can't be opened or read."""
    if error.errno == errno.ENOENT:
        return UserError(f"{path}: no such file; check the path, or the link")
    reason = (error.strerror or str(error)).lower()
    return UserError(f"{path}: can't be read ({reason}); make it readable, or remove it")


def soundfile_source(path: Path) -> Any:
    """Return what soundfile is to open for `path`: the path, or a PatchedHeader of a streamed wav.

    Programs that write to a pipe can't know the sizes in the header. libsndfile takes only one of
    their substitutes literally: 0.
    Raises UserError if a wav or aiff ends before its header says. libsndfile would read it without
    a message, and the recording would stop in mid-speech.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        order, wanted = CHUNKED.get(start[:4], (None, None))
        while order and len(header := file.read(8)) == 8:
            name, length = struct.unpack(f"{order}4sI", header)
            data = file.tell()
            if name != wanted:
                file.seek(length + length % 2, os.SEEK_CUR)  # chunks begin at even offsets
                continue
            missing = data + length - size
            if missing > 0 and length < STREAMED:
                raise UserError(f"{path}: truncated, {missing} of {length} bytes of sound are "
                                "missing; copy it again, or remove it")
            if length == 0 and data < size and not _are_chunks(file, order, size):
                return PatchedHeader(path, (4, data - 4))
            break
    return os.fsencode(path) if os.name == "posix" else path  # names there needn't be UTF-8


def _are_chunks(file: BinaryIO, order: str, size: int) -> bool:
    """Whether chunks, and no samples, fill the `file` from its position to its end."""
    place = file.tell()
    while place < size:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8 or not (header[:4].isascii() and header[:4].decode().isprintable()):
            return False
        length, = struct.unpack(f"{order}I", header[4:])
        place += 8 + length + length % 2
    return place <= size + 1  # the last chunk may lack its padding


class PatchedHeader(io.FileIO):
    """The file at `path`, read as if UNKNOWN_SIZE stood at the `places` (offsets) in it."""

    def __init__(self, path: Path, places: tuple[int, ...]):
        super().__init__(path)
        self.places = places

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the current position; return the number of bytes read."""
        begin = self.tell()
        count = super().readinto(buffer) or 0
        read = memoryview(buffer).cast("B")[:count]
        for place in self.places:
            for number, byte in enumerate(UNKNOWN_SIZE, place - begin):
                if 0 <= number < count:
                    read[number] = byte
        return count
