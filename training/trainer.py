"""The training loop, in the manner of Chainer's Trainer: updates, and extensions at triggers.

    trainer = Trainer(model, optimizer, dataset, ...)
    trainer.extend(Evaluator(...), trigger=(1, "epoch"))
    trainer.run()

What a run learns depends on its state alone: the order of the data is a function of the seed and
the epoch, and random numbers are a function of the seed and the iteration. So a run resumed from
`state_dict()` learns exactly what the uninterrupted run learns. With several processes (see
`training.distributed`) each has a trainer, which computes its shard of every batch.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from common.errors import DivergedError, UserError
from common.signals import Signals
from datasets.batches import Batch, BatchDataset, training_batches
from training import distributed, likelihood
from training.extensions.extension import Extension, FunctionExtension
from training.interval import Interval
from training.optimization import average_weights, learning_rate_factor, load_optimizer_state
from training.progress_bar import ProgressBar
from training.stopping import StopCondition

Trigger = tuple[int, str]


class Trainer:
    """Trains `model` on `dataset`, calling extensions after updates.

    Args:
        model, optimizer, device: the network on its device, and the optimizer of its parameters.
        dataset: `dataset[indices]` makes a `datasets.batches.Batch`.
        batchsize: items in a batch. seed: of the order of the data.
        clip: the largest L2 norm of the gradient; a larger one is scaled down.
        stop: when the run is complete.
        samples: returns how many samples (images, or samples of sound) a batch has, for the speed.
            unit: what they are called.
        dimensions: C·H·W of an image, None for sound.
        schedule: of the learning rate, which starts as the optimizer's; see
            `training.optimization.learning_rate_factor`.
        ema: how much of the weights' moving average an update keeps; None for no average.
        precision: of matrix products in training, see `training.likelihood.matmul_precision`.
        workers: processes that read data ahead.

    Extensions are called with the trainer. They read, beside the arguments above and the properties
    below, `iteration`, `epoch` (complete ones), `is_new_epoch`, `is_ending` (the run ends after
    this update), `observation` (what the last update and the extensions before them report, with
    the log's keys), `interval` (sums since the last entry of the log) and `log`.
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer,
                 dataset: BatchDataset, *, batchsize: int, seed: int, clip: float,
                 stop: StopCondition, device: torch.device, samples: Callable[[Batch], int],
                 unit: str, dimensions: int | None = None, schedule: str = "constant",
                 ema: float | None = None, precision: str = "fp32", workers: int = 0) -> None:
        self.model, self.optimizer, self.dataset = model, optimizer, dataset
        self._parallel = distributed.data_parallel(model, device)
        self._average = average_weights(model, ema) if ema else None
        self.schedule, self.precision = schedule, precision
        self._peak_rates = [group["lr"] for group in optimizer.param_groups]
        self.loading: dict[str, Any] = dict(share=distributed.shard, workers=workers,
                                            pinned=device.type == "cuda")
        self.batchsize, self.seed, self.clip = batchsize, seed, clip
        self.stop, self.device = stop, device
        self.samples, self.unit, self.dimensions = samples, unit, dimensions
        self.iteration = self.epoch = self.position = 0
        self.is_new_epoch = self.is_ending = False
        self.observation: dict[str, Any] = {}
        self.interval = Interval()
        self.log: list[dict[str, Any]] = []
        self.resumed_at: int | None = None
        self._earlier_seconds, self._started = 0.0, time.monotonic()
        self._extensions: list[tuple[Extension, Trigger | None]] = []
        self._before_training: list[Extension] = []
        self._final: Extension | None = None
        self.reason: str | None = None  # why the run is complete, once it is
        self._has_ended = False  # the resumed run had called all extensions at its end
        self._signal: int | None = None  # the signal that ends the run
        self._signals = Signals("finishing the update or validation in hand, then writing a "
                                "snapshot", patient=distributed.world_size() > 1)

    def extend(self, extension: Extension | Callable[[Trainer], Any],
               trigger: Trigger = (1, "epoch"), call_before_training: bool = False,
               all_ranks: bool = False, final: bool = False) -> None:
        """Add an extension, or a plain function of the trainer. They are called in this order.

        trigger: (n, "iteration" | "epoch" | "both"): every n iterations or epochs, or every n
        iterations and at each epoch's end. When the run is complete all are called, also in the
        middle of an epoch. call_before_training: call it also before the first update. all_ranks:
        call it in every process, not in the main process alone. final: instead of the trigger, call
        it after every update, when all others have been called and it is known whether that update
        was the last, and when a signal ends the run. So the `state_dict()` it writes includes the
        end of the run.
        """
        if not (all_ranks or distributed.is_main_process()):
            return
        if not isinstance(extension, Extension):
            extension = FunctionExtension(extension)
        if extension.name and any(extension.name == other.name for other, _ in self._extensions):
            raise ValueError(f"there is an extension {extension.name} already")
        self._extensions.append((extension, None if final else trigger))
        if call_before_training:
            self._before_training.append(extension)
        if final:
            self._final = extension

    @property
    def eval_model(self) -> torch.nn.Module:
        """The network to evaluate and to sample from: with the averaged weights, if there are."""
        return self._average.module if self._average else self.model

    @property
    def elapsed_time(self) -> float:
        """Seconds of this run, earlier parts of a resumed run included."""
        return self._earlier_seconds + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """The fraction of the run at the middle of the next update, from 0 to 1."""
        total = self.total_updates
        return (self.iteration + 0.5) / total if total else 0.0

    @property
    def total_updates(self) -> int | None:
        """The updates of the whole run, if the loss does not end it before; None if unknown."""
        return self.stop.total_updates(math.ceil(len(self.dataset) / self.batchsize))

    def run(self) -> None:
        """Train until `stop`; afterwards `self.reason` says which of its conditions holds.

        Ctrl+C or SIGTERM ends the run after the current update or validation: it calls the `final`
        extension and raises SystemExit(128 + signal). A resumed run that was complete does nothing,
        unless it was never validated at its end.
        Raises DivergedError at a loss or gradient that is not finite, before the weights change.
        """
        self.model.train()
        self._started = time.monotonic()
        if self.was_complete():
            return
        with self._signals:
            try:
                if self.reason:  # resumed from a snapshot of a longer run, in mid-epoch
                    self._finish_update()
                with ProgressBar(self) as bar:
                    if not self.iteration:
                        for extension in self._before_training:
                            extension(self)
                    while not (self.reason or self._signal):
                        self._run_epoch(bar)
            finally:
                with ExitStack() as stack:  # calls all, whichever of them raises
                    for extension, _ in reversed(self._extensions):
                        stack.callback(extension.finalize)
            if self._signal:
                self._exit_after_signal(self._signal)

    def was_complete(self) -> bool:
        """Whether the resumed run was complete and has nothing left to compute.

        Sets its `reason`.
        """
        self.reason = self.stop.reached(self)
        return bool(self.reason) and (self.is_new_epoch or self._has_ended)

    def _run_epoch(self, bar: ProgressBar) -> None:
        """Update from `position` to the epoch's end, or until the run ends."""
        began = time.monotonic()
        batches = training_batches(self.dataset, self.batchsize, seed=self.seed, epoch=self.epoch,
                                   position=self.position, **self.loading)
        for batch in batches:
            self.update(batch)
            self.interval.seconds += time.monotonic() - began
            self.position += self.batchsize
            self.is_new_epoch = self.position >= len(self.dataset)
            if self.is_new_epoch:
                self.epoch, self.position = self.epoch + 1, 0
            self._call_extensions()
            signals, = distributed.all_reduce_sum(bool(self._signals.number))
            if signals:  # to whichever process: all end after the same update
                self._signal = self._signals.number or signal.SIGTERM
            bar.advance()
            self.reason = self.stop.reached(self)
            self._finish_update()
            if self.is_ending:
                return
            began = time.monotonic()

    def _finish_update(self) -> None:
        """Validate and log the end of a complete run, then call the final extension."""
        self.is_ending = bool(self.reason or self._signal)
        if self.reason and not self.is_new_epoch:
            self._call_extensions()
        if self._final:
            self._final(self)

    def _call_extensions(self) -> None:
        for extension, trigger in self._extensions:
            if trigger and (self.is_ending or self._is_due(*trigger)):
                extension(self)

    def _is_due(self, n: int, unit: str) -> bool:
        if unit == "epoch":
            return self.is_new_epoch and self.epoch % n == 0
        return self.iteration % n == 0 or (unit == "both" and self.is_new_epoch)

    def update(self, batch: Batch) -> None:
        """Take one step of the optimizer. batch: this process's shard of the batch."""
        torch.manual_seed(distributed.rank_seed(self.seed, self.iteration))
        targets, samples = map(int, distributed.all_reduce_sum(
            likelihood.count_targets(batch), self.samples(batch)))
        factor = learning_rate_factor(self.schedule, self.progress)
        for group, peak_rate in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        with likelihood.matmul_precision(self.model, self.precision):
            loss = likelihood.nll(self._parallel, batch.to(self.device), "sum") / targets
            # Gradients are averaged over processes, but the batch's loss is the sum over them.
            (loss * distributed.world_size()).backward()
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        value, norm = torch.stack((loss.detach(), gradient_norm)).tolist()
        value, = distributed.all_reduce_sum(value)
        if not (math.isfinite(value) and math.isfinite(norm)):
            culprit = "gradient" if math.isfinite(value) else "loss"
            raise DivergedError(
                f"iteration {self.iteration + 1}: the {culprit} is not finite; snapshots are from "
                f"before it: go on with --resume auto and a lower --learning_rate")
        self.optimizer.step()
        if self._average:
            self._average.update_parameters(self.model)
        self.iteration += 1
        self.observation = likelihood.in_units(value, "main", self.dimensions)
        self.interval.nll += value * targets
        self.interval.targets += targets
        self.interval.samples += samples

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, tensors and plain values, beside `eval_model`'s weights.

        With averaged weights it includes the weights that the optimizer moves.
        """
        state = {"iteration": self.iteration, "epoch": self.epoch, "position": self.position,
                 "items": len(self.dataset), "seed": self.seed, "elapsed_time": self.elapsed_time,
                 "interval": asdict(self.interval), "log": self.log,
                 "optimizer": self.optimizer.state_dict(),
                 "optimizer_name": type(self.optimizer).__name__,
                 "has_ended": self.reason is not None}
        if self._average:
            state["weights"] = self.model.state_dict()
        state["extensions"] = {extension.name: extension.state_dict()
                               for extension, _ in self._extensions if extension.name}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the run that `state` belongs to; the model has its `eval_model`'s weights.

        The optimizer keeps its own hyperparameters.
        Raises UserError if the data has another size, or the optimizer is another one.
        """
        if state["items"] != len(self.dataset):
            raise UserError(f"--resume: the snapshot's run had {state['items']} items to train on, "
                            f"this one has {len(self.dataset)}; give the same data, or start a "
                            f"new run")
        load_optimizer_state(self.optimizer, state["optimizer"],
                             state.get("optimizer_name", "Adam"))  # the oldest have no name
        self.iteration, self.epoch = state["iteration"], state["epoch"]
        self.position, self.seed = state["position"], state["seed"]
        self._earlier_seconds = state["elapsed_time"]
        self.interval, self.log = Interval(**state["interval"]), list(state["log"])
        self.resumed_at = self.iteration
        self.is_new_epoch = self.position == 0
        self._has_ended = state.get("has_ended", False)  # the oldest don't say
        if self._average:
            self._average.module.load_state_dict(self.model.state_dict())
            self._average.n_averaged.fill_(self.iteration)
        if "weights" in state:
            self.model.load_state_dict(state["weights"])
        for extension, _ in self._extensions:
            if extension.name and extension.name in state["extensions"]:
                extension.load_state_dict(state["extensions"][extension.name])

    def _exit_after_signal(self, number: int) -> None:
        distributed.barrier()
        if self._final:
            print(f"stopped at iteration {self.iteration}; go on with --resume auto",
                  file=sys.stderr)
        sys.exit(128 + number)
