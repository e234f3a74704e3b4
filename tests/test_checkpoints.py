"""Which snapshots stay, when they are written, and what happens when they can't be."""

import errno
import os
import re
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch
from forks import PIXELCNN, difference, forked, snapshot_in
from test_optimization import trainer_of

from cli.arguments import every
from common.errors import UserError
from common.moments import Every
from common.run_files import numbered_files
from models import model_file
from training.extensions.log_report import LogReport
from training.extensions.snapshots import Snapshot
from training.stopping import StopCondition
from training.trainer import Trainer


def iterations(folder):
    return [int(path.name.rpartition("_")[2])
            for path in numbered_files(folder, "snapshot_iter")]


def go_on(extension, until, since=0, epoch=10 ** 9, seconds=0.0):
    """Call a `Snapshot` after the updates since … until, each of so many `seconds`."""
    seen = []
    for iteration in range(since + 1, until + 1):
        extension(SimpleNamespace(iteration=iteration, elapsed_time=iteration * seconds,
                                  is_new_epoch=iteration % epoch == 0, is_ending=False,
                                  state_dict=lambda: {"extensions": extension.state_dict()}))
        extension.finalize()
        seen.append(iterations(extension.out))
    return seen


def resumed_from(folder, iteration, *args, **options):
    """A `Snapshot` that has taken up what one of its snapshots says."""
    content = torch.load(folder / f"snapshot_iter_{iteration}", weights_only=True)
    extension = Snapshot(folder, dict, *args, **options)
    extension.load_state_dict(content["run"]["extensions"])
    return extension


def test_counts_that_several_processes_wrote_as_floats_are_read(tmp_path):
    trainer = trainer_of(StopCondition(iterations=3))
    trainer.run()
    run = trainer.state_dict()
    assert (run["interval"]["targets"], type(run["interval"]["targets"])) == (3 * 4 * 36, int)
    run["interval"] |= {"targets": 432.0, "samples": 12.0}
    model_file.save(tmp_path / "snapshot_iter_3", {
        **model_file.model_content("pixelcnn", trainer.model, ["a", "b"],
                            {"levels": 2, "channels": 1, "height": 6, "width": 6}), "run": run})
    resumed = trainer_of(StopCondition(iterations=5))
    resumed.load_state_dict(model_file.read(tmp_path / "snapshot_iter_3", "pixelcnn")["run"])
    resumed.run()
    assert resumed.interval.targets == 5 * 4 * 36


# ------------------------------------------------------------------------------ which stay

def test_the_latest_snapshots_stay_epoch_ends_included(tmp_path):
    seen = go_on(Snapshot(tmp_path, dict, Every(4), kept=2), 16, epoch=6)
    assert seen[3] == [4] and seen[5] == [4, 6] and seen[9] == [6, 10]
    assert seen[11] == [10, 12] and seen[-1] == [12, 16]


def test_keep_every_snapshots_are_never_deleted(tmp_path):
    go_on(Snapshot(tmp_path, dict, Every(2), kept=1, keep_every=Every(5)), 21)
    # At once and not only when another is due; of the others, after 7, 9, 12, 14, 17, 19, the last.
    assert iterations(tmp_path) == [5, 10, 15, 19, 20]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_resumption_does_not_change_which_snapshots_stay(tmp_path, cut):
    options = dict(every=Every(2), kept=2, keep_every=Every(5))
    (tmp_path / "whole").mkdir(), (tmp_path / "cut").mkdir()
    go_on(Snapshot(tmp_path / "whole", dict, **options), 23)
    go_on(Snapshot(tmp_path / "cut", dict, **options), cut)
    newest = max(iterations(tmp_path / "cut"), default=None)
    if newest is None:
        assert cut == 1
        return
    go_on(resumed_from(tmp_path / "cut", newest, **options), 23, since=newest)
    assert iterations(tmp_path / "cut") == iterations(tmp_path / "whole")
    assert {5, 10, 15, 20} <= set(iterations(tmp_path / "cut"))


def test_snapshots_kept_forever_stay_whatever_the_resumed_flags(tmp_path):
    go_on(Snapshot(tmp_path, dict, Every(1), kept=1, keep_every=Every(4)), 9)
    assert iterations(tmp_path) == [4, 8, 9]
    go_on(resumed_from(tmp_path, 9, Every(1), kept=2), 14, since=9)
    assert iterations(tmp_path) == [4, 8, 13, 14]


def test_a_resumption_can_keep_fewer_snapshots(tmp_path):
    go_on(Snapshot(tmp_path, dict, Every(1), kept=5), 7)
    go_on(resumed_from(tmp_path, 7, Every(1), kept=2), 8, since=7)
    assert iterations(tmp_path) == [7, 8]


# ------------------------------------------------------------------------------ when

@pytest.mark.parametrize("text, number, in_seconds", [
    ("7", 7, False), ("30s", 30, True), ("10m", 600, True), ("2h", 7200, True)])
def test_an_interval_in_updates_or_time_is_read_as_it_was_written(text, number, in_seconds):
    assert every(text) == Every(number, in_seconds) == every(str(every(text)))


def test_snapshots_by_the_clock(tmp_path):
    seen = go_on(Snapshot(tmp_path, dict, every("30s"), kept=9), 12, seconds=8.0)
    assert seen[2] == [] and seen[-1] == [4, 8, 12]  # 32, 64 and 96 s
    extension = resumed_from(tmp_path, 8, every("30s"), kept=9)
    shutil.rmtree(tmp_path), tmp_path.mkdir()
    assert go_on(extension, 12, since=8, seconds=8.0)[-1] == [12]


def test_snapshots_by_the_clock_of_a_resumed_run(monkeypatch, tmp_path):
    now = 0.0
    monkeypatch.setattr(Trainer, "elapsed_time", property(lambda trainer: now))

    def tick(trainer):
        nonlocal now
        now += 20

    def run(stop):
        trainer = trainer_of(stop)
        trainer.extend(tick, (1, "iteration"))
        trainer.extend(Snapshot(tmp_path, lambda: {}, every("1m"), kept=2,
                                keep_every=every("4m")), (1, "iteration"))
        return trainer

    run(StopCondition(epoch=1)).run()  # 6 updates
    assert iterations(tmp_path) == [3, 6]
    second = run(StopCondition(epoch=4))
    second.load_state_dict(snapshot_in(tmp_path, 6)["run"])
    second.run()
    assert iterations(tmp_path) == [12, 18, 21, 24]  # those of 240 and 480 s, and the last two


# ------------------------------------------------------------------------------ beside training

def test_training_continues_while_a_snapshot_is_written(monkeypatch, tmp_path):
    trainer, later, save = trainer_of(StopCondition(epoch=2)), threading.Event(), model_file.save
    weights = {}

    def slow(path, content):
        if path.name == "snapshot_iter_6":
            assert later.wait(60), "the training waits for the snapshot"
        save(path, content)

    def look(trainer):
        weights[trainer.iteration] = model_file.copy_to_cpu(trainer.state_dict()["optimizer"])
        if trainer.iteration == 10:
            later.set()

    monkeypatch.setattr(model_file, "save", slow)
    trainer.extend(LogReport(tmp_path), (2, "iteration"))
    trainer.extend(look, (1, "iteration"))
    trainer.extend(Snapshot(tmp_path, dict, Every(5), kept=9), (1, "iteration"))
    trainer.run()
    assert iterations(tmp_path) == [5, 6, 11, 12]  # the last is there when the run is complete
    # It is of its moment, although the training had gone on when it was written.
    early = snapshot_in(tmp_path, 6)["run"]
    assert early["iteration"] == 6 and len(early["log"]) == 3
    assert difference(early["optimizer"], weights[6]) == ""
    assert difference(early["optimizer"], weights[10]) != ""


def test_a_failed_write_is_raised_and_earlier_snapshots_stay(
        monkeypatch, tmp_path):
    extension = Snapshot(tmp_path, dict, Every(1), kept=2)
    go_on(extension, 3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="snapshot_iter_4.*No space left.*make room"):
        go_on(extension, 4, since=3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("what", ["full", "gone"])
def test_a_run_whose_folder_fails_ends_with_one_line(world, tmp_path, what):
    out = tmp_path / "out"

    def prepare():
        save = model_file.save

        def failing(path, content):
            if path.name == "snapshot_iter_12" and what == "gone":
                out.rename(tmp_path / "elsewhere")
            elif path.name == "snapshot_iter_12":
                def full(*_):
                    raise OSError(errno.ENOSPC, "No space left on device")

                os.fsync = full
            save(path, content)

        model_file.save = failing

    ended = forked(f"{PIXELCNN} --snapshot_every 4 -o {out}", world, prepare, code=2)
    lines = ended.err.splitlines()
    assert len(lines) == 1
    assert re.match(rf"error: {out}.*(choose another folder|make room)", lines[0]), lines
    if what == "gone":
        (tmp_path / "elsewhere").rename(out)
    assert iterations(out) == [4, 8]
    assert "going on from" in forked(f"{PIXELCNN} -o {out} --resume auto", world).err
