"""Encode many recordings as labelled codes and frames of features, in several processes."""

import copy
import math
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from itertools import count
from multiprocessing import Pipe, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from common.errors import UnfinishedError, UserError
from common.files import os_errors_as_lines
from datasets.audio.features import Features, features_path, frame_encoder
from datasets.audio.labels import Labelling
from datasets.audio.opening import check_regular
from datasets.audio.recordings import Excerpt, recording_blocks, split_silence
from datasets.quantization import code_dtype, encode_sound
from datasets.text.transcripts import Transcripts


class EncodingConfig(NamedTuple):
    """How to label and encode a recording.

    rate: Hz. levels, encoding: of the codes, see `datasets.quantization`. excerpt: what to read.
    silence_threshold: the root mean square of a frame, full scale being 1, below which the
    beginning and the end are cut off; 0 cuts nothing. features: to compute from what is left, or
    None. transcripts: what the recordings say, for features of kind "text". silence_after: seconds
    of silence that then follow the recording.
    """

    labelling: Labelling
    rate: int
    levels: int
    excerpt: Excerpt = Excerpt()
    silence_threshold: float = 0.0
    features: Features | None = None
    encoding: str = "mulaw"
    transcripts: Transcripts | None = None
    silence_after: float = 0.0

    @property
    def ending(self) -> np.ndarray:
        """The samples that follow each recording: (n,), float32."""
        return np.zeros(round(self.silence_after * self.rate), np.float32)

    def files(self, path: Path) -> list[Path]:
        """List all files that encoding the recording at `path` reads."""
        if self.transcripts:
            return [path, *self.transcripts.files_of(path)]
        has_array = self.features and self.features.kind == "npy"
        return [path, features_path(path)] if has_array else [path]

    def frame_encoder(self, path: Path) -> "Encoder | None":
        """Return the encoder that makes the frames of the recording at `path`; None without."""
        if not self.features:
            return None
        if self.transcripts:
            from datasets.text.frames import TextFrames  # whose packages take a second
            return TextFrames(path, self.features, self.transcripts)
        return frame_encoder(path, self.features)


class EncodedRecording(NamedTuple):
    """A recording's codes and label, or why it has none.

    codes: the file with the codes, as text. length: the number of codes. clipped: samples beyond
    full scale. silent: samples cut off. loudness: the root mean square of what is left. problem:
    why there are no codes, or None. frames: the file with the frames, as text, or None. note: what
    the recording lacks of what its header says, or None.
    """

    codes: str | None = None
    label: str | None = None
    length: int = 0
    clipped: int = 0
    silent: int = 0
    loudness: float = 0.0
    problem: str | None = None
    frames: str | None = None
    note: str | None = None


class SampleStats(NamedTuple):
    """Samples of a recording: how many, how many beyond full scale, and the sum of squares."""

    length: int = 0
    clipped: int = 0
    squares: float = 0.0


class Encoder(Protocol):
    """Turns samples into rows of numbers, block by block. A copy (copy.copy) saves its state."""

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Return the rows that the next `samples`, (n,), complete."""

    def end(self) -> np.ndarray:
        """Return the remaining rows, after the last sample."""


AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


class CodeEncoder:
    """An Encoder to codes, which also keeps the SampleStats."""

    def __init__(self, levels: int, encoding: str = "mulaw"):
        self.levels, self.encoding, self.stats = levels, encoding, SampleStats()

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Return the codes of the next `samples`: (n,)."""
        codes, clipped = encode_sound(samples, self.levels, self.encoding)
        squares = float(np.square(samples, dtype=np.float64).sum())
        self.stats = SampleStats(self.stats.length + len(codes), self.stats.clipped + clipped,
                                 self.stats.squares + squares)
        return codes

    def end(self) -> np.ndarray:
        """Return no codes: each sample has had its own."""
        return np.empty(0, code_dtype(self.levels))


class EncoderOutput(Generic[AnyEncoder]):
    """The new file at `path` with what an `encoder` makes of a recording.

    `end()` discards everything after the last commit. committed: the encoder as it was then.
    """

    def __init__(self, path: Path, encoder: AnyEncoder):
        self.encoder, self.file = encoder, path.open("wb")
        self.commit()

    def add(self, samples: np.ndarray) -> None:
        """Encode the next `samples`, (n,)."""
        self.file.write(self.encoder.add(samples).tobytes())

    def commit(self) -> None:
        """Keep everything added so far, whatever follows."""
        self.committed, self.size = copy.copy(self.encoder), self.file.tell()

    def end(self, last: np.ndarray) -> None:
        """Discard everything after the last commit, encode the `last` samples, end the file."""
        self.file.seek(self.file.truncate(self.size))
        self.encoder = copy.copy(self.committed)
        if len(last):
            self.add(last)
        self.file.write(self.encoder.end().tobytes())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def encode_recordings(paths: list[Path], config: EncodingConfig, workers: int, folder: str | Path,
                      start: int = 0) -> Generator[EncodedRecording, None, None]:
    """Encode each of `paths`, in order, except the first `start`, in that many processes.

    Codes and frames lie in files in `folder`, a temporary one; read them before you take the next
    recording. Few files wait there at a time, because a corpus may be larger than the memory.
    Raises UnfinishedError if a process dies, and OSError if `folder` is full.
    """
    workers = max(1, min(workers, len(paths) - start))
    stop_sender, stop_receiver = Pipe()
    pool = _start_pool(workers, stop_receiver)
    coming = zip(count(start), paths[start:])
    waiting: deque[Future[EncodedRecording]] = deque()
    try:
        for _ in tqdm(paths[start:], unit="recording", disable=None, initial=start,
                      total=len(paths)):
            while len(waiting) < 4 * workers and (job := next(coming, None)):
                number, path = job
                waiting.append(
                    pool.submit(encode_recording, path, config, Path(folder, str(number))))
            recording = waiting.popleft().result()
            yield recording
            for file in filter(None, (recording.codes, recording.frames)):
                os.unlink(file)
    except BaseException as error:
        stop_sender.send_bytes(b"end")
        if isinstance(error, BrokenProcessPool):
            raise UnfinishedError(
                f"{workers}: a process died, probably out of memory; give fewer, and this goes on "
                "where it stopped", parameter="workers") from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_pool(workers: int, stop_receiver: Connection) -> ProcessPoolExecutor:
    with os_errors_as_lines(  # an OSError of the pool's locks
            "--workers", "processes need some KB of shared memory, /dev/shm has none",
            "give a container more, as with --shm-size=1m"):
        return ProcessPoolExecutor(workers, initializer=_begin_worker, initargs=(stop_receiver,))


def _begin_worker(stop_receiver: Connection) -> None:
    """Set up a worker. It exits when it gets a message, or when its parent is gone.

    Ctrl+C is for the parent alone, which stops the workers without a traceback from each. Matrix
    products use one thread, because the threads of several workers would wait for each other.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)

    def watch() -> None:
        parent = parent_process()
        assert parent  # a worker has one
        wait([parent.sentinel, stop_receiver])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def encode_recording(path: Path, config: EncodingConfig, codes_path: Path) -> EncodedRecording:
    """Encode the recording at `path`: codes into the new file `codes_path`, frames next to it.

    Works block by block, because a recording may be larger than the memory. A recording that can't
    be used gives an EncodedRecording with a `problem`. Raises OSError if the files can't be
    written.
    """
    frames_path = codes_path.with_name(f"{codes_path.name}_frames") if config.features else None
    notes: list[str] = []
    try:
        check_regular(path)  # before looking for tags: opening a named pipe would wait
        label = config.labelling.label_of(path)
        frames_encoder = config.frame_encoder(path)
        with ExitStack() as stack:
            codes = stack.enter_context(
                closing(EncoderOutput(
                    codes_path, CodeEncoder(config.levels, config.encoding))))
            outputs: list[EncoderOutput] = [codes]
            if frames_path and frames_encoder:
                outputs.append(
                    stack.enter_context(closing(EncoderOutput(frames_path, frames_encoder))))
            blocks = recording_blocks(path, config.rate, config.excerpt, notes.append)
            length = _encode_into(outputs, blocks, config)
        kept = codes.committed.stats
        if not kept.length:
            raise UserError(f"{path}: all of it is below silence_threshold "
                            f"{config.silence_threshold:g}; lower that, or remove the file",
                            mentions="silence_threshold")
    except UserError as error:
        for file in filter(None, (codes_path, frames_path)):
            file.unlink(missing_ok=True)
        return EncodedRecording(problem=error.line())
    return EncodedRecording(
        str(codes_path), label, kept.length + len(config.ending), kept.clipped,
        length - kept.length, math.sqrt(kept.squares / kept.length),
        frames=str(frames_path) if frames_path else None, note=notes[0] if notes else None)


def _encode_into(outputs: list[EncoderOutput], blocks: Iterable[np.ndarray],
                 config: EncodingConfig) -> int:
    """Write the `blocks` without silent ends to all `outputs`; return how many samples came."""
    if config.silence_threshold:
        pieces = split_silence(blocks, config.rate, config.silence_threshold)
    else:
        pieces = ((block, True) for block in blocks)
    length, has_begun = 0, False
    for samples, is_heard in pieces:
        length += len(samples)
        has_begun = has_begun or is_heard
        for output in outputs if has_begun else ():
            output.add(samples)
            if is_heard:
                output.commit()
    # Only now is it known that no sound follows the last silence.
    for output in outputs:
        output.end(last=config.ending)
    return length
