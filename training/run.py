"""What both training scripts do the same: open a run's folder, build, train, resume."""

import json
import os
import shutil
import sys

import torch

from datasets.errors import UserError
from datasets.files import make_folder, replacing
from training import extensions, snapshot
from training.device import device_of
from training.plots import PlotReport
from training.trainer import Stop, Trainer

NOT_SETTINGS = ("resume", "config")


def open_snapshot(args, kind):
    """The content of the snapshot that --resume names, or None to begin anew.

    With auto the newest of --out that can be read is taken, None if there is none.
    """
    if not args.resume:
        return None
    if args.resume != "auto":
        return _run_of(args.resume, kind)
    for path in reversed(snapshot.numbered(args.out, "snapshot_iter")):
        try:
            content = _run_of(path, kind)
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
            continue
        print(f"going on from {path}", file=sys.stderr)
        return content
    print(f"--resume auto: no snapshot in {args.out}, beginning anew", file=sys.stderr)
    return None


def _run_of(path, kind):
    content = snapshot.read(path, kind)
    if "run" not in content:
        raise UserError(f"--resume {path}: is a model without its run; name a snapshot_iter_N")
    return content


def open_folder(args, kind):
    """The run's folder --out, with config.json in it.

    What an earlier run left there is moved to a folder `earlier_N` inside, lest two runs mix,
    unless this one is resumed.
    """
    out = make_folder(args.out, "--out")
    if not args.resume:
        _set_aside(out, kind)
    settings = {name: value for name, value in vars(args).items() if name not in NOT_SETTINGS}
    with replacing(out / "config.json") as temporary:
        temporary.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    return out


def _set_aside(out, kind):
    names = ("config.json", "log", "loss.png", "speed.png", "tensorboard")
    left = [out / name for name in names if (out / name).exists()]
    left += snapshot.numbered(out, "snapshot_iter") + snapshot.numbered(out, kind)
    if (out / "log") not in left and len(left) < 2:
        return  # nothing but a config.json, say: no run
    n = 1
    while (out / f"earlier_{n}").exists():
        n += 1
    (out / f"earlier_{n}").mkdir()
    for path in left:
        shutil.move(path, out / f"earlier_{n}" / path.name)
    print(f"{out}: an earlier run's files are in {out / f'earlier_{n}'} now", file=sys.stderr)


def check_resumed(content, model, data, label_names):
    """Refuse to go on from a snapshot of another network or of other data."""
    ours = snapshot.describe(content["kind"], model, label_names, data)
    for part in ("config", "data"):
        for name, value in ours[part].items():
            if content[part].get(name) != value:
                raise UserError(f"--resume: the snapshot has {name} {content[part].get(name)}, "
                                f"this run {value}; give the same flags and data, or begin anew")
    if content["label_names"] != ours["label_names"]:
        raise UserError("--resume: the snapshot's labels are not those of the data; give the same "
                        "data, or begin anew")


def train(args, kind, model, *, training_set, validation_set, test_set=None, data, label_names,
          clip, resumed, **trainer_options):
    """Train `model` as the flags say, until the run is complete.

    kind: pixelcnn or wavenet. validation_set: evaluated each epoch, or None. test_set: evaluated
    once, at the end, with the best model. data, label_names: what model files say of the data.
    clip: of the gradient's norm. resumed: the snapshot's content, or None. trainer_options: unit,
    samples and dimensions of the `Trainer`.
    """
    device = device_of(args.gpu)
    if resumed:
        check_resumed(resumed, model, data, label_names)
        model.load_state_dict(resumed["weights"])
        recorded = resumed["run"]["seed"]
        if args.seed not in (None, recorded):
            raise UserError(f"--seed {args.seed} contradicts the snapshot, which has seed "
                            f"{recorded}; leave the flag out")
    out = open_folder(args, kind)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate,
                                 weight_decay=args.weight_decay, fused=True)
    trainer = Trainer(model, optimizer, training_set, batchsize=args.batchsize,
                      seed=args.seed or 0, clip=clip, device=device,
                      stop=Stop(args.epoch, args.iterations, args.target_loss), **trainer_options)

    def describe():
        return snapshot.describe(kind, model, label_names, data)

    if validation_set is not None:
        trainer.extend(extensions.Evaluator(validation_set, args.batchsize))
    if args.stats:
        trainer.extend(extensions.ParameterStatistics())
    trainer.extend(extensions.LogReport(out), (100, "log"))  # log
    trainer.extend(extensions.PrintReport())  # a line on the terminal
    trainer.extend(extensions.TensorBoardReport(out), (100, "log"))  # tensorboard/
    trainer.extend(PlotReport(out))  # loss.png and speed.png
    best = extensions.BestModel(out, describe)
    trainer.extend(best)  # pixelcnn_N or wavenet_N, the best so far
    trainer.extend(extensions.Snapshot(out, describe))  # snapshot_iter_N, to go on from
    if resumed:
        trainer.restore(resumed["run"])

    _print_start(out, model, training_set, validation_set, device)
    trainer.run()
    print(f"{trainer.reason}; the best model is {best.path}")
    if test_set is not None:
        _test(trainer, best.path, kind, test_set, args.batchsize, out)


def _print_start(out, model, training_set, validation_set, device):
    parameters = sum(parameter.numel() for parameter in model.parameters())
    held_back = 0 if validation_set is None else len(validation_set)
    print(f"{parameters:,} parameters on {device}, {torch.get_num_threads()} threads; "
          f"{len(training_set):,} items to train on, {held_back:,} held back; "
          f"writing to {out}{os.sep if str(out)[-1] != os.sep else ''}")


def _test(trainer, path, kind, test_set, batchsize, out):
    """The best model's likelihood of the test set, into the log."""
    trainer.model.load_state_dict(snapshot.load(path, kind).model.state_dict())
    trainer.observation = {}
    for extension in (extensions.Evaluator(test_set, batchsize, "test/main"),
                      extensions.LogReport(out), PlotReport(out)):
        extension(trainer)
    extensions.PrintReport()(trainer)
