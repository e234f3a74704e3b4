"""Ctrl+C and SIGTERM that let a script finish what it has in hand."""

import os
import signal
from contextlib import suppress


class Signals:
    """In its context both are only noted. Ctrl+C acts as ever once something was.

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
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self.number is not None:
            return
        self.number = number
        if not self.patient:  # with SIGTERM: a group's members may be sent it more than once
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        # Not print, which may be what was interrupted. Ctrl+C also ends what reads our stderr.
        with suppress(OSError):
            os.write(2, self._message)
