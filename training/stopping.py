"""When a run is complete."""

import math
from typing import NamedTuple


class StopCondition(NamedTuple):
    """When a run is complete: at whichever comes first; None for what is not wanted.

    target_loss is compared with main/nll of the log, in nats.
    """

    epoch: int | None = None
    iterations: int | None = None
    target_loss: float | None = None

    def reached(self, trainer):
        """The condition that holds, as text, or None."""
        if self.epoch and trainer.epoch >= self.epoch:
            return f"--epoch {self.epoch} reached"
        if self.iterations and trainer.iteration >= self.iterations:
            return f"--iterations {self.iterations} reached"
        logged = trainer.log[-1].get("main/nll", math.inf) if trainer.log else math.inf
        if self.target_loss and logged <= self.target_loss:
            return f"--target_loss {self.target_loss} reached: main/nll is {logged:.4f}"
        return None

    def updates(self, an_epoch):
        """How many updates until then, unless the loss ends it before; None if unknown.

        an_epoch: the updates of an epoch.
        """
        ends = [n for n in (self.iterations, (self.epoch or 0) * an_epoch) if n]
        return min(ends, default=None)
