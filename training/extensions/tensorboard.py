"""What a run shows in TensorBoard: `tensorboard --logdir OUT`."""

from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError


class Board:
    """The run's folder `tensorboard`, which is opened at the first writing.

    There is one for all that a run shows, since TensorBoard follows one file in a folder at a time.
    """

    def __init__(self, out):
        self.folder = Path(out) / "tensorboard"
        self._writer = None

    @contextmanager
    def writing(self, trainer):
        """A torch SummaryWriter. What it was given is on the disk when the context ends.

        Raises UserError if the folder can't be written.
        """
        try:
            if self._writer is None:
                # Here, since it takes seconds to import.
                from torch.utils.tensorboard import SummaryWriter
                # What a killed run wrote after its last snapshot is taken back.
                resumed_at = trainer.resumed_at
                self._writer = SummaryWriter(
                    self.folder, purge_step=None if resumed_at is None else resumed_at + 1)
            yield self._writer
            self._writer.flush()
        except OSError as error:
            raise UserError(f"{self.folder}: can't be written ({error.strerror or error}); make "
                            f"room, then go on with --resume auto") from None


class TensorBoardReport:
    """What is new in the log, as scalars on the `board`."""

    def __init__(self, board):
        self.board = board
        self.entries, self.names = 0, set()  # that are written, and of the last one what

    def __call__(self, trainer):
        log, last = trainer.log, max(self.entries - 1, 0)
        with self.board.writing(trainer) as writer:
            for number, entry in enumerate(log[last:], last):
                written = self.names if number < self.entries else set()
                self.names = {name for name in entry
                              if "/" in name or name == "samples_per_second"}
                for name in sorted(self.names - written):
                    writer.add_scalar(name, entry[name], entry["iteration"])
        self.entries = len(log)

    def state(self):
        """What is written: how many entries of the log, and which values of the last."""
        return {"entries": self.entries, "names": sorted(self.names)}

    def restore(self, state):
        """Go on after that, if it is there; a run resumed in another folder writes it anew."""
        if self.board.folder.exists():
            self.entries, self.names = state["entries"], set(state["names"])
