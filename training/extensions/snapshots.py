"""Snapshots: files that a run can be resumed from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.moments import Every, Moment
from models import model_file
from training.extensions.extension import Extension

if TYPE_CHECKING:
    from training.trainer import Trainer


class Snapshot(Extension):
    """Writes `snapshot_iter_<iteration>`: the model and the state of the trainer.

    It is to be the trainer's `final` extension, called after every update. It writes a snapshot at
    each epoch's end, at the end of the run, and whenever `every` has passed since the last. The
    latest `kept` stay, and with `keep_every` one for each such interval. Files are written in a
    thread, while training continues.

    describe: returns the content of the model file.
    """

    name = "Snapshot"

    def __init__(self, out: str | Path, describe: Callable[[], dict[str, Any]], every: Every,
                 kept: int = 3, keep_every: Every | None = None) -> None:
        self.out, self.describe, self.kept = Path(out), describe, kept
        self.every, self.keep_every = every, keep_every
        self.last = self.last_to_stay = Moment()
        self.removable: list[int] = []  # iterations
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __call__(self, trainer: Trainer) -> None:
        """Begin to write a snapshot, if one is due, and delete those that are not to stay."""
        now = Moment(trainer.iteration, trainer.elapsed_time)
        stays = (self.keep_every is not None
                 and self.keep_every.has_passed(now, self.last_to_stay))
        # At the run's end it may replace one of the same iteration that did not know of the end.
        if not (stays or trainer.is_new_epoch or trainer.is_ending
                or self.every.has_passed(now, self.last)):
            return
        self.finalize()
        if now.iteration != self.last.iteration:
            self.removable.append(now.iteration)
        self.last = now
        if stays:
            self.last_to_stay = now
            self.removable.remove(now.iteration)
        stale, self.removable = self.removable[:-self.kept], self.removable[-self.kept:]
        content = {**self.describe(), "run": model_file.copy_to_cpu(trainer.state_dict())}
        self._writing = self._writer.submit(self._write, now.iteration, content, stale)

    def _write(self, iteration: int, content: dict[str, Any], stale: list[int]) -> None:
        model_file.save(self._path(iteration), content)
        for stale_iteration in stale:
            self._path(stale_iteration).unlink(missing_ok=True)

    def _path(self, iteration: int) -> Path:
        return self.out / f"snapshot_iter_{iteration}"

    def finalize(self) -> None:
        """Wait until the last snapshot is on the disk. Raises the error that prevented it."""
        if self._writing:
            writing, self._writing = self._writing, None
            writing.result()

    def state_dict(self) -> dict[str, Any]:
        """Return when the last snapshots were made, and which of them may be deleted."""
        return {"last": list(self.last), "last_to_stay": list(self.last_to_stay),
                "removable": self.removable}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after them."""
        self.last, self.last_to_stay = Moment(*state["last"]), Moment(*state["last_to_stay"])
        self.removable = list(state["removable"])
