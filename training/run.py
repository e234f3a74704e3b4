"""What both training scripts have in common: open the run's folder, train, resume, report."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.errors import UserError
from common.files import atomic_write, make_folder, real_path
from common.plots import save_figure
from models import model_file
from training import distributed, restart, transfer
from training.allocator import keep_freed_memory
from training.device import select_device, supported_precision
from training.extensions.best_model import BestModel
from training.extensions.evaluator import Evaluator
from training.extensions.label_embeddings import LabelEmbeddings
from training.extensions.log_report import LogReport
from training.extensions.parameter_statistics import ParameterStatistics
from training.extensions.plots import PlotReport, figure_of_data
from training.extensions.print_report import PrintReport, format_likelihood
from training.extensions.samples import Samples
from training.extensions.snapshots import Snapshot
from training.extensions.tensorboard import Board, TensorBoardReport
from training.initial_output import fit_output
from training.optimization import embedding_weights, make_optimizer
from training.resuming import (
    Content,
    check_same_task,
    delete_temporary_files,
    find_snapshot,
    set_aside,
)
from training.settings import RunSettings, TrainingSettings
from training.stopping import StopCondition
from training.task import Task
from training.trainer import Trainer

TEST = "test/main"  # the prefix of the result on a test set in the log


class Start(NamedTuple):
    """What a run begins with, checked before any data is read.

    out: its folder. device: of torch. seed: of the weights and the order of the data.
    snapshot_path, snapshot: what it resumes from; None for a new run.
    """

    settings: RunSettings
    out: Path
    device: torch.device
    seed: int
    snapshot_path: Path | None
    snapshot: Content | None


def start(settings: RunSettings, kind: str) -> Start:
    """Create the run's folder, select the device, find the snapshot, and seed torch.

    kind: pixelcnn or wavenet. Raises UserError for settings that can't be met.
    """
    out, device = make_folder(settings.out, "--out"), select_device(settings.gpu)
    if device.type == "cpu":
        keep_freed_memory()
    # Processes on other machines may not see the files of the main process.
    path, snapshot = distributed.broadcast_from_main(
        lambda: find_snapshot(settings.resume, settings.out, kind))
    seed = settings.seed or 0
    if snapshot:
        seed = snapshot["run"]["seed"]
        if settings.seed not in (None, seed):
            raise UserError(f"--seed {settings.seed} contradicts {path}, which has seed {seed}; "
                            f"leave the flag out")
    torch.manual_seed(seed)
    return Start(settings, out, device, seed, path, snapshot)


def train(start: Start, task: Task, settings: TrainingSettings, flags: Mapping[str, Any]) -> None:
    """Train the task's network until the run is complete.

    flags: what config.json records, by the flags' names; the seed is filled in.
    """
    _load_first_weights(start, task)
    task.model.to(start.device)
    task.model.dropout = settings.dropout
    trainer = _make_trainer(start, task, settings)
    best, samples = _extend(trainer, start, task, settings)
    if start.snapshot:
        trainer.load_state_dict(start.snapshot["run"])
        if trainer.was_complete():
            ending = _recorded_ending(trainer, start, task)
            if ending:
                _report_ending(trainer, best, task.kind, ending)
                return
    distributed.barrier()  # a process that refuses the snapshot leaves all files as they were
    if distributed.is_main_process():
        _prepare_folder(start, task, best, flags)
    _print_overview(start, task)
    trainer.run()
    if samples:
        samples.draw_at_end(trainer)
    # The last snapshot does not have this, because a longer run that resumes it goes on.
    trainer.observation = {"stopped_by": trainer.reason}
    best_path = distributed.broadcast_from_main(lambda: best.path)
    if task.test_set is not None and best_path:
        trainer.eval_model.load_state_dict(distributed.broadcast_from_main(
            lambda: model_file.load(best_path, task.kind).model.state_dict()))
        Evaluator(task.test_set, settings.batchsize, TEST)(trainer)
    LogReport(start.out, restart.count())(trainer)
    _report_ending(trainer, best, task.kind, trainer.observation)


def _load_first_weights(start: Start, task: Task) -> None:
    """Load the snapshot's weights, or those of --init_from."""
    init_from = start.settings.init_from
    if start.snapshot_path and start.snapshot:
        check_same_task(start.snapshot_path, start.snapshot, task)
        task.model.load_state_dict(start.snapshot["weights"])
    elif init_from:
        task.model.load_state_dict(distributed.broadcast_from_main(
            lambda: _transferred_weights(init_from, start.settings, task)))
    else:
        fit_output(task.model, task.training_set)


def _transferred_weights(init_from: str, settings: RunSettings, task: Task) -> dict[str, Any]:
    path = Path(init_from)
    if real_path(settings.out) in (real_path(path), real_path(path).parent):
        raise UserError(f"--init_from {path}: is of the run in --out {settings.out}, which is "
                        "moved aside; give another --out")
    summary = transfer.init_from(init_from, task.kind, task.model, task.label_names,
                                 settings.start_label, task.data.get("encoding"))
    print(summary, file=sys.stderr)
    return task.model.state_dict()


def _make_trainer(start: Start, task: Task, settings: TrainingSettings) -> Trainer:
    optimizer = make_optimizer(settings.optimizer, task.model.parameters(),
                               settings.learning_rate, settings.weight_decay,
                               embedding_weights(task.model))
    return Trainer(task.model, optimizer, task.training_set, batchsize=settings.batchsize,
                   seed=start.seed, clip=settings.clip, device=start.device,
                   stop=StopCondition(settings.epoch, settings.iterations, settings.target_loss),
                   samples=task.count_samples, unit=task.unit, dimensions=task.dimensions,
                   schedule=settings.schedule, ema=settings.ema,
                   precision=supported_precision(start.device, settings.precision),
                   workers=settings.workers)


def _extend(trainer: Trainer, start: Start, task: Task,
            settings: TrainingSettings) -> tuple[BestModel, Samples | None]:
    """Add the extensions, in the order in which they are called.

    Returns those of the best model and of the samples; None without `sample_every`.
    """
    out, board = start.out, Board(start.out)

    def describe() -> dict[str, Any]:
        return model_file.model_content(task.kind, trainer.eval_model, task.label_names, task.data,
                                        task.speech)

    # Shows how well another run's weights do on this data, before they change.
    before_training = bool(start.settings.init_from) and task.validation_set is not None
    if task.validation_set is not None:
        trainer.extend(Evaluator(task.validation_set, settings.batchsize,
                                 label_names=task.label_names),
                       call_before_training=before_training, all_ranks=True)
    if settings.stats:
        trainer.extend(ParameterStatistics(board))
    # log
    trainer.extend(LogReport(out, restart.count()), (100, "both"), before_training, all_ranks=True)
    # a line on the terminal
    trainer.extend(PrintReport(), call_before_training=before_training)
    # tensorboard/
    trainer.extend(TensorBoardReport(board), (100, "both"), before_training)
    # loss.png, speed.png and labels.png
    trainer.extend(PlotReport(out))
    # embeddings.png
    if len(task.label_names) > 1:
        trainer.extend(LabelEmbeddings(out, board, task.label_names))
    # samples/
    samples = None
    if settings.sample_every:
        samples = Samples(out, board, task.draw, settings.sample_every)
        trainer.extend(samples, (1, "iteration"))
    # pixelcnn_N or wavenet_N, the best model so far
    origin = start.snapshot_path.parent if start.snapshot_path else None
    best = BestModel(out, describe, origin)
    trainer.extend(best)
    # snapshot_iter_N, to resume from
    trainer.extend(Snapshot(out, describe, settings.snapshot_every, settings.snapshots_kept,
                            settings.keep_every), final=True)
    return best, samples


def _prepare_folder(start: Start, task: Task, best: BestModel, flags: Mapping[str, Any]) -> None:
    """Set another run's files aside, and write config.json and data.png."""
    set_aside(start.out, task.kind, start.snapshot_path, start.snapshot)
    delete_temporary_files(start.out, task.kind)
    best.copy_from_origin()
    with atomic_write(start.out / "config.json") as temporary:
        # A file's name may hold bytes that are no text: these are escaped, as JSON does.
        temporary.write_text(json.dumps({**flags, "seed": start.seed}, indent=1,
                                        ensure_ascii=False, default=str) + "\n",
                             encoding="utf-8", errors="backslashreplace")
    save_figure(start.out / "data.png", figure_of_data(
        task.unit, task.label_names, task.training_set, task.validation_set))


def _print_overview(start: Start, task: Task) -> None:
    """Print the size of the network and of the data, and where the run takes place."""
    size = sum(parameter.numel() for parameter in task.model.parameters())
    held_back = 0 if task.validation_set is None else len(task.validation_set)
    threads = f"{torch.get_num_threads()} threads"
    if distributed.world_size() > 1:
        threads = f"{distributed.world_size()} processes of {threads}"
    print(f"{size:,} parameters on {start.device}, {threads}; {len(task.training_set):,} items to "
          f"train on, {held_back:,} held back; writing to {os.path.join(start.out, '')}")


def _recorded_ending(trainer: Trainer, start: Start, task: Task) -> dict[str, Any] | None:
    """The last entry of the log, if the resumed run recorded there how it ended, else None.

    It is the last thing that a run writes: if it is there, nothing is left to do.
    """
    def read() -> dict[str, Any] | None:
        if not start.snapshot_path or real_path(start.snapshot_path).parent != real_path(start.out):
            return None
        try:
            entry = json.loads((start.out / "log").read_bytes())[-1]
            is_there = (entry["iteration"] == trainer.iteration
                        and entry["stopped_by"] == trainer.reason
                        and (task.test_set is None or math.isfinite(entry[f"{TEST}/nll"])))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return entry if is_there else None

    return distributed.broadcast_from_main(read)


def _report_ending(trainer: Trainer, best: BestModel, kind: str,
                   ending: Mapping[str, Any]) -> None:
    """Print why the run has ended, which model is the best, and its result on a test set."""
    path = distributed.broadcast_from_main(lambda: best.path)
    print(f"{trainer.reason}; the best model is {path or 'gone'}")
    if path:
        if f"{TEST}/nll" in ending:
            print(f"{format_likelihood(ending, TEST)}, of {path.name}")
        print(f"next: python infer_{kind}.py -m {shlex.quote(str(path))}")
