"""A line on the terminal for each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from training import likelihood
from training.extensions.extension import Extension
from training.extensions.log_report import mean_since

if TYPE_CHECKING:
    from training.trainer import Trainer


class PrintReport(Extension):
    """Prints a line for each epoch on standard output: the means since the last line.

    Before the first update it prints the validation, if there was one.
    """

    name = "PrintReport"

    def __init__(self) -> None:
        self.printed = 0  # the iteration of the last line

    def __call__(self, trainer: Trainer) -> None:
        """Print the line."""
        if not trainer.iteration:
            tqdm.write(f"before the first update  "
                       f"{format_likelihood(trainer.observation, 'validation/main')}")
            return
        entry = trainer.log[-1]
        report = trainer.observation | likelihood.in_units(
            mean_since(trainer, self.printed), "main", trainer.dimensions)
        columns = [f"epoch {trainer.epoch}", f"iteration {trainer.iteration}"]
        columns += [format_likelihood(report, prefix) for prefix in ("main", "validation/main")
                    if f"{prefix}/nll" in report]
        columns += [f"{entry['samples_per_second']:,.0f} {trainer.unit}/s",
                    f"{entry['elapsed_time']:.0f} s"]
        tqdm.write("  ".join(columns))
        self.printed = trainer.iteration

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration of the last line."""
        return {"printed": self.printed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that line."""
        self.printed = state["printed"]


def format_likelihood(report: Mapping[str, Any], prefix: str) -> str:
    """`prefix` and its likelihood in a report, such as: main 0.1722 bits/dim (93.57 nats)."""
    nats = report.get(f"{prefix}/nats")
    text = f"{prefix} {report[f'{prefix}/bits/dim']:.4f} bits/dim"
    return text if nats is None else f"{text} ({nats:.2f} nats)"
