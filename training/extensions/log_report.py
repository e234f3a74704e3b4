"""The run's log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import atomic_write
from training import distributed, likelihood
from training.extensions.extension import Extension

if TYPE_CHECKING:
    from training.trainer import Trainer


class LogReport(Extension):
    """Writes `log`: a JSON list of entries, with the original study's keys.

    Every process keeps the log, because its entries can end the run; the main process writes it.

    main/… are means over the updates since the entry before. samples_per_second counts updates
    only, elapsed_time everything, in seconds, earlier parts of a resumed run included. The first
    entry after a resumption has "resumed_at", the iteration that the run continued from; after a
    crash also "restart", 1 for the first. An entry holds everything else that was observed since
    the last update, such as validation/main/nll at an epoch's end. An entry before the first
    update has nothing but that. The last entry of a complete run has "stopped_by": which flag
    ended it.

    restarts: how often this run was started again after a crash.
    """

    def __init__(self, out: str | Path, restarts: int = 0) -> None:
        self.path = Path(out) / "log"
        self.restarts = restarts

    def __call__(self, trainer: Trainer) -> None:
        """Add an entry, or complete the last one if there was no update since."""
        if trainer.interval.targets or not trainer.log:
            trainer.log.append(self._entry(trainer))
            trainer.interval = type(trainer.interval)()
        else:  # the run is complete, right after an entry: main/… stay its means
            trainer.log[-1] |= {name: value for name, value in trainer.observation.items()
                                if not name.startswith("main/")}
        if distributed.is_main_process():
            with atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps(trainer.log, indent=1, allow_nan=False))

    def _entry(self, trainer: Trainer) -> dict[str, Any]:
        interval, resumed_at = trainer.interval, trainer.resumed_at
        entry = {"epoch": trainer.epoch, "iteration": trainer.iteration, **trainer.observation}
        if interval.targets:
            entry |= likelihood.in_units(interval.nll / interval.targets, "main",
                                         trainer.dimensions)
            entry["samples_per_second"] = interval.samples / interval.seconds
        entry["elapsed_time"] = trainer.elapsed_time
        last_logged = trainer.log[-1]["iteration"] if trainer.log else 0
        if resumed_at is not None and last_logged <= resumed_at:
            entry["resumed_at"] = resumed_at
            if self.restarts:
                entry["restart"] = self.restarts
        return entry


def mean_since(trainer: Trainer, iteration: int) -> float:
    """Mean training nll over the log's entries after `iteration`, in nats."""
    mean, before = 0.0, iteration
    for entry in trainer.log:
        if entry["iteration"] > iteration:
            share = (entry["iteration"] - before) / (trainer.iteration - iteration)
            mean, before = mean + share * entry["main/nll"], entry["iteration"]
    return mean
