"""Find recordings, decode them, and convert them to one channel and one rate."""

import sys
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from common.errors import UserError
from datasets.audio.lossy import Stream, StreamFile, find_streams
from datasets.audio.opening import Sound, check_regular, soundfile_source, unreadable
from datasets.endings import AUDIO, FoundFiles, describe_skipped, find_by_ending

LOWEST_RATE, HIGHEST_RATE = 1000, 768_000  # Hz; no recording has another rate
SILENCE_FRAME = 0.02  # seconds that are judged together to be silent or not
BLOCK_FRAMES = 1 << 17  # frames decoded at a time, so that memory never holds a whole recording
BLOCK_SAMPLES = 1 << 20  # samples in such a block, however many channels there are
UNKNOWN_LENGTH = 1 << 62  # frames; libsndfile gives more if the header doesn't say how many

# (rate in Hz, samples (n,) float32): what decoders yield.
Blocks = Iterator[tuple[int, np.ndarray]]


class Excerpt(NamedTuple):
    """The part of a recording to read, in seconds: from `offset`, at most `seconds`.

    seconds: 0 for everything after `offset`. Recordings shorter than `minimum` are refused.
    """

    offset: float = 0.0
    seconds: float = 0.0
    minimum: float = 0.0


def find_recordings(data: str | PathLike[str]) -> list[Path]:
    """List the recordings below the folder `data`, or `data` itself if it is a file: sorted.

    Raises UserError if there is no such folder, or no recording in it.
    """
    return scan_recordings(data).read


def scan_recordings(data: str | PathLike[str]) -> FoundFiles:
    """Find the same recordings, and the audio files of kinds that are not read."""
    data = Path(data)
    try:
        is_folder = data.stat() and data.is_dir()
    except FileNotFoundError:
        raise UserError(f"{data}: no such folder; give the folder with the recordings",
                        parameter="data") from None
    except OSError as error:
        raise UserError(str(unreadable(data, error)), parameter="data") from None
    if not is_folder:
        return FoundFiles([data], [])
    found = find_by_ending(data, AUDIO)
    if not found.read:
        wanted = " ".join(ending[1:] for ending in AUDIO.read)
        others = f" ({describe_skipped(found.skipped)})" if found.skipped else ""
        raise UserError(f"{data}: no recordings below it; looked for {wanted}{others}",
                        parameter="data")
    return found


def read_recording(path: str | PathLike[str], rate: int,
                   excerpt: Excerpt = Excerpt()) -> np.ndarray:  # noqa: B008 - immutable
    """Return the samples of the recording at `path`: float32, (length,). See recording_blocks."""
    return np.concatenate([*recording_blocks(path, rate, excerpt)])


def _print_note(text: str) -> None:
    print(f"used as far as it goes: {text}", file=sys.stderr)


def recording_blocks(path: str | PathLike[str], rate: int,
                     excerpt: Excerpt = Excerpt(),  # noqa: B008 - immutable
                     note: Callable[[str], None] = _print_note) -> Iterator[np.ndarray]:
    """Yield the samples of the recording at `path`, block by block: float32, (n,).

    Samples are the mean of the channels, at `rate` Hz; resampling is band-limited. Full scale is
    [-1, 1]; a float file may exceed it. In ogg and mp3 files, all streams are read; if they hold
    less than their headers say, `note` gets one line about it.
    Raises UserError for a file that is no sound, is empty, is too short for the `excerpt`, holds
    NaN or infinity, or, in other formats than ogg and mp3, is truncated.
    """
    path = Path(path)
    check_regular(path)
    empty = True
    try:
        for samples in _resample(_decode_blocks(path, excerpt, note), rate):
            if not np.isfinite(samples).all():
                raise UserError(f"{path}: holds NaN or infinite samples; write it again, or "
                                "remove it")
            empty = empty and not len(samples)
            yield samples
    except OSError as error:
        raise unreadable(path, error) from None
    except (soundfile.SoundFileError, EOFError) as error:
        raise UserError(f"{path}: not a recording that can be decoded ({_decoder_message(error)}); "
                        "convert it to wav or flac, or remove it") from None
    if empty:
        raise UserError(f"{path}: holds no samples; remove it")


def _decode_blocks(path: Path, excerpt: Excerpt, note: Callable[[str], None]) -> Blocks:
    """Yield (rate, samples (n,)) of the excerpt, mono, a block at a time."""
    streams = find_streams(path)
    if streams:
        yield from _cut_excerpt(path, _read_streams(path, streams, note), excerpt)
        return
    with Sound(soundfile_source(path)) as sound:
        _check_rate(path, sound.samplerate)
        if sound.frames >= UNKNOWN_LENGTH:
            yield from _cut_excerpt(path, _sound_blocks(sound), excerpt)
        else:
            yield from _read_sized(path, sound, excerpt)


def _read_sized(path: Path, sound: Sound, excerpt: Excerpt) -> Blocks:
    """Yield the blocks of the excerpt from a `sound` whose header gives its length."""
    rate, length = sound.samplerate, sound.frames / sound.samplerate
    if sound.frames:
        _check_length(path, length, excerpt)
    begin = round(excerpt.offset * rate)
    if begin and sound.can_seek:
        sound.seek(begin)
        begin = 0
    missing = sound.frames - round(excerpt.offset * rate)
    if excerpt.seconds:
        missing = min(missing, round(excerpt.seconds * rate))
    for _, block in _sound_blocks(sound, begin + missing):
        missing -= max(len(block) - begin, 0)
        yield rate, block[begin:]
        begin = max(begin - len(block), 0)
    if missing:
        raise UserError(f"{path}: truncated, {missing} of {sound.frames} samples are missing; "
                        "copy it again, or remove it")


def _cut_excerpt(path: Path, blocks: Blocks, excerpt: Excerpt) -> Blocks:
    """Cut the excerpt out of blocks whose total length is unknown until they end."""
    # rate, frames: of the run of blocks with one rate. before: seconds in earlier runs.
    rate, frames, before = 0, 0, 0.0
    for block_rate, block in blocks:
        if block_rate != rate:
            before += frames / rate if rate else 0
            rate, frames = block_rate, 0
        first = round((excerpt.offset - before) * rate)
        last = first + round(excerpt.seconds * rate) if excerpt.seconds else frames + len(block)
        piece = block[max(first - frames, 0):max(last - frames, 0)]
        frames += len(block)
        if len(piece):
            yield rate, piece
        if excerpt.seconds and frames >= last and before + frames / rate >= excerpt.minimum:
            return
    if frames:
        _check_length(path, before + frames / rate, excerpt)


def _check_length(path: Path, seconds: float, excerpt: Excerpt) -> None:
    """Raise UserError if a recording is too short for the `excerpt`."""
    if seconds < excerpt.minimum:
        raise UserError(f"{path}: {seconds:.3g} seconds long, shorter than min_seconds "
                        f"{excerpt.minimum:g}; give less, or remove it", mentions="min_seconds")
    if excerpt.offset and excerpt.offset >= seconds:
        raise UserError(f"{path}: {seconds:.3g} seconds long, over before offset_seconds "
                        f"{excerpt.offset:g}; give less, or remove it", mentions="offset_seconds")


def _check_rate(path: Path, rate: int) -> None:
    """Raise UserError for a rate in Hz that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise UserError(f"{path}: its header claims {rate} samples a second, which no recording "
                        f"has; give it one of {LOWEST_RATE:,} to {HIGHEST_RATE:,}, or remove it")


def _read_streams(path: Path, streams: list[Stream], note: Callable[[str], None]) -> Blocks:
    """Yield the blocks of all streams in a file, one stream after the other, up to their ends."""
    missing, claimed, read = 0, 0, 0
    errors: list[Exception] = []
    for stream in streams:
        whole = len(streams) == 1 and stream.claims and not stream.begin
        left = 0
        try:
            with Sound(soundfile_source(path) if whole else StreamFile(path, stream)) as sound:
                _check_rate(path, sound.samplerate)
                if stream.claims:
                    claimed += sound.frames
                    left = sound.frames
                for rate, block in _sound_blocks(sound):
                    left -= len(block)
                    read += len(block)
                    yield rate, block
        except soundfile.SoundFileError as error:
            errors.append(error)
        if stream.claims:
            missing += max(left, 0)
    if errors and not read:
        raise errors[0]
    if missing:
        note(f"{path}: ends early, {missing:,} of {claimed:,} samples that its header claims are "
             "missing")
    elif errors:
        note(f"{path}: {len(errors)} of its {len(streams)} streams can't be decoded "
             f"({_decoder_message(errors[0])})")


def _sound_blocks(sound: Sound, frames: int = UNKNOWN_LENGTH) -> Blocks:
    """Yield the next `frames` of an open `sound`, or fewer at its end, as mono blocks."""
    most = max(min(BLOCK_FRAMES, BLOCK_SAMPLES // sound.channels), 1)
    while frames and len(block := sound.read(min(frames, most), dtype="float32", always_2d=True)):
        frames -= len(block)
        yield sound.samplerate, block.mean(axis=1)


def split_silence(blocks: Iterable[np.ndarray], rate: int,
                  threshold: float) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield all samples of the `blocks`, (n,), in order, as (samples, whether they are heard).

    A frame of SILENCE_FRAME seconds is silent if its root mean square is below `threshold`. A heard
    stretch begins and ends with frames that are not silent, and may have silent ones in between.
    """
    size = max(round(SILENCE_FRAME * rate), 1)
    rest = np.empty(0, np.float32)  # shorter than a frame
    for block in blocks:
        samples = np.concatenate([rest, block])
        whole = len(samples) - len(samples) % size
        yield from _cut_at_silence(samples[:whole], size, threshold)
        rest = samples[whole:]
    yield from _cut_at_silence(rest, size, threshold)


def _cut_at_silence(samples: np.ndarray, size: int,
                    threshold: float) -> Iterator[tuple[np.ndarray, bool]]:
    """Cut samples before the first heard frame of `size` samples, and after the last one."""
    frames = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    heard, = np.nonzero(np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1)) >= threshold)
    begin, end = (heard[0] * size, (heard[-1] + 1) * size) if len(heard) else (0, 0)
    for piece, is_heard in ((samples[:begin], False), (samples[begin:end], True),
                            (samples[end:], False)):
        if len(piece):
            yield piece, is_heard


def _resample(blocks: Blocks, rate: int) -> Iterator[np.ndarray]:
    """Convert blocks to `rate` Hz. Upsampled blocks are at most about BLOCK_FRAMES long."""
    stream = source = None
    for source_rate, block in blocks:
        if source_rate != source:
            if stream:
                yield stream.resample_chunk(np.empty(0, np.float32), last=True)
            source = source_rate
            stream = None if source == rate else soxr.ResampleStream(
                source, rate, 1, dtype="float32", quality="HQ")
        if not stream:
            yield block
            continue
        most = max(BLOCK_FRAMES * source // rate, 1) if rate > source else len(block) or 1
        for begin in range(0, len(block), most):
            yield stream.resample_chunk(block[begin:begin + most])
    if stream:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _decoder_message(error: Exception) -> str:
    """Return what went wrong, without the path that libsndfile's messages repeat."""
    return str(error).split(": ", 1)[-1].strip().rstrip(".").replace("\n", " ")
