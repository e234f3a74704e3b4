"""Resuming a run: finding its snapshot, checking it, and setting another run's files aside."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import real_path, temporary_files
from common.run_files import SAMPLES, SNAPSHOT, TENSORBOARD, UNNUMBERED, numbered_files
from models import model_file
from training.settings import flag_hint
from training.task import Task

Content = dict[str, Any]  # of a snapshot


def find_snapshot(resume: str, out: str, kind: str) -> tuple[Path | None, Content | None]:
    """Return the path and content of the snapshot to resume from, (None, None) for a new run.

    resume, out: as in `training.settings.RunSettings`. In a folder it is the newest snapshot that
    can be read.
    """
    if not resume:
        return None, None
    is_auto = resume == "auto"
    folder = Path(out if is_auto else resume)
    if not folder.is_dir():
        return folder, _read_snapshot(folder, kind)
    for path in reversed(numbered_files(folder, SNAPSHOT)):
        try:
            content = _read_snapshot(path, kind)
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
            continue
        print(f"going on from {path}", file=sys.stderr)
        return path, content
    if not is_auto:
        raise UserError(f"--resume {folder}: holds no snapshot_iter_N that can be read; name "
                        f"another folder, or start a new run without --resume")
    print(f"--resume auto: no snapshot in {folder}, starting a new run", file=sys.stderr)
    return None, None


def _read_snapshot(path: Path, kind: str) -> Content:
    content = model_file.read(path, kind)
    if "run" not in content:
        raise UserError(f"--resume {path}: is a model without its run; name a snapshot_iter_N")
    return content


def check_same_task(path: Path, content: Content, task: Task) -> None:
    """Raise UserError if the snapshot is of another network or of other data than the task's."""
    ours = model_file.model_content(task.kind, task.model, task.label_names, task.data)
    # Settings that networks did not have when the snapshot was written have their defaults.
    defaults = {field.name: field.default for field in dataclasses.fields(task.model.config)}
    theirs = {"config": defaults | content["config"], "data": content["data"]}
    for section in theirs:
        for name, our_value in ours[section].items():
            their_value = theirs[section].get(name)
            if their_value != our_value:
                advice = flag_hint(name, their_value) or (
                    f"give its flags and data, as with --config {path.parent / 'config.json'}")
                raise UserError(f"--resume: {path} has {name} {their_value}, this run {our_value}; "
                                f"{advice}")
    if content["label_names"] != ours["label_names"]:
        raise UserError(f"--resume: {path} has other labels than the data; give the same data, or "
                        f"start a new run")


def set_aside(out: Path, kind: str, path: Path | None, content: Content | None) -> None:
    """Move another run's files in the folder `out` to `earlier_N` in it, so that runs don't mix.

    path, content: of the snapshot that is resumed. If it lies in `out`, only models and snapshots
    that were written after it are moved.
    """
    models = numbered_files(out, SNAPSHOT) + numbered_files(out, kind)
    if path and content and real_path(path).parent == real_path(out):
        resumed_at = content["run"]["iteration"]
        old = [model for model in models if int(model.name.rpartition("_")[2]) > resumed_at]
    else:
        old = models + [out / name for name in UNNUMBERED if (out / name).exists()]
        old += out.glob("samples/iteration_*")  # other files there were not drawn in training
    if not old:
        return
    n = 1
    while (out / f"earlier_{n}").exists():
        n += 1
    for file in old:
        new_path = out / f"earlier_{n}" / file.relative_to(out)
        new_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, new_path)
    print(f"{out}: what an earlier run left is in {out / f'earlier_{n}'} now", file=sys.stderr)


def delete_temporary_files(out: Path, kind: str) -> None:
    """Delete what a killed process had begun to write."""
    tensorboard = out / TENSORBOARD
    for folder, name in ((out, f"{SNAPSHOT}_*"), (out, f"{kind}_*"),
                         *((out, name) for name in UNNUMBERED),
                         (out / SAMPLES, "iteration_*.*"),
                         (tensorboard, "*.pbtxt"), (tensorboard / "labels", "*.tsv")):
        for path in temporary_files(folder, name):
            path.unlink(missing_ok=True)
