"""--auto_restart: train in a child process, and restart it from its last snapshot after a crash."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common.errors import DivergedError, UserError
from common.signals import SAME_REQUEST

LONGEST_WAIT = 300  # seconds
_RESTARTS = "TRAINING_RESTARTS"  # in the child's environment: how often it was restarted


def count() -> int:
    """Return how often this training was restarted after a crash, by `supervise` or torchrun."""
    return int(os.environ.get(_RESTARTS) or os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


def supervise(max_restarts: int, out: str) -> None:
    """Run this command in a child process, and restart it after a crash.

    A restart resumes from the newest snapshot in the folder `out`, if the run has written one yet.
    Before restart n it waits 2^(n-1) seconds, at most five minutes. In the child itself it does
    nothing; in the parent it never returns, but exits with the code of the last child. Exits that
    would recur (wrong flags, a loss that is not finite) or were asked for (Ctrl+C, SIGTERM) are
    not crashes.
    """
    if _RESTARTS in os.environ:
        return
    if "WORLD_SIZE" in os.environ:
        raise UserError("--auto_restart: of several processes it is torchrun that restarts; give "
                        "it --max-restarts, and this script --resume auto")
    before, command = _snapshots(out), [sys.executable, *sys.orig_argv[1:]]
    for restarts in range(max_restarts + 1):
        code = _run(command, restarts)
        if not _is_crash(code) or restarts == max_restarts:
            break
        if _snapshots(out) - before:
            command = [sys.executable, *sys.orig_argv[1:], "--resume", "auto"]
        wait = min(2 ** restarts, LONGEST_WAIT)
        print(f"the training died ({_cause(code)}); restart {restarts + 1} of {max_restarts} in "
              f"{wait} s", file=sys.stderr)
        time.sleep(wait)
    sys.exit(128 - code if code < 0 else code)


def _snapshots(folder: str) -> set[tuple[str, int]]:
    """The snapshots there, (name, time of writing): another run's may have the same name."""
    return {(path.name, path.stat().st_mtime_ns) for path in Path(folder).glob("snapshot_iter_*")}


def _run(command: list[str], restarts: int) -> int:
    """Run the child and return its exit code, negative for the signal that killed it."""
    child: subprocess.Popen | None = None
    requests: list[float] = []  # when each SIGTERM came

    def pass_on(number, _):
        if not child or number != signal.SIGTERM:  # the terminal sends Ctrl+C to the child, too
            return
        requests.append(time.monotonic())
        is_second_request = requests[-1] - requests[0] > SAME_REQUEST
        child.send_signal(signal.SIGKILL if is_second_request else number)

    # Set before the child starts, which does not inherit handlers that are functions.
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)
              if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN}
    try:
        child = subprocess.Popen(command, env={**os.environ, _RESTARTS: str(restarts)})
        code = child.wait()
        return -signal.SIGTERM if requests and code == -signal.SIGKILL else code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_crash(code: int) -> bool:
    """Whether a run with this exit code is worth restarting."""
    stop_signals = signal.SIGINT, signal.SIGTERM
    expected = {0, UserError.exit_code, DivergedError.exit_code,
                *(128 + number for number in stop_signals), *(-number for number in stop_signals)}
    return code not in expected


def _cause(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name
