"""Samples of the network during training, to see and hear how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from common.files import make_folder
from common.moments import Every, Moment
from training import distributed
from training.extensions.extension import Extension
from training.extensions.tensorboard import Board

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from training.trainer import Trainer

Draw = Callable[[torch.nn.Module, int, Path], dict[str, Path]]
"""A function of the network in evaluation mode, a seed, and a path without an ending.

It writes files whose names begin with that path and returns them by display name: images (.png)
and sounds (.wav).
"""


class Samples(Extension):
    """Draws samples into the folder `samples` in `out`, and shows them on the `board`.

    To be called after every update: it draws whenever `every` has passed since the last samples,
    always with the same random numbers. Training is not disturbed: it depends on no random state
    but its own, and no update is timed while samples are drawn.
    """

    name = "Samples"

    def __init__(self, out: Path, board: Board, draw: Draw, every: Every) -> None:
        self.folder, self.board = make_folder(out / "samples", "--out"), board
        self.draw, self.every = draw, every
        self.last = Moment()

    def __call__(self, trainer: Trainer) -> None:
        """Draw samples if they are due."""
        now = Moment(trainer.iteration, trainer.elapsed_time)
        if self.every.has_passed(now, self.last):
            self._draw_and_show(trainer)
            # The time after drawing: otherwise, where drawing takes longer than the interval,
            # samples would be due after every update.
            self.last = Moment(trainer.iteration, trainer.elapsed_time)

    def draw_at_end(self, trainer: Trainer) -> None:
        """Draw samples of the complete run, unless that was just done.

        `last` stays, so that a run that is resumed and made longer keeps its rhythm.
        """
        if distributed.is_main_process() and self.last.iteration != trainer.iteration:
            self._draw_and_show(trainer)

    def _draw_and_show(self, trainer: Trainer) -> None:
        model = trainer.eval_model
        path = self.folder / f"iteration_{trainer.iteration:06}"
        was_training = model.training
        model.eval()
        files = self.draw(model, trainer.seed, path)
        model.train(was_training)
        with self.board.writing(trainer) as writer:
            for name, file in files.items():
                _show(writer, f"samples/{name}", file, trainer.iteration)

    def state_dict(self) -> dict[str, Any]:
        """Return when the last samples were drawn."""
        return {"last": list(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after them."""
        self.last = Moment(*state["last"])


def _show(writer: SummaryWriter, name: str, file: Path, iteration: int) -> None:
    """Add an image or a sound to TensorBoard."""
    # Imported here, because runs without samples need neither.
    import soundfile
    from PIL import Image
    if file.suffix == ".wav":
        samples, rate = soundfile.read(file, dtype="float32")
        writer.add_audio(name, samples, iteration, sample_rate=rate)
    else:
        with Image.open(file) as picture:
            writer.add_image(name, np.asarray(picture.convert("RGB")), iteration,
                             dataformats="HWC")
