"""The progress bar of a run on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tqdm import tqdm

from training import distributed

if TYPE_CHECKING:
    from training.trainer import Trainer


class ProgressBar(tqdm):
    """Shows the updates of a run, its likelihood and its speed; nothing without a terminal."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(total=trainer.total_updates, initial=trainer.iteration, unit="it",
                         dynamic_ncols=True, disable=distributed.is_bar_disabled())
        self.trainer = trainer

    def advance(self) -> None:
        """Show one more update."""
        self.update()
        interval = self.trainer.interval
        if self.disable or not interval.seconds:
            return
        speed = interval.samples / interval.seconds
        self.set_postfix_str(f"{self.trainer.observation['main/bits/dim']:.3f} bits/dim, "
                             f"{speed:,.0f} {self.trainer.unit}/s", refresh=False)
