"""Many recordings to mu-law codes, in several processes."""

import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from datasets.audio import read_recording
from datasets.errors import UserError
from datasets.quantization import mu_law_encode


def encoded(paths, rate, levels, workers):
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
                waiting.append(pool.submit(encode, path, rate, levels))
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(f"--workers {workers}: a process died, probably out of memory; "
                        "give fewer, or shorter recordings") from None
    finally:
        pool.shutdown(cancel_futures=True)


def encode(path, rate, levels):
    """(codes, samples clipped, None) of the recording at `path`, or (None, 0, why not)."""
    try:
        return *mu_law_encode(read_recording(path, rate), levels), None
    except UserError as error:
        return None, 0, str(error)
