"""The training loop, in the manner of Chainer's Trainer: updates, and extensions at triggers.

    trainer = Trainer(model, optimizer, dataset, ...)
    trainer.extend(Evaluator(...), trigger=(1, "epoch"))
    trainer.run()

Triggers look at nothing but the iteration and the epoch, the data order is a function of the seed
and the epoch, so a run that is resumed from `state()` is the run that it would have been.
"""

import math
import sys
import time
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from tqdm import tqdm

from datasets.batches import training_batches
from datasets.errors import UserError
from training import likelihood
from training.signals import Signals


class DivergedError(UserError):
    """A run whose loss is not finite: it can't go on, through no wrong flag. Exit code 1."""

    exit_code = 1


class Stop(NamedTuple):
    """When a run is complete: at whichever comes first; None for what is not wanted.

    target_loss is compared with main/nll of the log, in nats.
    """

    epoch: int | None = None
    iterations: int | None = None
    target_loss: float | None = None


@dataclass
class Interval:
    """Sums over the updates since the last entry of the log."""

    nll: float = 0.0
    targets: int = 0
    samples: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains `model` on `dataset`, calling extensions after updates.

    Args:
        model, optimizer, device: the network on its device, and the optimizer of its parameters.
        dataset: `dataset[indices]` makes a `datasets.batches.Batch`.
        batchsize: items in a batch. seed: of the data's order.
        clip: the gradient's L2 norm is cut to this.
        stop: a `Stop`.
        samples: a function of a batch: how many samples (images, or samples of sound) it has,
            for the speed. unit: what they are called.
        dimensions: C·H·W of an image, None for sound.

    Extensions are called with the trainer. They find in it `iteration`, `epoch` (complete ones),
    `is_new_epoch`, `observation` (what the last update and the extensions called before them
    report, by the log's keys), `interval` (sums since the last entry of the log) and `log`. An
    extension with `state()` and `restore(state)` is kept in snapshots under its class's name.
    """

    def __init__(self, model, optimizer, dataset, *, batchsize, seed, clip, stop, device,
                 samples, unit, dimensions=None):
        self.model, self.optimizer, self.dataset = model, optimizer, dataset
        self.batchsize, self.seed, self.clip = batchsize, seed, clip
        self.stop, self.device = stop, device
        self.samples, self.unit, self.dimensions = samples, unit, dimensions
        self.iteration = self.epoch = self.position = 0
        self.is_new_epoch = False
        self.observation, self.interval, self.log = {}, Interval(), []
        self.resumed_at = None
        self._earlier_seconds, self._started = 0.0, time.monotonic()
        self._extensions, self._at_signal = [], None
        self._signals = Signals("finishing the update or validation in hand, then writing a "
                                "snapshot")

    def extend(self, extension, trigger=(1, "epoch"), at_signal=False):
        """Call `extension(trainer)` every n iterations or epochs: (n, "iteration" | "epoch").

        (n, "both") means every n iterations and at each epoch's end. All extensions are called
        when the run is complete, be it in mid-epoch; the one with `at_signal` also when a signal
        ends it. Extensions are called in the order they were added.
        """
        self._extensions.append((extension, trigger))
        if at_signal:
            self._at_signal = extension

    @property
    def elapsed_time(self):
        """Seconds of this run, those before it was resumed included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def run(self):
        """Train until `stop`; afterwards `self.reason` says which of its conditions it was.

        Ctrl+C or SIGTERM ends the run after the update or validation in hand: the extension that
        is to be called `at_signal` is, and SystemExit(128 + signal) raised.
        Raises DivergedError at a loss or a gradient that is not finite, before it reaches the
        weights.
        """
        self.model.train()
        self._started = time.monotonic()
        self.reason = self._why_stop()
        if self.reason:  # a resumed run that was complete
            return
        with self._signals, self._progress_bar() as bar:
            while not (self.reason or self._signals.number):
                self._run_epoch(bar)
            if not self._signals.number and not self.is_new_epoch:
                self._call_extensions(complete=True)
        if self._signals.number:
            self._leave()

    def _run_epoch(self, bar):
        """Updates from `position` to the epoch's end, or until there is a reason to stop."""
        began = time.monotonic()
        for batch in training_batches(self.dataset, self.batchsize, seed=self.seed,
                                      epoch=self.epoch, position=self.position):
            self.update(batch)
            self.interval.seconds += time.monotonic() - began
            self.position += len(batch.codes)
            self.is_new_epoch = self.position >= len(self.dataset)
            if self.is_new_epoch:
                self.epoch, self.position = self.epoch + 1, 0
            self._call_extensions()
            bar.update()
            bar.set_postfix_str(self._postfix(bar), refresh=False)
            self.reason = self._why_stop()
            if self.reason or self._signals.number:
                return
            began = time.monotonic()

    def update(self, batch):
        """One step of the optimizer on `batch`."""
        targets, samples = likelihood.count_targets(batch), self.samples(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss = likelihood.nll(self.model, batch.to(self.device))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        value, norm = torch.stack((loss.detach(), norm)).tolist()
        if not (math.isfinite(value) and math.isfinite(norm)):
            culprit = "gradient" if math.isfinite(value) else "loss"
            raise DivergedError(
                f"iteration {self.iteration + 1}: the {culprit} is not finite; snapshots are from "
                f"before it: go on with --resume auto and a lower --learning_rate")
        self.optimizer.step()
        self.iteration += 1
        self.observation = likelihood.in_units(value, "main", self.dimensions)
        self.interval.nll += value * targets
        self.interval.targets += targets
        self.interval.samples += samples

    def state(self):
        """All that is needed to go on, as tensors and plain values."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {"iteration": self.iteration, "epoch": self.epoch, "position": self.position,
                "items": len(self.dataset), "seed": self.seed, "elapsed_time": self.elapsed_time,
                "interval": asdict(self.interval), "log": list(self.log),
                "optimizer": self.optimizer.state_dict(),
                "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
                "extensions": {type(extension).__name__: extension.state()
                               for extension, _ in self._extensions
                               if hasattr(extension, "state")}}

    def restore(self, state):
        """Take up the run that `state` is of; the weights are the model's own affair.

        Hyper-parameters of the optimizer stay those of this run, not of the earlier one.
        Raises UserError if the data is not as large as it was.
        """
        if state["items"] != len(self.dataset):
            raise UserError(f"--resume: the snapshot's run had {state['items']} items to train on, "
                            f"this one has {len(self.dataset)}; give the same data, or begin anew")
        for name in ("iteration", "epoch", "position", "seed"):
            setattr(self, name, state[name])
        self._earlier_seconds = state["elapsed_time"]
        self.interval, self.log = Interval(**state["interval"]), list(state["log"])
        self.resumed_at = self.iteration
        self.is_new_epoch = self.position == 0
        groups = [{name: value for name, value in group.items() if name != "params"}
                  for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, ours in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(ours)
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        for extension, _ in self._extensions:
            name = type(extension).__name__
            if name in state["extensions"]:
                extension.restore(state["extensions"][name])

    def _call_extensions(self, complete=False):
        for extension, (n, unit) in self._extensions:
            if (complete
                    or unit in ("iteration", "both") and self.iteration % n == 0
                    or unit == "epoch" and self.is_new_epoch and self.epoch % n == 0
                    or unit == "both" and self.is_new_epoch):
                extension(self)

    def _why_stop(self):
        """The condition of `stop` that holds, as text, or None."""
        if self.stop.epoch and self.epoch >= self.stop.epoch:
            return f"--epoch {self.stop.epoch} reached"
        if self.stop.iterations and self.iteration >= self.stop.iterations:
            return f"--iterations {self.stop.iterations} reached"
        logged = self.log[-1]["main/nll"] if self.log else math.inf
        if self.stop.target_loss and logged <= self.stop.target_loss:
            return f"--target_loss {self.stop.target_loss} reached: main/nll is {logged:.4f}"
        return None

    def _progress_bar(self):
        an_epoch = -(-len(self.dataset) // self.batchsize)
        ends = [n for n in (self.stop.iterations, (self.stop.epoch or 0) * an_epoch) if n]
        return tqdm(total=min(ends, default=None), initial=self.iteration, disable=None,
                    unit="it", dynamic_ncols=True)

    def _postfix(self, bar):
        if bar.disable or not self.interval.seconds:
            return ""
        speed = self.interval.samples / self.interval.seconds
        return f"{self.observation['main/bits/dim']:.3f} bits/dim, {speed:,.0f} {self.unit}/s"

    def _leave(self):
        if self._at_signal:
            self._at_signal(self)
            print(f"stopped at iteration {self.iteration}; go on with --resume auto",
                  file=sys.stderr)
        sys.exit(128 + self._signals.number)
