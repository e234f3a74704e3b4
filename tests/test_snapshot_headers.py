"""An impossible snapshot is refused in one line, and the run's folder stays as it is."""

import math
import shutil

import pytest
import torch
from crafted import DEEP, GONE, changed, doubled, files_of, flipped, write
from forks import PIXELCNN, WAVENET, forked, once, refused, snapshot_in

import train_pixelcnn
import train_wavenet
from models import model_file

HUGE, NAN = 10 ** 30, math.nan
BEST = "run.extensions.BestModel"
STATE = ("run", "optimizer", "state", 0)
GROUPS = "run.optimizer.param_groups"
CASES = [
    *((f"run.{name}", value, f"run.{name}" if value is not GONE else name)
      for name in ("iteration", "epoch", "position", "items", "seed")
      for value in (HUGE, -1, "8", 8.5, NAN, None, GONE)),
    ("run.iteration", 1, "iteration"), ("run.epoch", 10 ** 6, "epoch"),
    ("run.position", 10 ** 6, "position"), ("run.items", 0, "run.items"),
    *(("run.elapsed_time", value, "elapsed_time") for value in (NAN, math.inf, -1.0, "1", GONE)),
    ("run.interval", [], "run.interval"), ("run.interval.nll", "1", "run.interval.nll"),
    ("run.interval.seconds", NAN, "run.interval.seconds"), ("run.interval.more", 1, "more"),
    ("run.log", {}, "run.log"), ("run.log", [3], "run.log"), ("run.log", [{}], "iteration"),
    ("run.log", [{"iteration": 2}], "main/nll"), ("run.log", DEEP, "deep|run.log"),
    ("run.log", [{"iteration": 0, "a/b": "text"}], "a/b"),
    ("run.log", [{"iteration": 0, "validation/main/nll": NAN}], "log"),
    ("run.log", [{"iteration": 0, "validation/main/nll": [1]}], "log"),
    ("run.log", [{"iteration": 0, "x": HUGE}], "log"),
    ("run.log", [{"iteration": 0, "x\ud800": 1}], "Unicode"),
    ("run.log", [{"iteration": 10 ** 9, "main/nll": 1.0}], "iteration"),
    ("run.log", [{"iteration": n, "main/nll": 1.0} for n in (3, 2)], "log"),
    ("run.optimizer_name", "Adamax", "optimizer_name"), ("run.optimizer_name", 3, "optimizer_name"),
    ("run.optimizer_name", "SGD", "run.optimizer"),
    ("run.optimizer", GONE, "optimizer"), ("run.optimizer", {}, "run.optimizer"),
    ("run.optimizer.state", [], "run.optimizer.state"), ("run.optimizer.state", {}, "parameter"),
    (STATE, GONE, "parameter"), (STATE, 3, "run.optimizer.state"),
    ((*STATE[:3], -1), {}, "run.optimizer"), ((*STATE, "exp_avg"), torch.ones(3), "exp_avg"),
    ((*STATE, "exp_avg"), GONE, "exp_avg"), ((*STATE, "exp_avg_sq"), "text", "exp_avg_sq"),
    ((*STATE, "step"), "text", "step"), ((*STATE, "step"), torch.ones(2), "step"),
    ((*STATE, "step"), NAN, "step"), ((*STATE, "step"), 0, "step"),
    (GROUPS, [], GROUPS), (GROUPS, [{}], "params"), (GROUPS, [{"params": [0]}], "parameters"),
    (GROUPS, [{"params": "all"}], "params"), (GROUPS, [{"params": [0]}] * 2, GROUPS),
    ("run.weights", {}, "run.weights"), ("run.weights", [1], "run.weights"),
    ("run.weights", None, "run.weights"),
    ("run.extensions", [], "run.extensions"), ("run.extensions", GONE, "extensions"),
    (BEST, None, "BestModel"), (f"{BEST}.nll", NAN, "nll"), (f"{BEST}.nll", "low", "nll"),
    (f"{BEST}.compared", HUGE, "compared"), (f"{BEST}.compared", GONE, "compared"),
    *((f"{BEST}.file", name, "BestModel.file") for name in (
        "../victim.txt", "/etc/passwd", "victim.txt", "", ".", "..", "pixelcnn_1/../../victim.txt",
        "pixelcnn_1\n", "pixelcnn_", "pixelcnn_1x", "pixelcnn_¹", "snapshot_iter_8", 7,
        ["pixelcnn_1"], "pixelcnn_" + "1" * 300)),
    ("run.extensions.PrintReport.printed", "1", "printed"),
    ("run.extensions.PrintReport.printed", 10 ** 6, "iteration"),
    ("run.extensions.TensorBoardReport.entries", 10 ** 6, "entries"),
    ("run.extensions.TensorBoardReport.names", [1], "names"),
    ("run.extensions.Snapshot.last", [1], "last"),
    ("run.extensions.Snapshot.last", [1, NAN], "last"),
    ("run.extensions.Snapshot.removable", ["../victim.txt"], "removable"),
    ("run.extensions.Snapshot.removable", [-1], "removable"),
    ("run.extensions.Snapshot.removable", [10 ** 9], "iteration"),
    ("run.extensions.Samples", {"last": "12"}, "Samples.last"),
    ("run.extensions", doubled(), "run.extensions"), ("run", DEEP, "deep|run"),
    ("config.blocks_num", 10 ** 9, "blocks_num"), ("label_names", [1], "label_names"),
    ("data.height", "8", "data.height"), ("weights", {}, "weights")]
SCRIPTS = {"pixelcnn": (train_pixelcnn, PIXELCNN), "wavenet": (train_wavenet, WAVENET)}


@pytest.fixture(scope="module")
def run_of(world):
    """A function of a kind of network: the folder of a run of one epoch."""
    run = once(world, "short", "-e 1")
    return lambda kind: run(SCRIPTS[kind][1])


@pytest.fixture
def folder(run_of, tmp_path):
    """A function of a kind: a copy of the run's folder, and what is in its snapshot."""
    def copied(kind="pixelcnn"):
        shutil.copytree(run_of(kind), tmp_path / "run")
        return tmp_path / "run", snapshot_in(tmp_path / "run", 8)

    return copied


@pytest.mark.parametrize("kind", SCRIPTS)
def test_snapshots_of_runs_are_accepted(run_of, kind):
    assert model_file.read(run_of(kind) / "snapshot_iter_8", kind)["run"]["iteration"] == 8


@pytest.mark.parametrize("command", [
    f"{PIXELCNN} --optimizer sgd", f"{PIXELCNN} --optimizer muon", f"{WAVENET} --optimizer muon",
    f"{PIXELCNN} --optimizer rmsprop --ema 0.9",
    f"{WAVENET} --ema 0.9 --stats --sample_every 3 --keep_every 2"])
def test_snapshots_of_runs_with_other_flags_are_accepted(world, tmp_path, command):
    forked(f"{command} -o {tmp_path} --iterations 3 --snapshot_every 1", world)
    for number in (1, 3):
        path = tmp_path / f"snapshot_iter_{number}"
        assert model_file.read(path, command[6:].split(".")[0])["run"]


@pytest.mark.parametrize("place, value, named", CASES, ids=range(len(CASES)))
def test_impossible_snapshot_is_refused(call, folder, place, value, named):
    path, content = folder()
    write(path / "snapshot_iter_8", changed(content, place, value))
    before = files_of(path)
    code, out, err = call(train_pixelcnn, "--resume", path / "snapshot_iter_8", "-o", path)
    line, = err.splitlines()
    assert (code, out) == (2, "") and line.startswith(f"error: {path}/snapshot_iter_8: "), line
    assert any(word in line for word in named.split("|")) and len(line) < 600, line
    assert files_of(path) == before


def test_best_model_of_the_other_network_is_refused(call, folder):
    path, content = folder("wavenet")
    write(path / "snapshot_iter_8", changed(content, f"{BEST}.file", "pixelcnn_8"))
    code, _, err = call(train_wavenet, "--resume", path / "snapshot_iter_8", "-o", path)
    assert code == 2 and "BestModel.file: pixelcnn_8 is no wavenet" in err


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("name", ["../victim.txt", "{absolute}", "other/../../victim.txt"])
def test_no_file_outside_the_run_is_touched(world, folder, kind, name, tmp_path):
    path, content = folder(kind)
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (path / "other").mkdir()
    (path / "victim.txt").write_text("beside the snapshot")
    write(path / "snapshot_iter_8", changed(
        content, f"{BEST}.file", name.format(absolute=victim)))
    for out in (path, tmp_path / "new"):
        line = refused(f"{SCRIPTS[kind][1]} -e 2 --resume {path}/snapshot_iter_8 -o {out}", world)
        assert "BestModel.file" in line
    assert victim.read_text() == "precious" and not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("kind", SCRIPTS)
def test_resume_auto_skips_a_damaged_snapshot(world, tmp_path, kind):
    command = f"{SCRIPTS[kind][1]} -o {tmp_path} --snapshot_every 2"
    forked(f"{command} -e 1", world)
    flipped(tmp_path / "snapshot_iter_8", "data/3", offset=3)
    flipped(tmp_path / "snapshot_iter_6", "data.pkl")
    err = forked(f"{command} -e 2 --resume auto", world).err
    for number in (8, 6):
        assert f"passed over: {tmp_path}/snapshot_iter_{number}: damaged" in err
    assert f"going on from {tmp_path}/snapshot_iter_4" in err


def test_undamaged_snapshot_is_resumed_exactly(world, folder):
    path, content = folder()
    write(path / "snapshot_iter_8", {**content, "note": doubled()})
    forked(f"{PIXELCNN} -e 2 --resume auto -o {path}", world)
    assert snapshot_in(path, 16)["run"]["epoch"] == 2
