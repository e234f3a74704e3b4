"""What happens beside the updates: validation, the log, a line on the terminal."""

import json
import math
from pathlib import Path

from tqdm import tqdm

from common.errors import DivergedError
from common.files import atomic_write
from datasets.batches import evaluation_batches
from training import distributed, likelihood, restart


class Evaluator:
    """Reports the likelihood of a held-back dataset; `prefix` is validation/main or test/main.

    label_names: where there are several, each one's likelihood is reported too, as
    validation/label/NAME/….
    """

    def __init__(self, dataset, batchsize, prefix="validation/main", label_names=()):
        self.dataset, self.batchsize, self.prefix = dataset, batchsize, prefix
        self.label_names = label_names if len(label_names) > 1 else ()

    def __call__(self, trainer):
        batches = evaluation_batches(
            self.dataset, self.batchsize * distributed.world_size(), **trainer.loading)
        bar = tqdm(batches, desc=self.prefix, leave=False, dynamic_ncols=True,
                   disable=distributed.is_bar_disabled())
        mean, of_labels = likelihood.evaluate_labels(trainer.eval_model, bar, trainer.device,
                                                     len(self.label_names))
        if not math.isfinite(mean):
            raise DivergedError(f"iteration {trainer.iteration}: {self.prefix}/nll is not finite; "
                                f"go on from an earlier snapshot with --resume and a lower "
                                f"--learning_rate")
        trainer.observation |= likelihood.in_units(mean, self.prefix, trainer.dimensions)
        part = self.prefix.partition("/")[0]
        for name, value in zip(self.label_names, of_labels, strict=True):
            if value is not None:
                trainer.observation |= likelihood.in_units(value, f"{part}/label/{name}")


class LogReport:
    """The run's `log`: a JSON list of dictionaries, the original study's keys.

    Each process keeps it, for a run may end by what is in it; the first writes it.

    main/… are means over the updates since the entry before; samples_per_second is of the updates
    alone, elapsed_time of everything, in seconds, over resumptions. The first entry after one has
    "resumed_at", the iteration that the run went on from, and if that was for a crash "restart", 1
    for the first. Whatever else was observed since the last update, such as validation/main/nll at
    an epoch's end, is in the entry too. An entry before the first update has nothing but that. The
    last entry of a complete run has "stopped_by", which of the flags it was.
    """

    def __init__(self, out):
        self.path = Path(out) / "log"

    def __call__(self, trainer):
        interval = trainer.interval
        if interval.targets or not trainer.log:
            entry = {"epoch": trainer.epoch, "iteration": trainer.iteration, **trainer.observation}
            if interval.targets:
                entry |= likelihood.in_units(interval.nll / interval.targets, "main",
                                             trainer.dimensions)
                entry["samples_per_second"] = interval.samples / interval.seconds
            entry["elapsed_time"] = trainer.elapsed_time
            resumed_at = trainer.resumed_at
            logged = trainer.log[-1]["iteration"] if trainer.log else 0
            if resumed_at is not None and logged <= resumed_at:
                entry["resumed_at"] = resumed_at
                if restart.count():
                    entry["restart"] = restart.count()
            trainer.log.append(entry)
            trainer.interval = type(interval)()
        else:  # the run is complete, right after an entry: main/... stay its means
            trainer.log[-1] |= {name: value for name, value in trainer.observation.items()
                                if not name.startswith("main/")}
        if distributed.is_main_process():
            with atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps(trainer.log, indent=1, allow_nan=False))


def mean_since(trainer, iteration):
    """Mean training nll over the log's entries after `iteration`, in nats."""
    mean, before = 0.0, iteration
    for entry in trainer.log:
        if entry["iteration"] > iteration:
            share = (entry["iteration"] - before) / (trainer.iteration - iteration)
            mean, before = mean + share * entry["main/nll"], entry["iteration"]
    return mean


class PrintReport:
    """A line for each epoch on standard output: the means since the last line.

    And one for the validation before the first update, if there is one.
    """

    def __init__(self):
        self.printed = 0

    def __call__(self, trainer):
        if not trainer.iteration:
            tqdm.write(f"before the first update  "
                       f"{in_words(trainer.observation, 'validation/main')}")
            return
        entry = trainer.log[-1]
        report = trainer.observation | likelihood.in_units(
            mean_since(trainer, self.printed), "main", trainer.dimensions)
        parts = [f"epoch {trainer.epoch}", f"iteration {trainer.iteration}"]
        parts += [in_words(report, prefix) for prefix in ("main", "validation/main")
                  if f"{prefix}/nll" in report]
        parts += [f"{entry['samples_per_second']:,.0f} {trainer.unit}/s",
                  f"{entry['elapsed_time']:.0f} s"]
        tqdm.write("  ".join(parts))
        self.printed = trainer.iteration

    def state(self):
        """The iteration of the last line."""
        return {"printed": self.printed}

    def restore(self, state):
        """Go on after that line."""
        self.printed = state["printed"]


def in_words(report, prefix):
    """`prefix` and its likelihood in a report, such as: main 0.1722 bits/dim (93.57 nats)."""
    nats = report.get(f"{prefix}/nats")
    return (f"{prefix} {report[f'{prefix}/bits/dim']:.4f} bits/dim"
            + (f" ({nats:.2f} nats)" if nats is not None else ""))
