"""What a run shows in TensorBoard: `tensorboard --logdir OUT`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import os_errors_as_lines
from training.extensions.extension import Extension

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from training.trainer import Trainer


class Board:
    """The run's folder `tensorboard`, created at the first write.

    All extensions of a run share one, because TensorBoard follows one file in a folder at a time.
    """

    def __init__(self, out: str | Path) -> None:
        self.folder = Path(out) / "tensorboard"
        self._writer: SummaryWriter | None = None

    @contextmanager
    def writing(self, trainer: Trainer) -> Iterator[SummaryWriter]:
        """A context with a SummaryWriter; at its end everything is on the disk.

        Raises UserError if the folder can't be written.
        """
        with os_errors_as_lines(self.folder, "can't be written",
                                "make room, then go on with --resume auto"):
            if self._writer is None:
                # Imported here, because it takes seconds.
                from torch.utils.tensorboard import SummaryWriter
                # Discards what a killed run wrote after its last snapshot.
                resumed_at = trainer.resumed_at
                self._writer = SummaryWriter(
                    self.folder, purge_step=None if resumed_at is None else resumed_at + 1)
            yield self._writer
            self._writer.flush()


class TensorBoardReport(Extension):
    """Shows new entries of the log as scalars on the `board`."""

    name = "TensorBoardReport"

    def __init__(self, board: Board) -> None:
        self.board = board
        self.entries = 0  # how many entries of the log are written
        self.names: set[str] = set()  # which values of the last one are

    def __call__(self, trainer: Trainer) -> None:
        """Write what the log has gained, values added to the last entry included."""
        log, last = trainer.log, max(self.entries - 1, 0)
        with self.board.writing(trainer) as writer:
            for number, entry in enumerate(log[last:], last):
                written = self.names if number < self.entries else set()
                self.names = {name for name in entry
                              if "/" in name or name == "samples_per_second"}
                for name in sorted(self.names - written):
                    writer.add_scalar(name, entry[name], entry["iteration"])
        self.entries = len(log)

    def state_dict(self) -> dict[str, Any]:
        """Return how many entries of the log are written, and which values of the last."""
        return {"entries": self.entries, "names": sorted(self.names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after those entries; a run resumed in another folder writes them again."""
        if self.board.folder.exists():
            self.entries, self.names = state["entries"], set(state["names"])
