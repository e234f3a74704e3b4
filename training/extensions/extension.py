"""The protocol of extensions: what the trainer calls, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.trainer import Trainer


class Extension:
    """Something that happens beside the updates: validation, a log, a plot, a snapshot.

        class WeightNorm(Extension):
            def __call__(self, trainer):
                squares = [weight.square().sum() for weight in trainer.model.parameters()]
                trainer.observation["weight_norm"] = float(sum(squares)) ** 0.5

        trainer.extend(WeightNorm(), trigger=(100, "iteration"))

    A plain function of the trainer will do where nothing is kept. An extension that has something
    to remember over a resumption gives itself a `name` and overrides both `state_dict` and
    `load_state_dict`.
    """

    name: str = ""
    """The key of its state in snapshots; "" for an extension without state."""

    def __call__(self, trainer: Trainer) -> None:
        """Do the work. `Trainer.extend` says when; see `Trainer` for what can be read there."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned when the snapshot was written."""

    def finalize(self) -> None:
        """Finish pending work. Called once when training ends, also when it ends by an error."""


class FunctionExtension(Extension):
    """A plain function of the trainer as an extension."""

    def __init__(self, function: Callable[[Trainer], Any]) -> None:
        self.function = function

    def __call__(self, trainer: Trainer) -> None:
        """Call the function."""
        self.function(trainer)
