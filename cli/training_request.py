"""What the flags of a training script ask for, as typed settings. Does not import torch."""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import UserError
from training.settings import RunSettings, TrainingSettings

NOT_RECORDED = ("resume", "config")  # flags that config.json does not record


def run_settings(args: argparse.Namespace) -> RunSettings:
    """Where the run takes place, and what it begins with."""
    return RunSettings(out=args.out, gpu=args.gpu, seed=args.seed, resume=args.resume,
                       init_from=args.init_from, start_label=tuple(args.start_label))


def training_settings(args: argparse.Namespace, clip: float) -> TrainingSettings:
    """How the network learns, when it stops, and what the run leaves in its folder.

    clip: of the gradient's norm; the scripts have different flags for it.
    """
    return TrainingSettings(
        batchsize=args.batchsize, clip=clip, epoch=args.epoch, iterations=args.iterations,
        target_loss=args.target_loss, optimizer=args.optimizer, learning_rate=args.learning_rate,
        weight_decay=args.weight_decay, schedule=args.schedule, ema=args.ema,
        dropout=args.dropout, precision=args.precision, workers=args.workers, stats=args.stats,
        snapshot_every=args.snapshot_every, snapshots_kept=args.snapshots_kept,
        keep_every=args.keep_every, sample_every=args.sample_every)


def distribution_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a network's configuration that --distribution and --mixtures set."""
    is_mixture = args.distribution == "logistics"
    return {"distribution": args.distribution, "mixtures": args.mixtures if is_mixture else 0}


def recorded_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that config.json records, by their names."""
    return {name: value for name, value in vars(args).items() if name not in NOT_RECORDED}


@contextmanager
def parameters_as_flags(*names: str) -> Iterator[None]:
    """In its context a ValueError about parameters becomes a UserError about flags.

    names: of parameters whose flags have the same name: "hidden_dim 0: …" becomes
    "--hidden_dim 0: …".
    """
    try:
        yield
    except ValueError as error:
        pattern = rf"(?<![\w-])({'|'.join(names)})(?= -?\d)"
        raise UserError(re.sub(pattern, r"--\1", str(error))) from None
