"""What both training scripts do the same: check the flags, open a run's folder, train, resume."""

import dataclasses
import json
import math
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import UserError
from common.files import atomic_write, make_folder, resolved
from common.run_files import numbered_files
from models import model_file
from training import allocator as memory
from training import distributed, transfer
from training.device import device_of, precision_on
from training.extensions import checkpoints, plots
from training.extensions import reports as extensions
from training.extensions.label_embeddings import LabelEmbeddings
from training.extensions.parameter_statistics import ParameterStatistics
from training.extensions.samples import Samples
from training.extensions.tensorboard import Board, TensorBoardReport
from training.optimization import optimizer_of
from training.stopping import StopCondition
from training.trainer import Trainer

NOT_SETTINGS = ("resume", "config")
TEST = "test/main"  # what the log calls the result on a test set


class Start(NamedTuple):
    """Where a run is to happen, and the snapshot that it goes on from.

    out: its folder. device: of torch. seed: of the weights and the data's order. path, content: of
    the snapshot, None to begin anew.
    """

    out: Path
    device: torch.device
    seed: int
    path: Path | None
    content: dict | None


def start(args, kind):
    """The `Start` that the flags ask for: what can be refused before any data is read, is."""
    out, device = make_folder(args.out, "--out"), device_of(args.gpu)
    if device.type == "cpu":
        memory.keep_freed()
    # Processes on other machines may not see the first one's files.
    path, content = distributed.broadcast_from_main(lambda: _snapshot_to_resume(args, kind))
    recorded = content["run"]["seed"] if content else None
    if content and args.seed not in (None, recorded):
        raise UserError(f"--seed {args.seed} contradicts {path}, which has seed {recorded}; leave "
                        f"the flag out")
    args.seed = recorded if content else args.seed or 0
    torch.manual_seed(args.seed)
    return Start(out, device, args.seed, path, content)


def _snapshot_to_resume(args, kind):
    """(path, content) of the snapshot that --resume means, (None, None) to begin anew.

    Of a folder, and with auto of --out, the newest that can be read; with auto, if any.
    """
    if not args.resume:
        return None, None
    auto = args.resume == "auto"
    folder = Path(args.out if auto else args.resume)
    if not folder.is_dir():
        return folder, _run_of(folder, kind)
    for path in reversed(numbered_files(folder, "snapshot_iter")):
        try:
            content = _run_of(path, kind)
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
            continue
        print(f"going on from {path}", file=sys.stderr)
        return path, content
    if not auto:
        raise UserError(f"--resume {folder}: holds no snapshot_iter_N that can be read; name "
                        f"another folder, or begin anew without --resume")
    print(f"--resume auto: no snapshot in {folder}, beginning anew", file=sys.stderr)
    return None, None


def _run_of(path, kind):
    content = model_file.read(path, kind)
    if "run" not in content:
        raise UserError(f"--resume {path}: is a model without its run; name a snapshot_iter_N")
    return content


def _set_aside(start, kind):
    """Move what another run left in the folder to `earlier_N` in it, lest two runs mix.

    Another run is any but that which is resumed; and of that, what came after its snapshot.
    """
    out = start.out
    left = numbered_files(out, "snapshot_iter") + numbered_files(out, kind)
    if start.path and resolved(start.path).parent == resolved(out):
        reached = start.content["run"]["iteration"]
        left = [path for path in left if int(path.name.rpartition("_")[2]) > reached]
    else:
        names = ("config.json", "log", "loss.png", "speed.png", "labels.png", "data.png",
                 "embeddings.png", "tensorboard")
        left += [out / name for name in names if (out / name).exists()]
        left += out.glob("samples/iteration_*")  # what else is there was not drawn in training
    if not left:
        return
    n = 1
    while (out / f"earlier_{n}").exists():
        n += 1
    for path in left:
        aside = out / f"earlier_{n}" / path.relative_to(out)
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, aside)
    print(f"{out}: what an earlier run left is in {out / f'earlier_{n}'} now", file=sys.stderr)


def _clear_up(out, kind):
    """Delete what a process that was killed had begun to write: it may be large, or many."""
    for begun in (".snapshot_iter_*.*", f".{kind}_*.*", "samples/.iteration_*.*"):
        for path in out.glob(begun):
            path.unlink(missing_ok=True)


def _weights_to_begin_from(args, kind, model, label_names):
    """What --init_from makes of the weights of `model`."""
    path = Path(args.init_from)
    if resolved(args.out) in (resolved(path), resolved(path).parent):
        raise UserError(f"--init_from {path}: is of the run in --out {args.out}, which is moved "
                        "aside; give another --out")
    said = transfer.init_from(args.init_from, kind, model, label_names, args.start_label)
    print(said, file=sys.stderr)
    return model.state_dict()


def _check_resumed(start, model, data, label_names):
    """Refuse to go on from a snapshot of another network or of other data."""
    content = start.content
    ours = model_file.model_content(content["kind"], model, label_names, data)
    # What networks did not have when the snapshot was written is as by default.
    defaults = {field.name: field.default for field in dataclasses.fields(model.config)}
    theirs = {"config": defaults | content["config"], "data": content["data"]}
    for part in theirs:
        for name, value in ours[part].items():
            there = theirs[part].get(name)
            if there != value:
                advice = transfer.flag_hint(name, there) or (
                    "give its flags and data, as with --config "
                    f"{start.path.parent / 'config.json'}")
                raise UserError(f"--resume: {start.path} has {name} {there}, this run {value}; "
                                f"{advice}")
    if content["label_names"] != ours["label_names"]:
        raise UserError(f"--resume: {start.path} has other labels than the data; give the same "
                        f"data, or begin anew")


def train(args, start, kind, model, *, training_set, validation_set, test_set=None, data,
          label_names, clip, draw, **trainer_options):
    """Train `model` as the flags say, until the run is complete.

    kind: pixelcnn or wavenet. validation_set: evaluated each epoch, or None. test_set: evaluated
    once, at the end, with the best model. data, label_names: what model files say of the data.
    clip: of the gradient's norm. draw: makes files of samples, see `Samples`.
    trainer_options: unit, samples and dimensions of the `Trainer`.
    """
    if start.content:
        _check_resumed(start, model, data, label_names)
        model.load_state_dict(start.content["weights"])
    elif args.init_from:
        model.load_state_dict(distributed.broadcast_from_main(
            lambda: _weights_to_begin_from(args, kind, model, label_names)))
    model.to(start.device).dropout = args.dropout
    trainer = Trainer(model, optimizer_of(args.optimizer, model.parameters(), args.learning_rate,
                                          args.weight_decay),
                      training_set, batchsize=args.batchsize, seed=start.seed, clip=clip,
                      device=start.device, schedule=args.schedule, ema=args.ema,
                      precision=precision_on(start.device, args.precision), workers=args.workers,
                      stop=StopCondition(args.epoch, args.iterations, args.target_loss),
                      **trainer_options)
    best, samples = _extend(trainer, args, start, validation_set, label_names, draw,
                            lambda: model_file.model_content(kind, trainer.eval_model,
                                                             label_names, data))
    if start.content:
        trainer.restore(start.content["run"])
        if trainer.was_complete() and (ending := _recorded_ending(trainer, start, test_set)):
            _report_ending(trainer, best, kind, ending)
            return
    distributed.barrier()  # whoever has refused to run has left the files as they were
    if distributed.is_main_process():
        _set_aside(start, kind)
        _clear_up(start.out, kind)
        best.bring_along()
        settings = {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS}
        with atomic_write(start.out / "config.json") as temporary:
            # In JSON, too, a backslash is how to write what is no character.
            temporary.write_text(json.dumps(settings, indent=1, ensure_ascii=False, default=str)
                                 + "\n", encoding="utf-8", errors="backslashreplace")
        plots.save(start.out / "data.png", plots.figure_of_data(
            trainer.unit, label_names, training_set, validation_set))

    size = sum(parameter.numel() for parameter in model.parameters())
    held_back = len(validation_set) if validation_set is not None else 0
    several = distributed.world_size()
    print(f"{size:,} parameters on {start.device}, {f'{several} processes of ' * (several > 1)}"
          f"{torch.get_num_threads()} threads; {len(training_set):,} items to train on, "
          f"{held_back:,} held back; writing to {os.path.join(start.out, '')}")
    trainer.run()
    if samples:
        samples.at_the_end(trainer)
    # Not in the last snapshot: a run that goes on from there has not been stopped.
    trainer.observation = {"stopped_by": trainer.reason}
    best_path = distributed.broadcast_from_main(lambda: best.path)
    if test_set is not None and best_path:
        trainer.eval_model.load_state_dict(distributed.broadcast_from_main(
            lambda: model_file.load(best_path, kind).model.state_dict()))
        extensions.Evaluator(test_set, args.batchsize, TEST)(trainer)
    extensions.LogReport(start.out)(trainer)
    _report_ending(trainer, best, kind, trainer.observation)


def _recorded_ending(trainer, start, test_set):
    """The last entry of the log if the run of `start` wrote there how it ended, else None.

    It is the last thing that a run writes: with it, nothing is left to do.
    """
    def read():
        if resolved(start.path).parent != resolved(start.out):
            return None
        try:
            entry = json.loads((start.out / "log").read_bytes())[-1]
            is_there = (entry["iteration"] == trainer.iteration
                        and entry["stopped_by"] == trainer.reason
                        and (test_set is None or math.isfinite(entry[f"{TEST}/nll"])))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return entry if is_there else None

    return distributed.broadcast_from_main(read)


def _report_ending(trainer, best, kind, ending):
    """Print why the run has ended, what the best model is, and its result on a test set."""
    path = distributed.broadcast_from_main(lambda: best.path)
    print(f"{trainer.reason}; the best model is {path or 'gone'}")
    if path:
        if f"{TEST}/nll" in ending:
            print(f"{extensions.in_words(ending, TEST)}, of {path.name}")
        print(f"next: python infer_{kind}.py -m {shlex.quote(str(path))}")


def _extend(trainer, args, start, validation_set, label_names, draw, describe):
    """The trainer's extensions, each with what it leaves in the run's folder.

    Returns that of the best model, and that of the samples, or None without --sample_every.
    """
    out, board = start.out, Board(start.out)
    # What another run's weights are like here, before they are moved.
    before_training = bool(args.init_from) and validation_set is not None
    if validation_set is not None:
        trainer.extend(extensions.Evaluator(validation_set, args.batchsize,
                                            label_names=label_names), all_ranks=True,
                       call_before_training=before_training)
    if args.stats:
        trainer.extend(ParameterStatistics(board))
    # log
    trainer.extend(extensions.LogReport(out), (100, "both"), before_training, all_ranks=True)
    # a line on the terminal
    trainer.extend(extensions.PrintReport(), call_before_training=before_training)
    # tensorboard/
    trainer.extend(TensorBoardReport(board), (100, "both"), before_training)
    trainer.extend(plots.PlotReport(out))  # loss.png, speed.png and labels.png
    if len(label_names) > 1:
        trainer.extend(LabelEmbeddings(out, board, label_names))  # embeddings.png
    samples = args.sample_every and Samples(out, board, draw, args.sample_every)
    if samples:
        trainer.extend(samples, (1, "iteration"))  # samples/
    best = checkpoints.BestModel(out, describe, origin=start.path and start.path.parent)
    trainer.extend(best)  # pixelcnn_N or wavenet_N, the best so far
    trainer.extend(checkpoints.Snapshot(out, describe, args.snapshot_every, args.snapshots_kept,
                                        args.keep_every),
                   final=True)  # snapshot_iter_N, to go on from
    return best, samples
