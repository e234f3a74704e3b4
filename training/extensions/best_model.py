"""The best model so far."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import atomic_write
from models import model_file
from training.extensions.extension import Extension
from training.extensions.log_report import mean_since

if TYPE_CHECKING:
    from training.trainer import Trainer


class BestModel(Extension):
    """Keeps the model with the lowest validation/main/nll as `<kind>_<iteration>` in `out`.

    Without validation data, the mean of main/nll since the last comparison decides. Once a better
    model is written, the earlier best that this run wrote is deleted.

    describe: returns the content of the model file. origin: the folder that the run was in before
    it was resumed.
    """

    name = "BestModel"

    def __init__(self, out: str | Path, describe: Callable[[], dict[str, Any]],
                 origin: str | Path | None = None) -> None:
        self.out, self.describe, self.origin = Path(out), describe, Path(origin or out)
        self.nll = math.inf  # of the best model, in nats
        self.path: Path | None = None
        self.compared = 0  # the iteration of the last comparison

    def __call__(self, trainer: Trainer) -> None:
        """Compare the model with the best so far, and keep it if it is better."""
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

    def state_dict(self) -> dict[str, Any]:
        """Return the best nll in nats, its file's name, and the iteration last compared."""
        return {"nll": self.nll, "file": self.path.name if self.path else None,
                "compared": self.compared}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the best so far; if its file is gone, the next model becomes the best."""
        self.compared = state["compared"]
        if state["file"] is not None and (self.origin / state["file"]).is_file():
            self.nll, self.path = state["nll"], self.out / state["file"]

    def copy_from_origin(self) -> None:
        """Copy the best so far to `out`, if the run was resumed from another folder."""
        if self.path and self.origin.resolve() != self.out.resolve():
            with atomic_write(self.path) as temporary:
                shutil.copyfile(self.origin / self.path.name, temporary)
