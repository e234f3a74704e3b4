"""What the log says about the start of a run with --init_from, and about why a run ended."""

import json

import numpy as np
import pytest
from forks import PIXELCNN, UPDATES, WAVENET, difference, forked, snapshot_in
from test_resume import check_killed, in_update

BOTH = pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])


def log_of(folder):
    return json.loads((folder / "log").read_text())


@pytest.mark.parametrize("flags, why", [
    ("-e 1", "--epoch 1 reached"), ("--iterations 3", "--iterations 3 reached"),
    ("--target_loss 9", "--target_loss 9.0 reached: main/nll is ")])
def test_the_log_ends_with_the_reason_until_the_run_continues(world, tmp_path, flags, why):
    done = forked(f"{PIXELCNN} {flags} -o {tmp_path}", world)
    first = log_of(tmp_path)
    assert first[-1]["stopped_by"].startswith(why)
    assert f"{first[-1]['stopped_by']}; the best model is" in done.out
    forked(f"{PIXELCNN} -e 2 -o {tmp_path} --resume auto", world)
    *before, last = log_of(tmp_path)
    assert last["stopped_by"] == "--epoch 2 reached"
    assert not any("stopped_by" in entry for entry in before)


def test_a_complete_run_that_is_resumed_prints_its_reason_again(world, tmp_path):
    for _ in range(2):
        forked(f"{PIXELCNN} -e 1 -o {tmp_path} --resume auto", world)
        (entry, ) = log_of(tmp_path)
        assert entry["stopped_by"] == "--epoch 1 reached"


@BOTH
def test_a_run_with_init_from_first_validates_the_weights(world, tmp_path, command):
    forked(f"{command} -e 1 --learning_rate 1e-2 -o {tmp_path}/first", world)
    ending = log_of(tmp_path / "first")[-1]
    # At such a rate pictures get worse, but the best of this run is still one that it has trained.
    done = forked(f"{command} --init_from {tmp_path}/first --learning_rate 3 -o {tmp_path}/second",
                  world)
    log = log_of(tmp_path / "second")
    assert [entry["iteration"] for entry in log] == [0, 8, 16, UPDATES]
    validation = {name: value for name, value in ending.items() if name.startswith("validation/")}
    assert difference(log[0], {"epoch": 0, "iteration": 0, **validation}) == ""
    nll = [entry["validation/main/nll"] for entry in log]
    assert command == WAVENET or nll[0] < min(nll[1:])
    assert f"_{8 * (1 + np.argmin(nll[1:]))}\n" in done.out
    assert done.out.splitlines()[1].startswith("before the first update  validation/main ")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / "second/tensorboard")).Reload()
    steps = {name: [event.step for event in events.Scalars(name)] for name in (
        "validation/main/nll", "main/nll", "samples_per_second")}
    assert steps == {"validation/main/nll": [0, 8, 16, 24], "main/nll": [8, 16, 24],
                     "samples_per_second": [8, 16, 24]}


@BOTH
def test_a_run_with_init_from_that_is_killed_and_restarted_is_the_same(world, tmp_path, command):
    forked(f"{command} -e 1 -o {tmp_path}/first", world)
    command = f"{command} --init_from {tmp_path}/first --snapshot_every 7"
    forked(f"{command} -o {tmp_path}/whole", world)
    killed = check_killed(world, command, tmp_path / "killed", [in_update(5), in_update(12)])
    assert killed == 2
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert difference(snapshot_in(whole), snapshot_in(killed)) == ""
    assert difference(log_of(whole), log_of(killed)) == ""
