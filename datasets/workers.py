"""Worker processes that read batches ahead, and send them as bytes through pipes.

torch's DataLoader passes tensors in shared memory. Containers often have almost none, and then it
hangs. A pipe needs none. It also closes when its worker ends, for whatever reason, so the reader
never waits for a dead worker.
"""

import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import os_errors_as_lines


class LostWorkerError(UserError):
    """A worker died. Exit code 1: the run can be resumed."""

    exit_code = 1


def read_ahead(dataset: Any, order: Iterable, workers: int) -> Iterator[Any]:
    """Yield `dataset[indices]` for each list of indices in `order`, read by `workers` processes.

    Worker w of n makes the batches w, w + n, …, each while it waits to send the previous one. So
    batches and their order are those of a single process. A batch is a tensor, a named tuple of
    batches, or anything that can be pickled.

    Raises LostWorkerError if a worker dies, UserError if it can't be started, and whatever
    `dataset` raises in a worker.
    """
    batches = list(order)
    readers = []
    try:
        for number in range(min(workers, len(batches))):
            readers.append(_start_worker(dataset, batches[number::workers], workers))
        for number in range(len(batches)):
            yield _receive(*readers[number % workers], workers)
    finally:
        for process, connection in readers:
            connection.close()
            process.kill()  # safe, because it only reads
        for process, _ in readers:
            process.join()


def _start_worker(dataset: Any, batches: list, workers: int
                  ) -> tuple[multiprocessing.Process, Connection]:
    """Start a worker; return it and the end of its pipe that we read from."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    try:
        with os_errors_as_lines(str(workers), "can't start so many processes", "give fewer, or 0",
                                parameter="workers"):
            process = multiprocessing.Process(
                target=_worker_main, args=(dataset, batches, theirs), daemon=True)
            process.start()
    finally:
        theirs.close()  # the pipe ends with the worker
    return process, ours


def _receive(process: multiprocessing.Process, connection: Connection, workers: int) -> Any:
    """Receive the next batch from a worker."""
    try:
        content = connection.recv_bytes()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode or 0
        cause = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise LostWorkerError(
            f"{workers}: a process that reads data has died ({cause}); go on with --resume auto "
            "and --workers 0, or fewer if memory is short", parameter="workers") from None
    batch, error, text = pickle.loads(content)
    if error is not None:
        raise error from (None if isinstance(error, UserError) else _WorkerTraceback(text))
    return _with_tensors(batch)


class _WorkerTraceback(Exception):
    """The traceback of a worker, as text."""

    def __str__(self):
        return f"in a worker:\n{self.args[0]}"


def _worker_main(dataset: Any, batches: list, connection: Connection) -> None:
    """Send each of the batches, or the exception that making it raised."""
    # A terminal, or torchrun, signals a whole group of processes. Leave the signal to the run,
    # which needs another batch or two before it ends.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # a fork lacks its parent's threads, and would wait for them
    Thread(target=_exit_with_parent, daemon=True).start()
    with suppress(BrokenPipeError):
        for indices in batches:
            try:
                content = pickle.dumps((_with_arrays(dataset[indices]), None, None), protocol=5)
            except Exception as error:
                content = pickle.dumps((None, error, traceback.format_exc()))
            connection.send_bytes(content)


def _exit_with_parent() -> None:
    """Exit when the parent is gone, even if this process hangs in a read."""
    parent = multiprocessing.parent_process()
    assert parent  # a worker has one
    wait([parent.sentinel])
    os._exit(1)


def _with_arrays(batch):
    """Replace tensors by numpy arrays, because torch pickles tensors as shared memory."""
    if isinstance(batch, torch.Tensor):
        return batch.numpy()
    return map_fields(_with_arrays, batch)


def _with_tensors(batch):
    """Undo `_with_arrays`."""
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(batch)
    return map_fields(_with_tensors, batch)


def map_fields(change: Callable[[Any], Any], batch: Any) -> Any:
    """Apply `change` to each field of a named tuple; return anything else unchanged."""
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(change, batch))
    return batch
