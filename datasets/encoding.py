"""Many recordings to labelled mu-law codes, in several processes."""

import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.audio import Excerpt, read_recording, without_silence
from datasets.errors import UserError
from datasets.labels import Labelling
from datasets.quantization import mu_law_encode


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

    clipped: samples beyond full scale. silent: samples cut off. loudness: the root of the mean
    square of the others. problem: why there are no codes, or None.
    """

    codes: np.ndarray | None
    label: str | None
    clipped: int
    silent: int
    loudness: float
    problem: str | None


def encoded(paths, recipe, workers):
    """Yields what encode() makes of each of `paths`, in their order, from that many processes.

    Few results wait at a time, because a corpus may be larger than the memory.
    Raises UserError naming --workers if a process dies.
    """
    workers = min(workers, len(paths))
    # Ctrl+C is for this process alone: it ends the workers without a traceback from each.
    pool = ProcessPoolExecutor(workers, initializer=signal.signal,
                               initargs=(signal.SIGINT, signal.SIG_IGN))
    coming, waiting = iter(paths), deque()
    try:
        for _ in tqdm(paths, unit="recording", disable=None):
            while len(waiting) < 4 * workers and (path := next(coming, None)):
                waiting.append(pool.submit(encode, path, recipe))
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(f"--workers {workers}: a process died, probably out of memory; "
                        "give fewer, or shorter recordings") from None
    finally:
        pool.shutdown(cancel_futures=True)


def encode(path, recipe):
    """The recording at `path`: an Encoded."""
    try:
        label = recipe.labelling.label_of(path)
        samples = read_recording(path, recipe.rate, recipe.excerpt)
        whole = len(samples)
        if recipe.silence_threshold:
            samples = without_silence(samples, recipe.rate, recipe.silence_threshold)
            if not len(samples):
                raise UserError(f"{path}: all of it is below --silence_threshold "
                                f"{recipe.silence_threshold:g}; lower that, or remove the file")
        codes, clipped = mu_law_encode(samples, recipe.levels)
        loudness = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
        return Encoded(codes, label, clipped, whole - len(samples), loudness, None)
    except UserError as error:
        return Encoded(None, None, 0, 0, 0.0, str(error))
