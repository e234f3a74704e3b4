"""The training loop, in the manner of Chainer's Trainer: updates, and extensions at triggers.

    trainer = Trainer(model, optimizer, dataset, ...)
    trainer.extend(Evaluator(...), trigger=(1, "epoch"))
    trainer.run()

What a run learns depends on nothing but its state: the data order is a function of the seed
and the epoch, and random numbers one of the seed and the iteration: so a run that is resumed from
`state()` is the run that it would have been. Each process of a run on many (see
`training.distributed`) has a trainer, which is given its share of each batch.
"""

import math
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from common.errors import DivergedError, UserError
from common.signals import Signals
from datasets.batches import training_batches
from training import distributed, likelihood
from training.optimization import average_of, learning_rate_factor


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
        stop: a `training.stopping.Stop`.
        samples: a function of a batch: how many samples (images, or samples of sound) it has,
            for the speed. unit: what they are called.
        dimensions: C·H·W of an image, None for sound.
        schedule: of the learning rate, which begins as the optimizer's; see
            `training.optimization.learning_rate_factor`.
        ema: how much of the weights' moving average is kept at an update; None for no average.
        precision: of the training's matrix products, see `training.likelihood.products_in`.
        workers: processes that read data ahead.

    Extensions are called with the trainer. They find in it, beside what it was made of and the
    properties below, `iteration`, `epoch` (complete ones), `is_new_epoch`, `is_ending` (the run
    ends after this update), `observation` (what the last update and the extensions called before
    them report, by the log's keys), `interval` (sums since the last entry of the log) and `log`. An
    extension with `state()` and `restore(state)` is kept in snapshots under its class's name; one
    with `finish()` is told when the run ends, however it does.
    """

    def __init__(self, model, optimizer, dataset, *, batchsize, seed, clip, stop, device,
                 samples, unit, dimensions=None, schedule="constant", ema=None, precision="fp32",
                 workers=0):
        self.model, self.optimizer, self.dataset = model, optimizer, dataset
        self._parallel = distributed.data_parallel(model, device)
        self._average = average_of(model, ema) if ema else None
        self.schedule, self.precision = schedule, precision
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self.loading = dict(share=distributed.shard, workers=workers, pinned=device.type == "cuda")
        self.batchsize, self.seed, self.clip = batchsize, seed, clip
        self.stop, self.device = stop, device
        self.samples, self.unit, self.dimensions = samples, unit, dimensions
        self.iteration = self.epoch = self.position = 0
        self.is_new_epoch = self.is_ending = False
        self.observation, self.interval, self.log = {}, Interval(), []
        self.resumed_at = None
        self._earlier_seconds, self._started = 0.0, time.monotonic()
        self._extensions, self._at_first, self._final = [], [], None
        self.reason = None  # why the run is complete, once it is
        self._has_ended = False  # all extensions were called at the end of the run resumed here
        self._signal = None  # that ends the run
        self._signals = Signals("finishing the update or validation in hand, then writing a "
                                "snapshot", patient=distributed.world_size() > 1)

    def extend(self, extension, trigger=(1, "epoch"), call_before_training=False, all_ranks=False,
               final=False):
        """Call `extension(trainer)` every n iterations or epochs: (n, "iteration" | "epoch").

        (n, "both") means every n iterations and at each epoch's end. All extensions are called when
        the run is complete, be it in mid-epoch; those with `call_before_training` also before the
        first update. Extensions are called in the order they were added; of several processes by
        the first, or `all_ranks`. The one that is `final` is called after every update, when it is
        known whether that was the last and all others have been called, and when a signal ends the
        run: what it writes of `state()` holds the run's end too.
        """
        if not (all_ranks or distributed.is_main_process()):
            return
        self._extensions.append((extension, None if final else trigger))
        if call_before_training:
            self._at_first.append(extension)
        if final:
            self._final = extension

    @property
    def eval_model(self):
        """The network to evaluate and to sample from: of averaged weights, if they are averaged."""
        return self._average.module if self._average else self.model

    @property
    def elapsed_time(self):
        """Seconds of this run, those before it was resumed included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def run(self):
        """Train until `stop`; afterwards `self.reason` says which of its conditions it was.

        Ctrl+C or SIGTERM ends the run after the update or validation in hand: the `final` extension
        is called, and SystemExit(128 + signal) raised. A resumed run that was complete does
        nothing, unless it was never validated there.
        Raises DivergedError at a loss or a gradient that is not finite, before it reaches the
        weights.
        """
        self.model.train()
        self._started = time.monotonic()
        if self.was_complete():
            return
        with self._signals:
            try:
                if self.reason:  # the snapshot was one of a longer run, and in mid-epoch
                    self._finish_update()
                with self._progress_bar() as bar:
                    for extension in self._at_first if not self.iteration else ():
                        extension(self)
                    while not (self.reason or self._signal):
                        self._run_epoch(bar)
            finally:
                with ExitStack() as all_of_them:  # whatever one raises
                    for extension, _ in reversed(self._extensions):
                        if hasattr(extension, "finish"):
                            all_of_them.callback(extension.finish)
            if self._signal:
                self._leave()

    def was_complete(self):
        """Whether the resumed run was complete and has nothing left to compute.

        Sets its `reason`.
        """
        self.reason = self.stop.reached(self)
        return bool(self.reason) and (self.is_new_epoch or self._has_ended)

    def _run_epoch(self, bar):
        """Updates from `position` to the epoch's end, or until there is a reason to stop."""
        began = time.monotonic()
        for batch in training_batches(self.dataset, self.batchsize, seed=self.seed,
                                      epoch=self.epoch, position=self.position, **self.loading):
            self.update(batch)
            self.interval.seconds += time.monotonic() - began
            self.position += self.batchsize
            self.is_new_epoch = self.position >= len(self.dataset)
            if self.is_new_epoch:
                self.epoch, self.position = self.epoch + 1, 0
            self._call_extensions()
            signals, = distributed.all_reduce_sum(bool(self._signals.number))
            if signals:  # whichever process was sent one: all end after the same update
                self._signal = self._signals.number or signal.SIGTERM
            bar.update()
            bar.set_postfix_str(self._postfix(bar), refresh=False)
            self.reason = self.stop.reached(self)
            self._finish_update()
            if self.is_ending:
                return
            began = time.monotonic()

    def _finish_update(self):
        """Validate and log the end of a run that is complete, then call the final extension."""
        self.is_ending = bool(self.reason or self._signal)
        if self.reason and not self.is_new_epoch:
            self._call_extensions()
        if self._final:
            self._final(self)

    def update(self, batch):
        """One step of the optimizer on a batch, of which `batch` is this process's share."""
        torch.manual_seed(distributed.rank_seed(self.seed, self.iteration))
        targets, samples = distributed.all_reduce_sum(likelihood.count_targets(batch),
                                                      self.samples(batch))
        factor = learning_rate_factor(self.schedule, self.done)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        self.optimizer.zero_grad(set_to_none=True)
        with likelihood.matmul_precision(self.model, self.precision):
            loss = likelihood.nll(self._parallel, batch.to(self.device), "sum") / targets
            # Of the processes' gradients the mean is taken, but the batch's loss is their sum.
            (loss * distributed.world_size()).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        value, norm = torch.stack((loss.detach(), norm)).tolist()
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

    def state(self):
        """All that is needed to go on, tensors and plain values, beside the weights `eval_model`.

        Of a run that averages its weights, those that it was about to move are in here too.
        """
        return {"iteration": self.iteration, "epoch": self.epoch, "position": self.position,
                "items": len(self.dataset), "seed": self.seed, "elapsed_time": self.elapsed_time,
                "interval": asdict(self.interval), "log": self.log,
                "optimizer": self.optimizer.state_dict(),
                "optimizer_name": type(self.optimizer).__name__,
                "has_ended": self.reason is not None,
                **({"weights": self.model.state_dict()} if self._average else {}),
                "extensions": {type(extension).__name__: extension.state()
                               for extension, _ in self._extensions
                               if hasattr(extension, "state")}}

    def restore(self, state):
        """Take up the run that `state` is of; the model has the weights `eval_model` there.

        Hyper-parameters of the optimizer stay those of this run, not of the earlier one.
        Raises UserError if the data is not as large as it was, or the optimizer another one.
        """
        if state["items"] != len(self.dataset):
            raise UserError(f"--resume: the snapshot's run had {state['items']} items to train on, "
                            f"this one has {len(self.dataset)}; give the same data, or begin anew")
        names = state.get("optimizer_name", "Adam"), type(self.optimizer).__name__
        if names[0] != names[1]:
            raise UserError(f"--resume: the snapshot's run had the optimizer {names[0]}, this one "
                            f"has {names[1]}; give the same --optimizer, or begin anew")
        for name in ("iteration", "epoch", "position", "seed"):
            setattr(self, name, state[name])
        self._earlier_seconds = state["elapsed_time"]
        self.interval, self.log = Interval(**state["interval"]), list(state["log"])
        self.resumed_at = self.iteration
        self.is_new_epoch = self.position == 0
        self._has_ended = state.get("has_ended", False)  # earlier snapshots don't say
        ours = [{name: value for name, value in group.items() if name != "params"}
                for group in self.optimizer.param_groups]
        # Before it is loaded: they say on which device an optimizer counts its steps.
        groups = [theirs | own for theirs, own in
                  zip(state["optimizer"]["param_groups"], ours, strict=True)]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if self._average:
            self._average.module.load_state_dict(self.model.state_dict())
            self._average.n_averaged.fill_(self.iteration)
        if "weights" in state:
            self.model.load_state_dict(state["weights"])
        for extension, _ in self._extensions:
            name = type(extension).__name__
            if name in state["extensions"]:
                extension.restore(state["extensions"][name])

    def _call_extensions(self):
        for extension, trigger in self._extensions:
            n, unit = trigger or (0, "final")
            if (self.is_ending and trigger
                    or unit in ("iteration", "both") and self.iteration % n == 0
                    or unit == "epoch" and self.is_new_epoch and self.epoch % n == 0
                    or unit == "both" and self.is_new_epoch):
                extension(self)

    @property
    def done(self):
        """The part of the run that the next update will be in, from 0 to 1."""
        return (self.iteration + 0.5) / self.length if self.length else 0.0

    @property
    def length(self):
        """The updates of the whole run, unless the loss ends it before; None if unknown."""
        return self.stop.updates(an_epoch=-(-len(self.dataset) // self.batchsize))

    def _progress_bar(self):
        return tqdm(total=self.length, initial=self.iteration, unit="it", dynamic_ncols=True,
                    disable=distributed.is_bar_disabled())

    def _postfix(self, bar):
        if bar.disable or not self.interval.seconds:
            return ""
        speed = self.interval.samples / self.interval.seconds
        return f"{self.observation['main/bits/dim']:.3f} bits/dim, {speed:,.0f} {self.unit}/s"

    def _leave(self):
        distributed.barrier()
        if self._final:
            print(f"stopped at iteration {self.iteration}; go on with --resume auto",
                  file=sys.stderr)
        sys.exit(128 + self._signal)
