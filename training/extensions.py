"""What happens beside the updates: validation, the log, TensorBoard, models and snapshots."""

import json
import math
from pathlib import Path

import torch
from tqdm import tqdm

from datasets.batches import evaluation_batches
from datasets.files import replacing
from training import likelihood, snapshot


class Evaluator:
    """Reports the likelihood of a held-back dataset; `prefix` is validation/main or test/main."""

    def __init__(self, dataset, batchsize, prefix="validation/main"):
        self.dataset, self.batchsize, self.prefix = dataset, batchsize, prefix

    def __call__(self, trainer):
        batches = tqdm(evaluation_batches(self.dataset, self.batchsize), desc=self.prefix,
                       disable=None, leave=False, dynamic_ncols=True)
        mean = likelihood.evaluate(trainer.model, batches, trainer.device)
        trainer.observation |= likelihood.in_units(mean, self.prefix, trainer.dimensions)


class LogReport:
    """The run's `log`: a JSON list of dictionaries, the original study's keys.

    main/… are means over the updates since the entry before; samples_per_second is of the updates
    alone, elapsed_time of everything, in seconds, over resumptions. The first entry after one has
    "resumed_at", the iteration that the run went on from. Whatever else was observed since the
    last update, such as validation/main/nll at an epoch's end, is in the entry too.
    """

    def __init__(self, out):
        self.path = Path(out) / "log"

    def __call__(self, trainer):
        interval = trainer.interval
        if interval.targets:
            mean = likelihood.in_units(interval.nll / interval.targets, "main", trainer.dimensions)
            entry = {"epoch": trainer.epoch, "iteration": trainer.iteration,
                     **trainer.observation, **mean,
                     "samples_per_second": interval.samples / interval.seconds,
                     "elapsed_time": trainer.elapsed_time}
            if trainer.resumed_at is not None:
                entry["resumed_at"], trainer.resumed_at = trainer.resumed_at, None
            trainer.log.append(entry)
            trainer.interval = type(interval)()
        elif trainer.log:
            trainer.log[-1] |= trainer.observation
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(trainer.log, indent=1, allow_nan=False))


class PrintReport:
    """A line for each epoch on standard output: what the log says, for people."""

    def __call__(self, trainer):
        entry = trainer.log[-1]
        parts = [f"epoch {entry['epoch']}", f"iteration {entry['iteration']}"]
        for prefix in ("main", "validation/main", "test/main"):
            if f"{prefix}/nll" in entry:
                nats = f"{prefix}/nats"
                parts.append(f"{prefix} {entry[f'{prefix}/bits/dim']:.4f} bits/dim"
                             + (f" ({entry[nats]:.2f} nats)" if nats in entry else ""))
        parts += [f"{entry['samples_per_second']:,.0f} {trainer.unit}/s",
                  f"{entry['elapsed_time']:.0f} s"]
        tqdm.write("  ".join(parts))


class TensorBoardReport:
    """The log's new entries as scalars in the run's `tensorboard` folder."""

    def __init__(self, out):
        self.folder = Path(out) / "tensorboard"
        self.writer, self.written = None, 0

    def __call__(self, trainer):
        if self.writer is None:
            # Here, since it takes seconds to import.
            from torch.utils.tensorboard import SummaryWriter
            self.written = 0 if trainer.resumed_at is None else len(trainer.log)
            self.writer = SummaryWriter(self.folder, purge_step=trainer.iteration)
        for entry in trainer.log[self.written:]:
            for name, value in entry.items():
                if "/" in name or name == "samples_per_second":
                    self.writer.add_scalar(name, value, entry["iteration"])
        self.written = len(trainer.log)
        self.writer.flush()


class BestModel:
    """Keeps the model with the lowest validation/main/nll as `<kind>_<iteration>` in `out`.

    Where nothing is held back, main/nll of the log decides. An earlier best that this run wrote
    is removed once the better one is there.
    """

    def __init__(self, out, describe):
        self.out, self.describe = Path(out), describe
        self.nll, self.path = math.inf, None

    def __call__(self, trainer):
        observed = trainer.observation
        nll = observed.get("validation/main/nll", trainer.log[-1]["main/nll"])
        if nll >= self.nll:
            return
        content = self.describe()
        path = self.out / f"{content['kind']}_{trainer.iteration}"
        snapshot.save(path, content)
        if self.path and self.path != path:
            self.path.unlink(missing_ok=True)
        self.nll, self.path = nll, path

    def state(self):
        """The best so far: its nll in nats and its file's name."""
        return {"nll": self.nll, "file": self.path.name if self.path else None}

    def restore(self, state):
        """Take up the best so far; if its file is gone, the next model is the best anew."""
        path = self.out / state["file"] if state["file"] else None
        if path and path.exists():
            self.nll, self.path = state["nll"], path


class Snapshot:
    """Writes `snapshot_iter_<iteration>`: the model and all that is needed to go on.

    Of those that this process wrote the latest `kept` stay.
    """

    def __init__(self, out, describe, kept=3):
        self.out, self.describe, self.kept = Path(out), describe, kept
        self.written = []

    def __call__(self, trainer):
        path = self.out / f"snapshot_iter_{trainer.iteration}"
        if path in self.written:
            return
        snapshot.save(path, {**self.describe(), "run": trainer.state()})
        self.written.append(path)
        while len(self.written) > self.kept:
            self.written.pop(0).unlink(missing_ok=True)


class ParameterStatistics:
    """Statistics of each layer's weights and gradients, by the original study's keys.

    For each parameter <layer>/W or /b, and for both data and grad: min, max, mean, std, zeros (how
    many are exactly 0), percentile/0 … 6 (at -3σ … 3σ of a normal distribution); and
    <layer>/W/ratio, the log10 of the gradient's norm to the data's. The gradient is that of the
    last update, as clipped.
    """

    SIGMA_POINTS = (0.0013, 0.0228, 0.1587, 0.5, 0.8413, 0.9772, 0.9987)

    def __call__(self, trainer):
        for name, parameter in trainer.model.named_parameters():
            layer, _, kind = name.rpartition(".")
            key = f"{layer.replace('.', '/')}/{'b' if kind == 'bias' else 'W'}"
            data, grad = parameter.detach().float(), parameter.grad.float()
            for part, values in (("data", data), ("grad", grad)):
                trainer.observation |= {f"{key}/{part}/{statistic}": value for statistic, value
                                        in self._statistics(values.flatten()).items()}
            norms = grad.norm().item(), data.norm().item()
            if all(norms):
                trainer.observation[f"{key}/ratio"] = math.log10(norms[0] / norms[1])

    def _statistics(self, x):
        points = torch.quantile(x, x.new_tensor(self.SIGMA_POINTS)).tolist()
        return {"min": x.min().item(), "max": x.max().item(), "mean": x.mean().item(),
                "std": x.std(correction=0).item(), "zeros": int((x == 0).sum()),
                **{f"percentile/{i}": point for i, point in enumerate(points)}}
