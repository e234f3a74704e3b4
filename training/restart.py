"""--auto_restart: the training in a process of its own, begun again where it was if it dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common.errors import DivergedError, UserError
from common.signals import SAME_REQUEST

LONGEST_WAIT = 300  # seconds
_RESTARTS = "TRAINING_RESTARTS"  # tells that process how often it has been begun again


def count():
    """How often this training was begun again after a crash, by ourselves or by torchrun."""
    return int(os.environ.get(_RESTARTS) or os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


def supervise(most, out):
    """Run this very command in a child process, and again up to `most` times if that crashes.

    Goes on from the newest snapshot in the folder `out`, if the run has written one yet. Before
    restart n it waits 2^(n-1) seconds, at most five minutes. Does nothing in the child itself;
    otherwise ends with the exit code of the last child. Not a crash is what would only happen
    again (wrong flags, a loss that is not finite) or was asked for (Ctrl+C, SIGTERM).
    """
    if _RESTARTS in os.environ:
        return
    if "WORLD_SIZE" in os.environ:
        raise UserError("--auto_restart: of several processes it is torchrun that restarts; give "
                        "it --max-restarts, and this script --resume auto")
    before, command = _snapshots(out), [sys.executable, *sys.orig_argv[1:]]
    for restarts in range(most + 1):
        code = _run(command, restarts)
        if not _is_crash(code) or restarts == most:
            break
        if _snapshots(out) - before:
            command = [sys.executable, *sys.orig_argv[1:], "--resume", "auto"]
        wait = min(2 ** restarts, LONGEST_WAIT)
        print(f"the training died ({_cause(code)}); restart {restarts + 1} of {most} in {wait} s",
              file=sys.stderr)
        time.sleep(wait)
    sys.exit(128 - code if code < 0 else code)


def _snapshots(folder):
    """What snapshots are there: {(name, time), …}; one of another run may have the same name."""
    return {(path.name, path.stat().st_mtime_ns) for path in Path(folder).glob("snapshot_iter_*")}


def _run(command, restarts):
    """The exit code of the child; below 0 the signal that it died of."""
    child, asked = None, []

    def pass_on(number, _):
        if not child or number != signal.SIGTERM:  # Ctrl+C reaches the child by itself
            return
        asked.append(time.monotonic())
        again = asked[-1] - asked[0] > SAME_REQUEST
        child.send_signal(signal.SIGKILL if again else number)

    # Before there is a child, which doesn't inherit what is a function.
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)
              if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN}
    try:
        child = subprocess.Popen(command, env={**os.environ, _RESTARTS: str(restarts)})
        code = child.wait()
        return -signal.SIGTERM if asked and code == -signal.SIGKILL else code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_crash(code):
    """Whether a run that ended so is worth beginning again."""
    asked_for = signal.SIGINT, signal.SIGTERM
    ends = {0, UserError.exit_code, DivergedError.exit_code, *(128 + n for n in asked_for),
            *(-n for n in asked_for)}
    return code not in ends


def _cause(code):
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name
