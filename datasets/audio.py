"""Recordings on disk: find them, decode them, and bring them to one channel and one rate."""

import io
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from datasets.errors import UserError
from datasets.files import find_files

# Also of recordings that libsndfile can't decode: they are told of, not passed over.
ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au",
           ".caf", ".w64", ".m4a", ".aac", ".wma", ".amr", ".ape", ".wv")
FRAME = 0.02  # seconds, of which silence is told
BLOCK = 1 << 17  # frames decoded at a time, so that no recording is ever held as a whole
# Container -> byte order of its chunk sizes, and the chunk that holds the samples.
CHUNKED = {b"RIFF": ("<", b"data"), b"RIFX": (">", b"data"), b"FORM": (">", b"SSND")}
STREAMED = 0x7FFF0000  # programs that write to a pipe give 0 or a size from here on for "unknown"
UNKNOWN = b"\xff" * 4  # one such size that libsndfile understands


class Excerpt(NamedTuple):
    """The part of a recording that is read, in seconds: from `offset`, `seconds` at the most.

    seconds: 0 for all that follows. Recordings shorter than `least`, in all, are refused.
    """

    offset: float = 0.0
    seconds: float = 0.0
    least: float = 0.0


def find_recordings(data):
    """The recordings below the folder `data`, or `data` itself if it is a file: sorted Paths.

    Raises UserError if there is no such folder, or no recording in it.
    """
    data = Path(data)
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder; give the folder with the recordings")
    found = find_files(data, ENDINGS)
    if not found:
        wanted = " ".join(ending[1:] for ending in ENDINGS)
        raise UserError(f"--data {data}: no recordings below it; looked for {wanted}")
    return found


def read_recording(path, rate, excerpt=Excerpt()):  # noqa: B008 - immutable
    """The samples of the recording at `path`: float32, (length,). All else as recording_blocks."""
    return np.concatenate([*recording_blocks(path, rate, excerpt)])


def recording_blocks(path, rate, excerpt=Excerpt()):  # noqa: B008 - immutable
    """Yields the samples of the recording at `path`, block by block: float32, (n,).

    They are the mean of the channels, at `rate` Hz; resampling is band-limited. Full scale is
    [-1, 1]; a float file may go beyond. Raises UserError for a file that is no sound, ends early,
    is empty, too short for the `excerpt`, or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path, or the link")
    empty = True
    try:
        with soundfile.SoundFile(complete(path)) as sound:
            mono = (block.mean(axis=1) for block in decoded(path, sound, excerpt))
            for samples in resampled(mono, sound, rate):
                if not np.isfinite(samples).all():
                    raise UserError(f"{path}: holds NaN or infinite samples; write it anew, or "
                                    "remove it")
                empty = empty and not len(samples)
                yield samples
    except (soundfile.SoundFileError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a recording that can be decoded ({one_line(error)}); "
                        "convert it to wav or flac, or remove it") from None
    if empty:
        raise UserError(f"{path}: holds no samples; remove it")


def decoded(path, sound, excerpt):
    """The samples (n, channels) of the excerpt from an open `sound`, a block at a time."""
    length = sound.frames / sound.samplerate
    if sound.frames and length < excerpt.least:
        raise UserError(f"{path}: {length:.3g} seconds long, shorter than --min_seconds "
                        f"{excerpt.least:g}; give less, or remove it")
    if sound.frames and excerpt.offset and excerpt.offset >= length:
        raise UserError(f"{path}: {length:.3g} seconds long, over before --offset_seconds "
                        f"{excerpt.offset:g}; give less, or remove it")
    sound.seek(round(excerpt.offset * sound.samplerate))
    missing = sound.frames - sound.tell()
    if excerpt.seconds:
        missing = min(missing, round(excerpt.seconds * sound.samplerate))
    while missing:
        wanted = min(missing, BLOCK)
        block = sound.read(wanted, dtype="float32", always_2d=True)
        yield block
        missing -= len(block)
        if len(block) < wanted:  # an mp3 that was cut; libsndfile says nothing
            raise UserError(f"{path}: truncated, {missing} of {sound.frames} samples are missing; "
                            "copy it again, or remove it")


def told_apart(blocks, rate, threshold):
    """Yields (samples, whether they are heard), in order: all that the `blocks`, (n,), hold.

    Silence are frames of FRAME seconds whose root mean square is below `threshold`. What is heard
    begins and ends with a frame that is not silent, and may have silent ones in between.
    """
    size = max(round(FRAME * rate), 1)
    rest = np.empty(0, np.float32)  # less than a frame
    for block in blocks:
        samples = np.concatenate([rest, block])
        whole = len(samples) - len(samples) % size
        yield from _cut_at_silence(samples[:whole], size, threshold)
        rest = samples[whole:]
    yield from _cut_at_silence(rest, size, threshold)


def _cut_at_silence(samples, size, threshold):
    """The samples before the first frame that is heard, up to the last one's end, and after it."""
    frames = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    heard, = np.nonzero(np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1)) >= threshold)
    begin, end = (heard[0] * size, (heard[-1] + 1) * size) if len(heard) else (0, 0)
    for piece, is_heard in ((samples[:begin], False), (samples[begin:end], True),
                            (samples[end:], False)):
        if len(piece):
            yield piece, is_heard


def resampled(blocks, sound, rate):
    """The blocks of mono `sound` at `rate` Hz."""
    if sound.samplerate == rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def complete(path):
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
            container, = struct.unpack(f"{order}I", start[4:8])
            if length == 0 and container + 8 <= data < size:
                return Mended(path, (4, data - 4))
            break
    return os.fsencode(path) if os.name == "posix" else path  # names there needn't be UTF-8


class Mended(io.FileIO):
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


def one_line(error):
    """What went wrong, without the path that libsndfile's messages repeat."""
    return str(error).split(": ", 1)[-1].strip().rstrip(".").replace("\n", " ")
