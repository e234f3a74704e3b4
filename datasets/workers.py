"""Worker processes that read batches ahead, and hand them over as bytes through pipes.

torch's DataLoader hands tensors over in shared memory. Containers often have next to none, and then
it waits for ever. A pipe needs none, and it closes when its worker ends, however that happens, so
the reader never waits for a worker that is gone.
"""

import multiprocessing
import os
import pickle
import signal
import traceback
from contextlib import suppress
from multiprocessing.connection import wait
from threading import Thread

import numpy as np
import torch

from common.errors import UserError


class LostWorkerError(UserError):
    """A worker has died. Exit code 1: the run may be resumed."""

    exit_code = 1


def read_ahead(dataset, order, workers: int):
    """Yield `dataset[indices]` for each list of indices in `order`, read by `workers` processes.

    Worker w of n makes the batches w, w + n, …, each one while it waits to hand over the last. So
    the order, and what is in the batches, are those of a single process. A batch is a tensor, a
    named tuple of batches, or anything that can be pickled.

    Raises LostWorkerError if a worker dies, UserError if it can't be started, and whatever
    `dataset` raises in a worker.
    """
    batches = list(order)
    readers = []
    try:
        for number in range(min(workers, len(batches))):
            readers.append(_started(dataset, batches[number::workers], workers))
        for number in range(len(batches)):
            yield _received(*readers[number % workers], workers)
    finally:
        for process, connection in readers:
            connection.close()
            process.kill()  # it only reads
        for process, _ in readers:
            process.join()


def _started(dataset, batches, workers):
    """A new worker and the end of its pipe that we read from."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    try:
        process = multiprocessing.Process(target=_work, args=(dataset, batches, theirs),
                                          daemon=True)
        process.start()
    except OSError as error:
        raise UserError(f"--workers {workers}: can't start so many processes ({error.strerror}); "
                        "give fewer, or 0") from None
    finally:
        theirs.close()  # the pipe ends with the worker
    return process, ours


def _received(process, connection, workers):
    """The next batch of a worker."""
    try:
        content = connection.recv_bytes()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        cause = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise LostWorkerError(
            f"--workers {workers}: a process that reads data has died ({cause}); go on with "
            "--resume auto and --workers 0, or fewer if memory is short") from None
    batch, error, text = pickle.loads(content)
    if error is not None:
        raise error from (None if isinstance(error, UserError) else _WorkerTraceback(text))
    return _with_tensors(batch)


class _WorkerTraceback(Exception):
    """The traceback, as text, of what a worker raised."""

    def __str__(self):
        return f"in a worker:\n{self.args[0]}"


def _work(dataset, batches, connection):
    """Send each of the batches, or what goes wrong."""
    # A terminal, or torchrun, signals a whole group of processes. Leave that to the run, which
    # wants a batch or two more from us before it ends.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # the parent's threads are not in a fork, which would wait for them
    Thread(target=_end_with_the_run, daemon=True).start()
    with suppress(BrokenPipeError):
        for indices in batches:
            try:
                content = pickle.dumps((_with_arrays(dataset[indices]), None, None), protocol=5)
            except Exception as error:
                content = pickle.dumps((None, error, traceback.format_exc()))
            connection.send_bytes(content)


def _end_with_the_run():
    """End this process when its parent is gone, even if it hangs in a read."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _with_arrays(batch):
    """The batch with numpy arrays for tensors: torch would pickle those as shared memory."""
    if isinstance(batch, torch.Tensor):
        return batch.numpy()
    return each_part(_with_arrays, batch)


def _with_tensors(batch):
    """The batch that `_with_arrays` was given."""
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(batch)
    return each_part(_with_tensors, batch)


def each_part(change, batch):
    """A named tuple with `change` made to each of its parts; anything else as it is."""
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(change, batch))
    return batch
