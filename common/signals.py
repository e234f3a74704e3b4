"""Ctrl+C and SIGTERM that let a script finish what it has in hand."""

import os
import signal
import time
from contextlib import suppress
from threading import Thread

# Seconds; a SIGTERM that follows sooner is the same request, which a group of processes was sent,
# too. Of several processes torchrun may pass it on late.
SAME_REQUEST, SAME_REQUEST_TO_SEVERAL = 0.5, 5

_END = b"\0"  # no signal has this number


class Signals:
    """In its context both are only noted. Ctrl+C acts as ever once something was.

    A second SIGTERM ends the process at once, with exit code 143, even where it hangs. Ctrl+C stays
    ignored if it was, as it is in the background and under nohup.

    number: of the signal that was noted, or None.

    Args:
        doing: what the script does before it ends, which is said on stderr.
        patient: Ctrl+C too is noted every time: torchrun sends it to its processes once more after
            the terminal did, and ends those that take too long by other means.
    """

    def __init__(self, doing, patient=False):
        self.number, self.patient = None, patient
        self._message = f"\n{doing}{'' if patient else '; once more to stop at once'}\n".encode()
        self._before = {}

    def __enter__(self):
        self._watch = _Watch(SAME_REQUEST_TO_SEVERAL if self.patient else SAME_REQUEST)
        for number in (signal.SIGINT, signal.SIGTERM):
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._watch.close()

    def _note(self, number, _frame):
        if self.number is not None:
            return
        self.number = number
        if not self.patient and signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        # Not print, which may be what was interrupted. Ctrl+C also ends what reads our stderr.
        with suppress(OSError):
            os.write(2, self._message)


class _Watch:
    """A thread that ends the process at the second SIGTERM.

    A handler would not do: Python calls it in the main thread, between two instructions, and a
    thread that waits in a library, as for another process, comes to none. The numbers of signals
    that arrive are written to a pipe at once.
    """

    def __init__(self, same_request):
        ours, self._theirs = os.pipe()
        os.set_blocking(self._theirs, False)
        self._before = signal.set_wakeup_fd(self._theirs, warn_on_full_buffer=False)
        self._thread = Thread(target=self._read, args=(ours, same_request), daemon=True)
        self._thread.start()

    def close(self):
        """Watch no more."""
        signal.set_wakeup_fd(self._before)
        os.write(self._theirs, _END)
        self._thread.join()
        os.close(self._theirs)

    @staticmethod
    def _read(pipe, same_request):
        first = None
        with open(pipe, "rb", buffering=0) as signals:
            while (number := signals.read(1)) != _END:
                now = time.monotonic()
                if number[0] != signal.SIGTERM:
                    continue
                if first is not None and now - first > same_request:
                    os._exit(128 + signal.SIGTERM)
                first = first or now


def _forget_pipe():
    """A fork's signals are not ours."""
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_pipe)
