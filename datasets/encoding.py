"""Many recordings to labelled mu-law codes, in several processes."""

import math
import os
import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing import Pipe, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.audio import Excerpt, recording_blocks, told_apart
from datasets.errors import UnfinishedError, UserError
from datasets.labels import Labelling
from datasets.quantization import code_dtype, mu_law_encode


class Recipe(NamedTuple):
    """What is made of a recording, and what it is called.

    rate: Hz. levels: of mu-law. excerpt: what is read of it. silence_threshold: the loudness, as
    the root of the mean square of a frame, below which its beginning and end are cut off; 0 for
    nothing.
    """

    labelling: Labelling
    rate: int
    levels: int
    excerpt: Excerpt = Excerpt()
    silence_threshold: float = 0.0


class Encoded(NamedTuple):
    """A recording's codes and label, or why it has none.

    codes: the file that they are in, as text. length: how many. clipped: samples beyond full scale.
    silent: samples cut off. loudness: the root of the mean square of the others. problem: why there
    are no codes, or None.
    """

    codes: str | None = None
    label: str | None = None
    length: int = 0
    clipped: int = 0
    silent: int = 0
    loudness: float = 0.0
    problem: str | None = None


class Sums(NamedTuple):
    """Over the samples of a recording: how many, how many beyond full scale, and their squares."""

    length: int = 0
    clipped: int = 0
    squares: float = 0.0


def encoded(paths, recipe, workers, folder, done=0):
    """Yields what encode() makes of each of `paths`, in their order, from that many processes.

    The first `done` of the paths are passed over. The codes are in files in `folder`, a temporary
    one; they are to be read before the next is asked for. Few wait there at a time, because a
    corpus may be larger than the memory.
    Raises UnfinishedError naming --workers if a process dies, and OSError if `folder` is full.
    """
    workers = max(1, min(workers, len(paths) - done))
    end, told_to_end = Pipe()
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(told_to_end,))
    coming, waiting = zip(count(done), paths[done:]), deque()
    try:
        for _ in tqdm(paths[done:], unit="recording", disable=None, initial=done,
                      total=len(paths)):
            while len(waiting) < 4 * workers and (job := next(coming, None)):
                number, path = job
                waiting.append(pool.submit(encode, path, recipe, Path(folder, str(number))))
            recording = waiting.popleft().result()
            yield recording
            if recording.codes:
                os.unlink(recording.codes)
    except BaseException as error:
        end.send_bytes(b"end")
        if isinstance(error, BrokenProcessPool):
            raise UnfinishedError(f"--workers {workers}: a process died, probably out of memory; "
                                  "give fewer, and this goes on where it stopped") from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(told_to_end):
    """Make this process a worker: it ends when it is told to, or when its parent is gone.

    Ctrl+C is for the parent alone, which ends the workers without a traceback from each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        wait([parent_process().sentinel, told_to_end])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def encode(path, recipe, place):
    """The recording at `path`: an Encoded, its codes in the new file `place`.

    A block at a time, because a recording may be larger than the memory. Raises OSError if `place`
    can't be written.
    """
    try:
        label = recipe.labelling.label_of(path)
        with place.open("wb") as file:
            length, kept = _encode_into(file, recording_blocks(path, recipe.rate, recipe.excerpt),
                                        recipe)
        if not kept.length:
            raise UserError(f"{path}: all of it is below --silence_threshold "
                            f"{recipe.silence_threshold:g}; lower that, or remove the file")
    except UserError as error:
        place.unlink(missing_ok=True)
        return Encoded(problem=str(error))
    return Encoded(str(place), label, kept.length, kept.clipped, length - kept.length,
                   math.sqrt(kept.squares / kept.length))


def _encode_into(file, blocks, recipe):
    """Write the codes of what is to be kept of the `blocks`: (samples in all, Sums of the kept)."""
    if recipe.silence_threshold:
        pieces = told_apart(blocks, recipe.rate, recipe.silence_threshold)
    else:
        pieces = ((block, True) for block in blocks)
    length, written, kept = 0, Sums(), Sums()
    for samples, is_heard in pieces:
        length += len(samples)
        if kept.length or is_heard:
            codes, clipped = mu_law_encode(samples, recipe.levels)
            file.write(codes)
            written = Sums(written.length + len(codes), written.clipped + clipped,
                           written.squares + float(np.square(samples, dtype=np.float64).sum()))
        if is_heard:
            kept = written
    # Only now it is known that no sound follows the silence written last.
    file.truncate(kept.length * code_dtype(recipe.levels).itemsize)
    return length, kept
