"""Ctrl+C and SIGTERM that let a script finish its current work."""

import os
import signal
import time
from contextlib import suppress
from threading import Thread
from types import FrameType
from typing import Any

# Seconds. A second SIGTERM that comes sooner is the same request, sent to the process and to its
# process group. With several processes torchrun may pass it on late.
SAME_REQUEST, SAME_REQUEST_TO_SEVERAL = 0.5, 5

_END = b"\0"  # no signal has this number


class Signals:
    """In its context the first Ctrl+C or SIGTERM is only recorded, in `number`.

    After that Ctrl+C works as usual. A second SIGTERM ends the process at once with exit code 143,
    even if it hangs. Where Ctrl+C was ignored, as in background jobs and under nohup, it stays
    ignored.

    number: of the recorded signal, or None.

    Args:
        doing: what the script does before it ends; printed on stderr.
        patient: a second Ctrl+C has no effect either. torchrun sends it to its processes again
            after the terminal did, and has other means to end those that take too long.
    """

    def __init__(self, doing: str, patient: bool = False) -> None:
        self.number: int | None = None
        self.patient = patient
        self._message = f"\n{doing}{'' if patient else '; once more to stop at once'}\n".encode()
        self._before: dict[int, Any] = {}  # handlers

    def __enter__(self) -> "Signals":
        self._watch = _Watch(SAME_REQUEST_TO_SEVERAL if self.patient else SAME_REQUEST)
        for number in (signal.SIGINT, signal.SIGTERM):
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._watch.close()

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:
            return
        self.number = number
        if not self.patient and signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        # Not print, which may be the interrupted call. Ctrl+C may have ended the reader of stderr.
        with suppress(OSError):
            os.write(2, self._message)


class _Watch:
    """A thread that ends the process at the second SIGTERM.

    A signal handler is not enough: Python calls it in the main thread between two instructions,
    and a thread that waits in a library, such as for another process, executes none. But the
    numbers of signals are written to a pipe (`signal.set_wakeup_fd`) as they arrive.
    """

    def __init__(self, same_request: float) -> None:
        reading_end, self._writing_end = os.pipe()
        os.set_blocking(self._writing_end, False)
        self._before = signal.set_wakeup_fd(self._writing_end, warn_on_full_buffer=False)
        self._thread = Thread(target=self._read, args=(reading_end, same_request), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        signal.set_wakeup_fd(self._before)
        os.write(self._writing_end, _END)
        self._thread.join()
        os.close(self._writing_end)

    @staticmethod
    def _read(pipe: int, same_request: float) -> None:
        first: float | None = None
        with open(pipe, "rb", buffering=0) as signals:
            while (number := signals.read(1)) != _END:
                now = time.monotonic()
                if number[0] != signal.SIGTERM:
                    continue
                if first is not None and now - first > same_request:
                    os._exit(128 + signal.SIGTERM)
                first = first or now


def _forget_pipe() -> None:
    """Signals of a forked process must not reach this one's pipe."""
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_pipe)
