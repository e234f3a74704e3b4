"""Recordings on disk: find them, decode them, and bring them to one channel and one rate."""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from common.errors import UserError
from common.files import find_files
from datasets.audio.lossy import Window, parts_of
from datasets.audio.opening import Sound, check_regular, complete, unreadable

# Also of recordings that libsndfile can't decode: they are told of, not passed over.
ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au",
           ".caf", ".w64", ".m4a", ".aac", ".wma", ".amr", ".ape", ".wv")
# Of sounds, and of films with sound, that are told of though nobody asked for them.
PASSED_OVER = (".3ga", ".3gp", ".aa", ".aax", ".ac3", ".adts", ".amb", ".asf", ".avi", ".bwf",
               ".dff", ".dsf", ".dts", ".eac3", ".f4a", ".f4v", ".flv", ".gsm", ".m4b", ".m4p",
               ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp4", ".mpa", ".mpc",
               ".mpeg", ".mpg", ".mpga", ".nist", ".ofr", ".ogm", ".ogv", ".ogx", ".ra", ".ram",
               ".rf64", ".rm", ".rmvb", ".shn", ".snd", ".sph", ".spx", ".tak", ".tta", ".voc",
               ".vox", ".wave", ".weba", ".webm", ".wmv", ".wvx")
SLOWEST, FASTEST = 1000, 768_000  # Hz; no recording has another rate
FRAME = 0.02  # seconds, of which silence is told
BLOCK = 1 << 17  # frames decoded at a time, so that no recording is ever held as a whole
LARGEST = 1 << 20  # samples in such a block, however many channels there are
UNKNOWN = 1 << 62  # frames; libsndfile gives more where a header doesn't tell


class Excerpt(NamedTuple):
    """The part of a recording that is read, in seconds: from `offset`, `seconds` at the most.

    seconds: 0 for all that follows. Recordings shorter than `least`, in all, are refused.
    """

    offset: float = 0.0
    seconds: float = 0.0
    least: float = 0.0


class Found(NamedTuple):
    """What lies below a folder: recordings, and files of kinds that are not read; sorted Paths."""

    recordings: list[Path]
    passed_over: list[Path]


def find_recordings(data) -> list[Path]:
    """The recordings below the folder `data`, or `data` itself if it is a file: sorted Paths.

    Raises UserError if there is no such folder, or no recording in it.
    """
    return search(data).recordings


def search(data) -> Found:
    """The same, and what is passed over."""
    data = Path(data)
    try:
        is_folder = data.stat() and data.is_dir()
    except FileNotFoundError:
        raise UserError(f"--data {data}: no such folder; give the folder with the "
                        "recordings") from None
    except OSError as error:
        raise UserError(f"--data {unreadable(data, error)}") from None
    if not is_folder:
        return Found([data], [])
    found = sorted_out(find_files(data, ENDINGS + PASSED_OVER))
    if not found.recordings:
        wanted = " ".join(ending[1:] for ending in ENDINGS)
        others = f" ({told(found.passed_over)})" if found.passed_over else ""
        raise UserError(f"--data {data}: no recordings below it; looked for {wanted}{others}")
    return found


def sorted_out(paths, endings=ENDINGS) -> Found:
    """The `paths`, by whether they end in one of the `endings`."""
    wanted = [path for path in paths if path.name.lower().endswith(endings)]
    return Found(wanted, sorted({*paths}.difference(wanted)))


def told(passed_over) -> str:
    """In words, what is passed over."""
    endings = sorted({path.suffix.lower()[1:] for path in passed_over})
    count = len(passed_over)
    return (f"{count} {'file' if count == 1 else 'files'} of kinds that are not read passed over: "
            f"{' '.join(endings)}; convert {'it' if count == 1 else 'them'} to wav or flac")


def read_recording(path, rate, excerpt=Excerpt()):  # noqa: B008 - immutable
    """The samples of the recording at `path`: float32, (length,). All else as recording_blocks."""
    return np.concatenate([*recording_blocks(path, rate, excerpt)])


def _say(text):
    print(f"used as far as it goes: {text}", file=sys.stderr)


def recording_blocks(path, rate, excerpt=Excerpt(), note=_say):  # noqa: B008 - immutable
    """Yields the samples of the recording at `path`, block by block: float32, (n,).

    They are the mean of the channels, at `rate` Hz; resampling is band-limited. Full scale is
    [-1, 1]; a float file may go beyond. Of ogg and mp3, all streams that the file holds are read,
    to the end; what is less than their headers say is told to `note`, as one line of text. Raises
    UserError for a file that is no sound, of another format ends early, is empty, too short for the
    `excerpt`, or holds NaN or infinity.
    """
    path = Path(path)
    check_regular(path)
    empty = True
    try:
        for samples in resampled(decoded(path, excerpt, note), rate):
            if not np.isfinite(samples).all():
                raise UserError(f"{path}: holds NaN or infinite samples; write it anew, or "
                                "remove it")
            empty = empty and not len(samples)
            yield samples
    except OSError as error:
        raise unreadable(path, error) from None
    except (soundfile.SoundFileError, EOFError) as error:
        raise UserError(f"{path}: not a recording that can be decoded ({one_line(error)}); "
                        "convert it to wav or flac, or remove it") from None
    if empty:
        raise UserError(f"{path}: holds no samples; remove it")


def decoded(path, excerpt, note):
    """Yields (rate, samples (n,)) of the excerpt, mono, a block at a time."""
    parts = parts_of(path)
    if parts:
        yield from excerpted(path, all_parts(path, parts, note), excerpt)
        return
    with Sound(complete(path)) as sound:
        check_rate(path, sound.samplerate)
        if sound.frames >= UNKNOWN:
            yield from excerpted(path, blocks_of(sound), excerpt)
        else:
            yield from counted(path, sound, excerpt)


def counted(path, sound, excerpt):
    """The same of a `sound` whose header is to be believed."""
    rate, length = sound.samplerate, sound.frames / sound.samplerate
    if sound.frames:
        check_length(path, length, excerpt)
    begin = round(excerpt.offset * rate)
    if begin and sound.can_seek:
        sound.seek(begin)
        begin = 0
    missing = sound.frames - round(excerpt.offset * rate)
    if excerpt.seconds:
        missing = min(missing, round(excerpt.seconds * rate))
    for _, block in blocks_of(sound, begin + missing):
        missing -= max(len(block) - begin, 0)
        yield rate, block[begin:]
        begin = max(begin - len(block), 0)
    if missing:
        raise UserError(f"{path}: truncated, {missing} of {sound.frames} samples are missing; "
                        "copy it again, or remove it")


def excerpted(path, blocks, excerpt):
    """Of (rate, samples) those in the excerpt, whose length is known only at their end."""
    rate, frames, before = 0, 0, 0.0  # of the blocks of one rate; seconds of those before them
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
        if excerpt.seconds and frames >= last and before + frames / rate >= excerpt.least:
            return
    if frames:
        check_length(path, before + frames / rate, excerpt)


def check_length(path, seconds, excerpt):
    """Raise UserError for a recording that is too short for the `excerpt`."""
    if seconds < excerpt.least:
        raise UserError(f"{path}: {seconds:.3g} seconds long, shorter than --min_seconds "
                        f"{excerpt.least:g}; give less, or remove it")
    if excerpt.offset and excerpt.offset >= seconds:
        raise UserError(f"{path}: {seconds:.3g} seconds long, over before --offset_seconds "
                        f"{excerpt.offset:g}; give less, or remove it")


def check_rate(path, rate):
    """Raise UserError for a rate that no recording has."""
    if not SLOWEST <= rate <= FASTEST:
        raise UserError(f"{path}: its header claims {rate} samples a second, which no recording "
                        f"has; give it one of {SLOWEST:,} to {FASTEST:,}, or remove it")


def all_parts(path, parts, note):
    """Yields (rate, samples) of the streams in a file, one after the other, as far as they go."""
    missing, claimed, read, bad = 0, 0, 0, []
    for part in parts:
        whole = len(parts) == 1 and part.claims and not part.begin
        left = 0
        try:
            with Sound(complete(path) if whole else Window(path, part)) as sound:
                check_rate(path, sound.samplerate)
                if part.claims:
                    claimed += sound.frames
                    left = sound.frames
                for rate, block in blocks_of(sound):
                    left -= len(block)
                    read += len(block)
                    yield rate, block
        except soundfile.SoundFileError as error:
            bad.append(error)
        if part.claims:
            missing += max(left, 0)
    if bad and not read:
        raise bad[0]
    if missing:
        note(f"{path}: ends early, {missing:,} of {claimed:,} samples that its header claims are "
             "missing")
    elif bad:
        note(f"{path}: {len(bad)} of its {len(parts)} streams can't be decoded "
             f"({one_line(bad[0])})")


def blocks_of(sound, frames=UNKNOWN):
    """Yields (rate, samples (n,)) of an open `sound`, mono, up to so many frames."""
    most = max(min(BLOCK, LARGEST // sound.channels), 1)
    while frames and len(block := sound.read(min(frames, most), dtype="float32", always_2d=True)):
        frames -= len(block)
        yield sound.samplerate, block.mean(axis=1)


def split_silence(blocks, rate, threshold):
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


def resampled(blocks, rate):
    """The samples of (their rate, samples) at `rate` Hz; no block is longer than BLOCK for that."""
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
        most = max(BLOCK * source // rate, 1) if rate > source else len(block) or 1
        for begin in range(0, len(block), most):
            yield stream.resample_chunk(block[begin:begin + most])
    if stream:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def one_line(error):
    """What went wrong, without the path that libsndfile's messages repeat."""
    return str(error).split(": ", 1)[-1].strip().rstrip(".").replace("\n", " ")
