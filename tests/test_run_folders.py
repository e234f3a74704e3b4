"""A run's folder: what resuming uses, which files are set aside, and what is refused."""

import json

import pytest
import torch
from forks import forked

from models.model_file import load


@pytest.mark.parametrize("flags, added", [("", True), ("--no_position", False)])
def test_flags_select_the_network(world, tmp_path, flags, added):
    forked(f"train_pixelcnn.py -n 2 -d 4 --iterations 1 {flags} -o {tmp_path}", world)
    assert load(tmp_path, "pixelcnn").model.config.position == added
    other = "train_pixelcnn.py -n 2 -d 4 --iterations 2" + " --no_position" * (not flags)
    wanted = "give --no_position" if flags else "leave out --no_position"
    for begun in (f"{tmp_path} --resume auto", f"{tmp_path}/b --init_from {tmp_path}"):
        assert forked(f"{other} -o {begun}", world, code=2).err.rstrip().endswith(wanted)


def test_a_second_run_in_the_same_folder_sets_the_first_aside(world, tmp_path):
    flags = "train_pixelcnn.py -d 6 -n 1 --iterations 1"
    forked(f"{flags} -o {tmp_path}", world)
    done = forked(f"{flags} -o {tmp_path}", world)
    assert "earlier_1" in done.err
    assert (tmp_path / "earlier_1/pixelcnn_1").exists() and (tmp_path / "pixelcnn_1").exists()


def test_resume_auto_skips_a_damaged_newest_snapshot(world, tmp_path):
    flags = f"train_pixelcnn.py -d 6 -n 1 -b 20 -o {tmp_path}"
    forked(f"{flags} -e 2", world)
    (tmp_path / "snapshot_iter_99").write_bytes(b"half a snapshot")
    done = forked(f"{flags} -e 3 --resume auto", world)
    assert "snapshot_iter_99" in done.err and "going on from" in done.err
    assert "snapshot_iter_4" in done.err and (tmp_path / "snapshot_iter_6").exists()


def test_resuming_uses_the_recorded_seed_and_binarisation(world, tmp_path):
    flags = "train_pixelcnn.py --binarize sampled -d 6 -n 1 -b 10"
    forked(f"{flags} --seed 5 -e 3 -o {tmp_path}/whole", world)
    forked(f"{flags} --seed 5 -e 1 -o {tmp_path}/cut", world)
    forked(f"{flags} -e 3 -o {tmp_path}/cut --resume auto", world)
    whole, cut = (torch.load(tmp_path / name / "snapshot_iter_12", weights_only=True)
                  for name in ("whole", "cut"))
    assert all(torch.equal(whole["weights"][name], cut["weights"][name])
               for name in whole["weights"])
    assert json.loads((tmp_path / "cut/config.json").read_text())["seed"] == 5


def test_files_of_two_runs_are_never_mixed(world, tmp_path):
    flags = "train_pixelcnn.py -d 6 -n 1 -b 20"
    a, b = tmp_path / "a", tmp_path / "b"
    forked(f"{flags} -e 3 -o {a}", world)
    forked(f"{flags} -e 1 -o {b} --seed 1", world)
    # In another folder: what was there goes aside, and the best model so far comes along.
    forked(f"{flags} -e 4 -o {b} --resume {a}/snapshot_iter_4", world)
    assert (b / "earlier_1/snapshot_iter_2").exists() and (b / "earlier_1/log").exists()
    assert len(list(b.glob("pixelcnn_*"))) == 1
    assert [entry["epoch"] for entry in json.loads((b / "log").read_text())] == [1, 2, 3, 4]
    # Even if there a model of the same name was the best, and nothing better is found any more.
    best, = b.glob("pixelcnn_*")
    c = tmp_path / "c"
    for flag in ("--seed 2", f"--resume {b}"):
        forked(f"{flags} -e 4 -o {c} {flag}", world)
    assert (c / best.name).read_bytes() == best.read_bytes()
    other = c / "earlier_1" / best.name
    assert not other.exists() or other.read_bytes() != best.read_bytes()
    d = tmp_path / "d"
    assert "earlier" not in forked(f"{flags} -e 4 -o {d} --resume {b}", world).err
    assert (d / best.name).read_bytes() == best.read_bytes()
    # From an earlier snapshot of the same folder: what came after it goes aside.
    forked(f"{flags} -e 2 -o {a} --resume {a}/snapshot_iter_2", world)
    assert sorted(path.name for path in a.glob("snapshot_iter_*")) == [
        "snapshot_iter_2", "snapshot_iter_4"]
    assert (a / "earlier_1/snapshot_iter_6").exists()
    # With nothing to resume, auto begins anew, and not on top of another run.
    for path in a.glob("snapshot_iter_*"):
        path.unlink()
    forked(f"{flags} -e 1 -o {a} --resume auto", world)
    assert (a / "earlier_2/log").exists() and len(json.loads((a / "log").read_text())) == 1
