"""The models and snapshots that a run writes: the best so far, and what it can go on from."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from common.files import atomic_write
from models import model_file
from training.extensions.reports import mean_since


class BestModel:
    """Keeps the model with the lowest validation/main/nll as `<kind>_<iteration>` in `out`.

    Where nothing is held back, the mean of main/nll since the last comparison decides. An earlier
    best that this run wrote is removed once the better one is there. `origin` is the folder that
    the run was in before it was resumed.
    """

    def __init__(self, out, describe, origin=None):
        self.out, self.describe, self.origin = Path(out), describe, Path(origin or out)
        self.nll, self.path, self.compared = math.inf, None, 0

    def __call__(self, trainer):
        nll = trainer.observation.get("validation/main/nll")
        if nll is None:
            nll = mean_since(trainer, self.compared)
        self.compared = trainer.iteration
        if nll >= self.nll:
            return
        content = self.describe()
        path = self.out / f"{content['kind']}_{trainer.iteration}"
        model_file.save(path, content)
        if self.path and self.path != path:
            self.path.unlink(missing_ok=True)
        self.nll, self.path = nll, path

    def state(self):
        """The best so far: its nll in nats, its file's name, the iteration last looked at."""
        return {"nll": self.nll, "file": self.path.name if self.path else None,
                "compared": self.compared}

    def restore(self, state):
        """Take up the best so far; if its file is gone, the next model is the best anew."""
        self.compared = state["compared"]
        if state["file"] is not None and (self.origin / state["file"]).is_file():
            self.nll, self.path = state["nll"], self.out / state["file"]

    def bring_along(self):
        """Copy the best so far from `origin`, what another run left in `out` being set aside."""
        if self.path and self.origin.resolve() != self.out.resolve():
            with atomic_write(self.path) as temporary:
                shutil.copyfile(self.origin / self.path.name, temporary)


class Moment(NamedTuple):
    """When something was done: after which update, and after how many seconds of training."""

    iteration: int = 0
    seconds: float = 0.0


class Snapshot:
    """Writes `snapshot_iter_<iteration>`: the model and all that is needed to go on.

    To be called after every update, as the trainer's `final` extension: it is written at each
    epoch's end and at the run's, and whenever `every`, a `cli.arguments.Every`, has passed
    since the last. The latest `kept` stay, and one for every `keep_every`, if that is given. The
    training goes on meanwhile.
    """

    def __init__(self, out, describe, every, kept=3, keep_every=None):
        self.out, self.describe, self.kept = Path(out), describe, kept
        self.every, self.keep_every = every, keep_every
        self.last = self.last_to_stay = Moment()
        self.removable = []  # iterations
        self._writer = ThreadPoolExecutor(1)
        self._writing = None

    def __call__(self, trainer):
        now = Moment(trainer.iteration, trainer.elapsed_time)
        stays = self.keep_every and self.keep_every.has_passed(now, self.last_to_stay)
        # At the run's end it may take the place of one that knew nothing of the end.
        if not (stays or trainer.is_new_epoch or trainer.is_ending
                or self.every.has_passed(now, self.last)):
            return
        self.finish()
        if now.iteration != self.last.iteration:
            self.removable.append(now.iteration)
        self.last = now
        if stays:
            self.last_to_stay = now
            self.removable.remove(now.iteration)
        stale, self.removable = self.removable[:-self.kept], self.removable[-self.kept:]
        content = {**self.describe(), "run": model_file.copy_to_cpu(trainer.state())}
        self._writing = self._writer.submit(self._write, now.iteration, content, stale)

    def _write(self, iteration, content, stale):
        model_file.save(self._path(iteration), content)
        for iteration in stale:
            self._path(iteration).unlink(missing_ok=True)

    def _path(self, iteration):
        return self.out / f"snapshot_iter_{iteration}"

    def finish(self):
        """Return once the last snapshot is on the disk. Raises what kept it from getting there."""
        if self._writing:
            writing, self._writing = self._writing, None
            writing.result()

    def state(self):
        """When the last snapshots were made, and which of them are not to stay."""
        return {"last": list(self.last), "last_to_stay": list(self.last_to_stay),
                "removable": self.removable}

    def restore(self, state):
        """Go on after them."""
        self.last, self.last_to_stay = Moment(*state["last"]), Moment(*state["last_to_stay"])
        self.removable = list(state["removable"])
