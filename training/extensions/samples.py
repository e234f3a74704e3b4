"""Samples of the network while it learns, for people to see and hear where it is."""

import numpy as np

from common.files import make_folder
from training import distributed
from training.extensions.checkpoints import Moment


class Samples:
    """Has samples drawn into the folder `samples` in `out`, and shows them on the `board`.

    To be called after every update: they are drawn whenever `every`, a `cli.arguments.Every`,
    has passed since the last, always with the same random numbers. The run is not disturbed: what
    it learns depends on no random state but its own, and no update is timed meanwhile.

    draw: a function of the network, in evaluation mode, a seed and a path without an ending. It
    writes files whose names begin so, and returns them by what they are to be called: pictures
    (.png) and sounds (.wav).
    """

    def __init__(self, out, board, draw, every):
        self.folder, self.board = make_folder(out / "samples", "--out"), board
        self.draw, self.every = draw, every
        self.last = Moment()

    def __call__(self, trainer):
        now = Moment(trainer.iteration, trainer.elapsed_time)
        if self.every.has_passed(now, self.last):
            self._draw(trainer)
            # When it is done, lest the network learn nothing where drawing takes that long.
            self.last = Moment(trainer.iteration, trainer.elapsed_time)

    def at_the_end(self, trainer):
        """Draw what the complete run has learned, if that was not just done.

        The moments to come stay where they were, for a run that goes on.
        """
        if distributed.is_main_process() and self.last.iteration != trainer.iteration:
            self._draw(trainer)

    def _draw(self, trainer):
        model = trainer.eval_model
        path = self.folder / f"iteration_{trainer.iteration:06}"
        training = model.training
        model.eval()
        files = self.draw(model, trainer.seed, path)
        model.train(training)
        with self.board.writing(trainer) as writer:
            for name, file in files.items():
                _show(writer, f"samples/{name}", file, trainer.iteration)

    def state(self):
        """When the last samples were due."""
        return {"last": list(self.last)}

    def restore(self, state):
        """Go on after them."""
        self.last = Moment(*state["last"])


def _show(writer, name, file, iteration):
    """A picture or a sound in TensorBoard."""
    # Here, for runs without samples need neither.
    import soundfile
    from PIL import Image
    if file.suffix == ".wav":
        samples, rate = soundfile.read(file, dtype="float32")
        writer.add_audio(name, samples, iteration, sample_rate=rate)
    else:
        with Image.open(file) as picture:
            writer.add_image(name, np.asarray(picture.convert("RGB")), iteration,
                             dataformats="HWC")
