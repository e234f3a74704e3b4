"""How a run is set up. The fields are the flags of the training scripts, see their --help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.moments import Every


@dataclass(frozen=True)
class RunSettings:
    """Where a run takes place, and what it begins with.

    out: the run's folder. gpu: a CUDA device, -1 for the CPU. seed: None means the resumed run's,
    or 0. resume: "" for a new run, a snapshot, a folder for its newest snapshot, or "auto" for the
    newest in `out`, if there is one. init_from: a model to take the weights of. start_label:
    "NEW=OLD" for labels that begin as another label of that model.
    """

    out: str = "."
    gpu: int = -1
    seed: int | None = None
    resume: str = ""
    init_from: str | None = None
    start_label: Sequence[str] = ()


@dataclass(frozen=True)
class TrainingSettings:
    """How a network learns, when it stops, and what the run leaves in its folder.

    epoch, iterations, target_loss: when to stop, whichever comes first; None for never. clip: of
    the gradient's L2 norm. ema: how much of the weights' moving average an update keeps, None for
    no average. precision: fp32, tf32 or bf16, of matrix products in training. workers: processes
    that read data ahead. stats: log statistics of weights and gradients. snapshot_every,
    snapshots_kept, keep_every: see `training.extensions.snapshots.Snapshot`. sample_every: draw
    samples that often, None for never.
    """

    batchsize: int
    clip: float = 1.0
    epoch: int | None = None
    iterations: int | None = None
    target_loss: float | None = None
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "constant"
    ema: float | None = None
    dropout: float = 0.0
    precision: str = "fp32"
    workers: int = 0
    stats: bool = False
    snapshot_every: Every = Every(1000)
    snapshots_kept: int = 3
    keep_every: Every | None = None
    sample_every: Every | None = None


def flag_hint(name: str, value: object) -> str | None:
    """How to ask for a network whose configuration has `name` as `value`.

    None where a flag of the same name takes the value.
    """
    if name != "position":
        return None
    return "leave out --no_position" if value else "give --no_position"
