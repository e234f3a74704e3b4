"""The learning curve shows a run's likelihoods, and its models' samples at the right hours."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image
from test_commands import write_mnist

import train_pixelcnn
from benchmarks import learning_curve
from common.errors import UserError


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run of three epochs that kept snapshots: its folder, beside its data."""
    folder = tmp_path_factory.mktemp("curve")
    write_mnist(folder / "MNIST/raw")
    before, sys.argv = sys.argv, [
        "train_pixelcnn.py", "--data", str(folder), "-o", str(folder / "run"), "-d", "4", "-n",
        "2", "-e", "3", "--keep_every", "1", "--levels", "4"]
    train_pixelcnn.main()
    sys.argv = before
    return folder / "run"


def run(monkeypatch, capsys, *flags):
    """Run the script; return the rows of its table: (hours, likelihood, recognised in %)."""
    monkeypatch.setattr(sys, "argv", ["learning_curve.py", *map(str, flags), "--threads", "1"])
    learning_curve.main()
    return [tuple(map(float, row)) for row in re.findall(
        r"^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+)% \|", capsys.readouterr().out, re.M)]


def test_each_kept_model_has_a_row(finished_run, tmp_path, monkeypatch, capsys):
    log = json.loads((finished_run / "log").read_text())
    kept = sorted(finished_run.glob("snapshot_iter_*"))
    rows = run(monkeypatch, capsys, "pixelcnn", "--run", finished_run, "--data",
               finished_run.parent, "-c", 2, "-o", tmp_path / "curve.png")
    assert len(rows) == len(kept) > 2
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    last = [entry for entry in log if "validation/main/nats" in entry][-1]
    assert rows[-1][1] == pytest.approx(last["validation/main/nats"], rel=1e-3)
    assert all(0 <= row[2] <= 100 for row in rows)
    assert Image.open(tmp_path / "curve.png").size == (880, 605)


def test_hours_are_those_of_the_log(finished_run):
    log = json.loads((finished_run / "log").read_text())
    hours = {path.name: hours
             for hours, path in learning_curve.models_of(finished_run, "pixelcnn", log)}
    for entry in log:
        name = f"snapshot_iter_{entry['iteration']}"
        if name in hours and "validation/main/nats" in entry:
            assert hours[name] == pytest.approx(entry["elapsed_time"] / 3600)


def test_four_models_are_shown_the_first_and_the_last_among_them():
    points = [learning_curve.Point(hours, 0, None) for hours in range(9)]
    assert [point.hours for point in learning_curve.shown(points)] == [0, 3, 5, 8]
    assert learning_curve.shown(points[:2]) == points[:2]


def test_a_folder_without_a_run_is_refused(tmp_path, finished_run, monkeypatch, capsys):
    flags = "--data", tmp_path, "-o", tmp_path / "curve.png"
    with pytest.raises(UserError, match="is the folder of a run"):
        run(monkeypatch, capsys, "pixelcnn", "--run", tmp_path, *flags)
    (tmp_path / "log").write_text("[]")
    with pytest.raises(UserError, match="no likelihood"):
        run(monkeypatch, capsys, "pixelcnn", "--run", tmp_path, *flags)
    (tmp_path / "log").write_bytes((finished_run / "log").read_bytes())
    with pytest.raises(UserError, match="has no snapshots"):
        run(monkeypatch, capsys, "pixelcnn", "--run", tmp_path, *flags)


def test_a_montage_has_a_sample_of_each_class():
    pictures = [np.full((2, 3), value) for value in (0.1, 0.1, 0.2, 0.3)]
    items = learning_curve.Items(np.zeros((4, 1)), ["a", "a", "b", "c"], pictures.__getitem__)
    picture = learning_curve.montage(items)
    assert picture.shape == (4, 6)
    assert np.unique(picture).tolist() == [0, 0.1, 0.2, 0.3]
