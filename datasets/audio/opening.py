"""Opening sound files, whatever their headers say, without a word from the decoders."""

import errno
import io
import os
import stat
import struct
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Lock

import soundfile

from common.errors import UserError

# Container -> byte order of its chunk sizes, and the chunk that holds the samples.
CHUNKED = {b"RIFF": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
STREAMED = 0x7FFF0000  # programs that write to a pipe give 0 or a size from here on for "unknown"
UNKNOWN = b"\xff" * 4  # one such size that libsndfile understands
KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket",
         stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}


class Quiet:
    """In its context what is written to file descriptor 2 is lost.

    libmpg123 writes its notes there, without the name of the file. For single calls of a decoder:
    all threads of the process share the descriptor. Contexts may overlap.
    """

    def __init__(self):
        self.lock, self.depth, self.saved = Lock(), 0, None

    def __enter__(self):
        with self.lock:
            self.depth += 1
            if self.depth > 1:
                return
            with suppress(OSError):  # a process may have no such descriptor
                self.saved = os.dup(2)
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 2)
                os.close(null)

    def __exit__(self, *_):
        with self.lock:
            self.depth -= 1
            if not self.depth and self.saved is not None:
                os.dup2(self.saved, 2)
                os.close(self.saved)
                self.saved = None


quiet = Quiet()


class Sound(soundfile.SoundFile):
    """A sound file that is read from its beginning to its end.

    soundfile seeks after each block, to where the file stands, wherever seeking is possible. In an
    mp3 that loses the bits which the next frame shares with those before.
    """

    def __init__(self, file):
        with quiet:
            super().__init__(file)
        self.context = quiet if self.subtype.startswith("MPEG") else nullcontext()

    def seekable(self):
        """Says no, for soundfile; `can_seek` tells."""
        return False

    @property
    def can_seek(self) -> bool:
        """Whether the decoder can."""
        return super().seekable()

    def read(self, *args, **kwargs):
        """As of any SoundFile."""
        with self.context:
            return super().read(*args, **kwargs)


def check_regular(path: Path) -> None:
    """Raises a UserError, with the true reason, for a path that is not that of a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise unreadable(path, error) from None
    for is_kind, kind in KINDS.items():
        if is_kind(mode):
            raise UserError(f"{path}: is {kind}, not a recording; remove it, or write what it "
                            "holds to a file")


def unreadable(path: Path, error: OSError) -> UserError:
    """The UserError for a file that can't be opened or read."""
    if error.errno == errno.ENOENT:
        return UserError(f"{path}: no such file; check the path, or the link")
    reason = (error.strerror or str(error)).lower()
    return UserError(f"{path}: can't be read ({reason}); make it readable, or remove it")


def complete(path: Path):
    """What soundfile is to open for `path`: the path, or a streamed wav as a Mended file.

    Raises UserError if a wav or aiff ends before the samples that it announces do: libsndfile reads
    it without a word, and the recording would be cut off in mid-speech. Programs that write to a
    pipe can't know the sizes; the one that libsndfile takes literally is 0.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        order, wanted = CHUNKED.get(start[:4], (None, None))
        while order and len(header := file.read(8)) == 8:
            name, length = struct.unpack(f"{order}4sI", header)
            data = file.tell()
            if name != wanted:
                file.seek(length + length % 2, os.SEEK_CUR)  # chunks begin at even places
                continue
            missing = data + length - size
            if missing > 0 and length < STREAMED:
                raise UserError(f"{path}: truncated, {missing} of {length} bytes of sound are "
                                "missing; copy it again, or remove it")
            if length == 0 and data < size and not _are_chunks(file, order, size):
                return PatchedHeader(path, (4, data - 4))
            break
    return os.fsencode(path) if os.name == "posix" else path  # names there needn't be UTF-8


def _are_chunks(file, order, size):
    """Whether from where the `file` stands up to its end there are chunks, and no samples."""
    place = file.tell()
    while place < size:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8 or not (header[:4].isascii() and header[:4].decode().isprintable()):
            return False
        length, = struct.unpack(f"{order}I", header[4:])
        place += 8 + length + length % 2
    return place <= size + 1  # the last one may lack its padding


class PatchedHeader(io.FileIO):
    """The file at `path` as if UNKNOWN stood at the `places` in it. Nothing is written."""

    def __init__(self, path, places):
        super().__init__(path)
        self.places = places

    def readinto(self, buffer):
        """Fill `buffer` from where the file stands: the number of bytes read."""
        begin = self.tell()
        count = super().readinto(buffer)
        read = memoryview(buffer).cast("B")[:count]
        for place in self.places:
            for number, byte in enumerate(UNKNOWN, place - begin):
                if 0 <= number < count:
                    read[number] = byte
        return count
