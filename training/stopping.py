"""When a run is complete."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from training.trainer import Trainer


class StopCondition(NamedTuple):
    """Conditions that end a run, whichever holds first; None for none.

    epoch, iterations: how many. target_loss: main/nll of the log, in nats, at or below which the
    run ends.
    """

    epoch: int | None = None
    iterations: int | None = None
    target_loss: float | None = None

    def reached(self, trainer: Trainer) -> str | None:
        """Return the condition that holds, as text, or None."""
        if self.epoch and trainer.epoch >= self.epoch:
            return f"--epoch {self.epoch} reached"
        if self.iterations and trainer.iteration >= self.iterations:
            return f"--iterations {self.iterations} reached"
        logged = trainer.log[-1].get("main/nll", math.inf) if trainer.log else math.inf
        if self.target_loss and logged <= self.target_loss:
            return f"--target_loss {self.target_loss} reached: main/nll is {logged:.4f}"
        return None

    def total_updates(self, updates_per_epoch: int) -> int | None:
        """Return the updates of the whole run, if the loss does not end it; None if unknown."""
        limits = []
        if self.iterations:
            limits.append(self.iterations)
        if self.epoch:
            limits.append(self.epoch * updates_per_epoch)
        return min(limits, default=None)
