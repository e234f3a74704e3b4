"""Many recordings to labelled mu-law codes and frames of features, in several processes."""

import copy
import math
import os
import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from itertools import count
from multiprocessing import Pipe, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from common.errors import UnfinishedError, UserError
from datasets.audio.features import Features, beside, frames_of
from datasets.audio.labels import Labelling
from datasets.audio.opening import check_regular
from datasets.audio.recordings import Excerpt, recording_blocks, split_silence
from datasets.quantization import code_dtype, mu_law_encode


class EncodingConfig(NamedTuple):
    """What is made of a recording, and what it is called.

    rate: Hz. levels: of mu-law. excerpt: what is read of it. silence_threshold: the loudness, as
    the root of the mean square of a frame, below which its beginning and end are cut off; 0 for
    nothing. features: of what is left, or None.
    """

    labelling: Labelling
    rate: int
    levels: int
    excerpt: Excerpt = Excerpt()
    silence_threshold: float = 0.0
    features: Features | None = None

    def files(self, path):
        """All that is read for the recording at `path`: a list of Paths."""
        given = self.features and self.features.kind == "npy"
        return [path, beside(path)] if given else [path]


class Encoded(NamedTuple):
    """A recording's codes and label, or why it has none.

    codes: the file that they are in, as text. length: how many. clipped: samples beyond full scale.
    silent: samples cut off. loudness: the root of the mean square of the others. problem: why there
    are no codes, or None. frames: the file with its frames, as text, or None. note: in what it is
    less than its header says, or None.
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
    """Over the samples of a recording: how many, how many beyond full scale, and their squares."""

    length: int = 0
    clipped: int = 0
    squares: float = 0.0


class MuLaw:
    """Mu-law codes of samples that come block by block, and the Sums over these.

    A copy (copy.copy) is a place to go on from again.
    """

    def __init__(self, levels):
        self.levels, self.sums = levels, SampleStats()

    def add(self, samples):
        """The codes of the next `samples`: (n,)."""
        codes, clipped = mu_law_encode(samples, self.levels)
        self.sums = SampleStats(self.sums.length + len(codes), self.sums.clipped + clipped,
                         self.sums.squares + float(np.square(samples, dtype=np.float64).sum()))
        return codes

    def end(self):
        """No more samples, and no more codes."""
        return np.empty(0, code_dtype(self.levels))


class Track:
    """What a `coder` (MuLaw, MelFrames, GivenFrames) makes of a recording, in the new file `place`.

    In the end, what came after the last `keep()` has never been.
    """

    def __init__(self, place, coder):
        self.coder, self.file = coder, place.open("wb")
        self.keep()

    def add(self, samples):
        """Write what the coder makes of the next `samples`, (n,)."""
        self.file.write(self.coder.add(samples).tobytes())

    def keep(self):
        """Whatever follows, what has come so far stays."""
        self.kept, self.size = copy.copy(self.coder), self.file.tell()

    def end(self):
        """No more samples: go back to those that are kept, and end there."""
        self.file.seek(self.file.truncate(self.size))
        self.file.write(self.kept.end().tobytes())

    def close(self):
        """Leave the file as it is."""
        self.file.close()


def encoded(paths, recipe, workers, folder, done=0):
    """Yields what encode() makes of each of `paths`, in their order, from that many processes.

    The first `done` of the paths are passed over. Codes and frames are in files in `folder`, a
    temporary one; they are to be read before the next is asked for. Few wait there at a time,
    because a corpus may be larger than the memory.
    Raises UnfinishedError naming --workers if a process dies, and OSError if `folder` is full.
    """
    workers = max(1, min(workers, len(paths) - done))
    end, told_to_end = Pipe()
    pool = _pool(workers, told_to_end)
    coming, waiting = zip(count(done), paths[done:]), deque()
    try:
        for _ in tqdm(paths[done:], unit="recording", disable=None, initial=done,
                      total=len(paths)):
            while len(waiting) < 4 * workers and (job := next(coming, None)):
                number, path = job
                waiting.append(pool.submit(encode, path, recipe, Path(folder, str(number))))
            recording = waiting.popleft().result()
            yield recording
            for file in filter(None, (recording.codes, recording.frames)):
                os.unlink(file)
    except BaseException as error:
        end.send_bytes(b"end")
        if isinstance(error, BrokenProcessPool):
            raise UnfinishedError(f"--workers {workers}: a process died, probably out of memory; "
                                  "give fewer, and this goes on where it stopped") from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers, told_to_end):
    try:
        return ProcessPoolExecutor(workers, initializer=_begin, initargs=(told_to_end,))
    except OSError as error:  # of its locks
        raise UserError(f"--workers: processes need some KB of shared memory, /dev/shm has none "
                        f"({error.strerror}); give a container more, as with --shm-size=1m"
                        ) from None


def _begin(told_to_end):
    """Make this process a worker: it ends when it is told to, or when its parent is gone.

    Ctrl+C is for the parent alone, which ends the workers without a traceback from each. Matrix
    products are made in one thread, for those of several workers wait for each other.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)

    def watch():
        wait([parent_process().sentinel, told_to_end])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def encode(path, recipe, place):
    """The recording at `path`: an Encoded, its codes in the new file `place`, its frames beside it.

    A block at a time, because a recording may be larger than the memory. Raises OSError if they
    can't be written.
    """
    frames = place.with_name(f"{place.name}_frames") if recipe.features else None
    notes = []
    try:
        check_regular(path)  # before tags are looked for: a named pipe would be waited for
        label = recipe.labelling.label_of(path)
        coders = {place: MuLaw(recipe.levels)}
        if frames:
            coders[frames] = frames_of(path, recipe.features)
        with ExitStack() as stack:
            tracks = [stack.enter_context(closing(Track(*item))) for item in coders.items()]
            blocks = recording_blocks(path, recipe.rate, recipe.excerpt, notes.append)
            length = _encode_into(tracks, blocks, recipe)
        kept = tracks[0].kept.sums
        if not kept.length:
            raise UserError(f"{path}: all of it is below --silence_threshold "
                            f"{recipe.silence_threshold:g}; lower that, or remove the file")
    except UserError as error:
        for file in filter(None, (place, frames)):
            file.unlink(missing_ok=True)
        return Encoded(problem=str(error))
    return Encoded(str(place), label, kept.length, kept.clipped, length - kept.length,
                   math.sqrt(kept.squares / kept.length), frames=frames and str(frames),
                   note=notes[0] if notes else None)


def _encode_into(tracks, blocks, recipe):
    """Put what is to be kept of the `blocks` on the tracks: the number of samples in all."""
    if recipe.silence_threshold:
        pieces = split_silence(blocks, recipe.rate, recipe.silence_threshold)
    else:
        pieces = ((block, True) for block in blocks)
    length, begun = 0, False
    for samples, is_heard in pieces:
        length += len(samples)
        begun = begun or is_heard
        for track in tracks if begun else ():
            track.add(samples)
            if is_heard:
                track.keep()
    # Only now it is known that no sound follows the silence that came last.
    for track in tracks:
        track.end()
    return length
