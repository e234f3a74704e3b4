"""Find where the streams of an ogg or mp3 file begin and end.

Programs that record radio stations, and `cat`, write several streams into one file, which may
differ in rate and channels. libsndfile decodes only the first. For an mp3 without a length tag it
also relies on a length that it guesses from the size of the first frames.
"""

import io
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

SEARCHED = 1 << 16  # bytes at the beginning of a file that must contain the first mp3 frame
CONFIRMED = 3  # mp3 frames in a row that don't occur by chance
ENDLESS = 1 << 40  # bytes
MP3_IN_WAV = b"\x55\0"  # the code of the format
SYNC = re.compile(rb"(?=\xff[\xe2-\xff][\x10-\xef])", re.DOTALL)  # the beginning of an mp3 frame
# (whether it is MPEG 1, layer) -> kbit/s for each index from 1 up.
BITRATES = {
    (True, 1): range(32, 480, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)}
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class Stream(NamedTuple):
    """A stream in a file: its bytes from `begin` up to `end`.

    claims: whether its header says how many samples it holds.
    """

    begin: int
    end: int
    claims: bool


class StreamFile(io.RawIOBase):
    """A Stream of the file at `path`, as a file of its own.

    A stream that claims no length appears to be ENDLESS, so that libsndfile's guess of the number
    of samples doesn't end it. (Reads beyond the stream return nothing, or zeros in the last bytes,
    where libmpg123 looks for a tag.)
    """

    def __init__(self, path: Path, stream: Stream):
        self.file = open(path, "rb")  # noqa: SIM115 - close() closes it
        self.stream, self.position = stream, 0
        self.size = stream.end - stream.begin if stream.claims else ENDLESS

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, like any file."""
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position,
                                  io.SEEK_END: self.size}[whence]
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def readinto(self, buffer) -> int:
        """Fill `buffer`; return the number of bytes read."""
        view = memoryview(buffer).cast("B")
        left = self.stream.end - self.stream.begin - self.position
        if left > 0:
            self.file.seek(self.stream.begin + self.position)
            count = self.file.readinto(view[:left])
        elif self.position >= self.size - 128:
            count = max(min(len(view), self.size - self.position), 0)
            view[:count] = bytes(count)
        else:
            count = 0
        self.position += count
        return count

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


def find_streams(path: Path) -> list[Stream] | None:
    """List the streams in the ogg or mp3 file at `path`, in order; None for any other file.

    Raises OSError if it can't be read.
    """
    with open(path, "rb", buffering=0) as unbuffered:  # all files are tested here
        start = unbuffered.read(22)
        file = io.BufferedReader(unbuffered)
        if start[:4] == b"OggS":
            return _ogg_streams(file)
        in_wav = start[:4] == b"RIFF" and start[12:16] == b"fmt " and start[20:] == MP3_IN_WAV
        is_wav = start[:4] == b"RIFF" and not in_wav
        if in_wav or start[:3] == b"ID3" or SYNC.match(start) or (
                path.suffix.lower() == ".mp3" and not is_wav):
            return _mp3_streams(file) or None
    return None


def _ogg_streams(file: BinaryIO) -> list[Stream]:
    """Split at the pages that are marked as first; streams played at once have several in a row."""
    begins, page, position, were_first = [0], 0, 0, True
    while True:
        file.seek(position)
        header = file.read(27)
        if len(header) < 27:
            break
        if header[:5] != b"OggS\0":
            # The previous page may have a wrong length.
            found = _find(file, re.compile(rb"(?=OggS\0)"), page + 1)
            if found is None:
                break
            position = page = found
            continue
        is_first = bool(header[5] & 2)
        if is_first and not were_first:
            begins.append(position)
        were_first, page = is_first, position
        position += 27 + header[26] + sum(file.read(header[26]))
    size = file.seek(0, io.SEEK_END)
    return [Stream(begin, end, True)
            for begin, end in zip(begins, [*begins[1:], size], strict=True)]


def _mp3_streams(file: BinaryIO) -> list[Stream]:
    """Group frames that follow each other without a gap.

    A stream ends at a gap, at the next tag, at a change of format, or after as many frames as its
    tag says. A file without frames in its first bytes, after its ID3 tag, has no streams.
    """
    streams: list[Stream] = []
    begin = kind = left = None
    position = _find_frames(file, _after_id3(file, 0), SEARCHED)
    if position is None:
        return []

    def end_stream():
        if begin is not None:
            streams.append(Stream(begin, position, left is not None))

    while position is not None:
        file.seek(position)
        header = file.read(64)
        found = _frame(header)
        if not found or found[0] != kind and not _are_frames(file, position):
            end_stream()
            begin = kind = left = None
            position = _find_frames(file, _after_id3(file, position))
            continue
        frames = _tagged_frames(header)
        if frames is not None or found[0] != kind or left == 0:
            end_stream()
            begin, kind, left = position, found[0], frames or None
        elif left is not None:
            left -= 1
        position += found[1]
    return streams


def _after_id3(file: BinaryIO, position: int) -> int:
    """Return where an ID3 tag at `position` ends; `position` if there is none."""
    file.seek(position)
    header = file.read(10)
    if len(header) < 10 or header[:3] != b"ID3" or max(header[6:]) > 127:
        return position
    size = 0
    for byte in header[6:]:
        size = size << 7 | byte
    return position + 10 + size + 10 * bool(header[5] & 16)


def _find_frames(file: BinaryIO, position: int, searched: int | None = None) -> int | None:
    """Return where the first frames from `position` on begin, within `searched` bytes; or None."""
    last = None if searched is None else position + searched
    found = _find(file, SYNC, position, last)
    while found is not None and not _are_frames(file, found):
        found = _find(file, SYNC, found + 1, last)
    return found


def _find(file: BinaryIO, pattern: re.Pattern, position: int, last: int | None = None
          ) -> int | None:
    """Return where the `pattern`, of a few bytes, first occurs from `position` on; or None."""
    while last is None or position <= last:
        file.seek(position)
        content = file.read(SEARCHED)
        if found := pattern.search(content):
            return position + found.start()
        if len(content) < SEARCHED:
            break
        position += SEARCHED - 8
    return None


def _are_frames(file: BinaryIO, position: int) -> bool:
    """Whether CONFIRMED frames of one kind follow each other, or fewer until the file ends."""
    kind = None
    for _ in range(CONFIRMED):
        file.seek(position)
        header = file.read(4)
        if not header and kind:
            return True
        found = _frame(header)
        if not found or kind not in (None, found[0]):
            return False
        kind, length = found
        position += length
    return True


def _frame(header: bytes) -> tuple[tuple, int] | None:
    """Return what all frames of a stream have in common, and this frame's length in bytes."""
    return _frame_of(int.from_bytes(header[:4], "big") >> 6) if len(header) >= 4 else None


@lru_cache(4096)
def _frame_of(word: int) -> tuple[tuple, int] | None:
    """Parse the first 26 bits of a frame, see `_frame`."""
    version, layer, bitrate, rate = word >> 13 & 3, 4 - (word >> 11 & 3), word >> 6 & 15, \
        word >> 4 & 3
    if word >> 15 != 0x7FF or version == 1 or layer == 4 or not 0 < bitrate < 15 or rate == 3:
        return None
    hertz, padding = RATES[version][rate], word >> 3 & 1
    bits = 1000 * BITRATES[version == 3, layer][bitrate - 1]
    if layer == 1:
        length = (12 * bits // hertz + padding) * 4
    else:
        length = (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding
    return (version, layer, rate, word & 3 == 3), length


def _tagged_frames(header: bytes) -> int | None:
    """Return how many frames the tag in this frame announces, 0 if it doesn't; None without tag."""
    is_mpeg1, is_mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    place = 4 + ((17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17))
    for begin in (place, place + 2):  # with a checksum
        name, flags, frames = struct.unpack(">4sII", header[begin:begin + 12].ljust(12, b"\0"))
        if name in (b"Xing", b"Info"):
            return frames if flags & 1 else 0
    if header[36:40] == b"VBRI":
        return struct.unpack(">I", header[50:54].ljust(4, b"\0"))[0]
    return None
