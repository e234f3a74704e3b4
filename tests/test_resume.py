"""A run that is killed at any moment and resumed ends like an uninterrupted one, bit for bit."""

import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from forks import PIXELCNN, UPDATES, WAVENET, Fork, difference, forked, once, snapshot_in

from common.files import atomic_write
from training import likelihood
from training.extensions.evaluator import Evaluator
from training.resuming import delete_temporary_files
from training.trainer import Trainer

BOTH = pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])


@pytest.fixture(scope="module")
def whole(world):
    """A function of a command: the folder of that run, never interrupted."""
    return once(world, "whole")


def best_model(folder):
    return next(path for path in Path(folder).iterdir()
                if path.name.startswith(("pixelcnn_", "wavenet_")))


def check_same(run, other, updates=UPDATES):
    """That two complete runs, of so many updates, have left the same."""
    assert difference(snapshot_in(run, updates), snapshot_in(other, updates)) == ""
    assert best_model(run).name == best_model(other).name
    assert best_model(run).read_bytes() == best_model(other).read_bytes()
    assert difference(*(json.loads((folder / "log").read_text()) for folder in (run, other))) == ""


def check_killed(world, command, out, moments):
    """Begin a run again until it is complete, dying at each of the moments: how often it died."""
    deaths = 0
    for moment in moments:
        ended = Fork(f"{command} -o {out} --resume auto", world, moment).wait()
        assert ended.code in (-signal.SIGKILL, 0), ended
        assert "passed over" not in ended.err, ended.err  # no half snapshot is ever seen
        deaths += ended.code != 0
    forked(f"{command} -o {out} --resume auto", world)
    return deaths


# ------------------------------------------------------------------------------ moments to die at

def die(*_, **__):
    """End this process as a power failure would."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_update(number):
    """In the middle of that update, once its gradient is there."""
    def prepare():
        update = Trainer.update

        def counted(trainer, batch):
            if trainer.iteration + 1 == number:
                torch.nn.utils.clip_grad_norm_ = die
            update(trainer, batch)

        Trainer.update = counted

    return prepare


def in_evaluation(number):
    """In the middle of the validation after that update."""
    def prepare():
        evaluate = Evaluator.__call__

        def counted(evaluator, trainer):
            if trainer.iteration == number:
                likelihood.nll = die
            evaluate(evaluator, trainer)

        Evaluator.__call__ = counted

    return prepare


def at_file(is_moment):
    """Before an operation on a file; of one that writes, when half is written.

    is_moment: a function of the operation's name and the file's, that of a temporary file being
    the one of the file whose place it is to take.
    """
    def prepare():
        ours = os.getpid()  # and not those that read data ahead

        def dying_at(owner, operation, position):
            do = getattr(owner, operation)

            def watched(*args, **kwargs):
                path = Path(args[position])
                name = path.name[1:].rpartition(".")[0] if path.name[0] == "." else path.name
                if os.getpid() == ours and is_moment(operation, name):
                    if operation == "write_bytes":
                        with open(path, "wb") as file:
                            file.write(bytes(args[1])[:len(args[1]) // 2])
                    die()
                return do(*args, **kwargs)

            setattr(owner, operation, watched)

        for owner, operation, position in ((Path, "write_bytes", 0), (Path, "write_text", 0),
                                           (os, "replace", 1), (os, "unlink", 0),
                                           (os, "rename", 0)):
            dying_at(owner, operation, position)

    return prepare


def at(operation, name):
    return at_file(lambda *seen: seen == (operation, name))


def at_operation(number):
    """Before the file operation of that number."""
    count = iter(range(1, 10 ** 6))
    return at_file(lambda *_: next(count) == number)


def at_the_end(number):
    """Before the file operation of that number after the last update of ENDS."""
    def prepare():
        update = Trainer.update

        def counted(trainer, batch):
            update(trainer, batch)
            if trainer.iteration == 20:
                at_operation(number)()

        Trainer.update = counted

    return prepare


def files_in(folder):
    """What is in a folder, and since when."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in Path(folder).rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------ tests

FLAGS = ["--snapshot_every 7", "--snapshot_every 3 --ema 0.9 --schedule cosine --workers 2"]


@BOTH
@pytest.mark.parametrize("flags", FLAGS)
def test_killed_in_mid_epoch(world, whole, tmp_path, command, flags):
    command = f"{command} {flags}"
    moments = [in_update(n) for n in (1, 6, 12, 13, 24)]
    assert check_killed(world, command, tmp_path, moments) == 5
    check_same(tmp_path, whole(command))


@BOTH
def test_killed_while_it_evaluates(world, whole, tmp_path, command):
    command = f"{command} --ema 0.9"
    assert check_killed(world, command, tmp_path, [in_evaluation(16), in_evaluation(24)]) == 2
    check_same(tmp_path, whole(command))


@pytest.mark.parametrize("moment", [
    ("write_bytes", "snapshot_iter_15"), ("replace", "snapshot_iter_15"),
    ("unlink", "snapshot_iter_7"), ("write_bytes", "pixelcnn_16"), ("replace", "pixelcnn_16"),
    ("unlink", "pixelcnn_8"), ("replace", "log"), ("replace", "snapshot_iter_24")], ids=" ".join)
def test_killed_while_it_writes(world, whole, tmp_path, moment):
    command = f"{PIXELCNN} {FLAGS[0]} --snapshots_kept 1"
    assert check_killed(world, command, tmp_path, [at(*moment)]) == 1
    check_same(tmp_path, whole(command))
    assert len(list(tmp_path.glob("pixelcnn_*"))) == 1


def test_killed_while_an_earlier_runs_files_are_set_aside(world, whole, tmp_path):
    command = f"{PIXELCNN} {FLAGS[0]}"
    # The first leaves a best model that is later than its last snapshot.
    moments = [at("replace", "snapshot_iter_16"), at("rename", "pixelcnn_16")]
    assert check_killed(world, command, tmp_path, moments) == 2
    check_same(tmp_path, whole(command))


def test_temporary_files_of_a_killed_process_are_deleted(world, tmp_path):
    command = f"{PIXELCNN} {FLAGS[0]}"
    moments = [at("replace", name) for name in
               ("config.json", "snapshot_iter_15", "pixelcnn_16", "log", "data.png")]
    assert check_killed(world, command, tmp_path, moments) == 5
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_temporary_files_of_every_kind_are_deleted_and_no_others(tmp_path):
    mine = tmp_path / ".log.old"
    for name in ("log", "config.json", "loss.png", "pixelcnn_16", "snapshot_iter_15",
                 "samples/iteration_8.png", "samples/iteration_8_bass.wav",
                 "tensorboard/projector_config.pbtxt", "tensorboard/labels/tensors.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with suppress(KeyboardInterrupt), atomic_write(tmp_path / name) as temporary:
            os.link(temporary, mine)  # stays when the writer removes its own
            name = temporary
            raise KeyboardInterrupt
        mine.rename(name)
    mine.write_text("the user's")
    (tmp_path / ".pixelcnn_notes.txt").write_text("the user's")
    delete_temporary_files(tmp_path, "pixelcnn")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        ".log.old", ".pixelcnn_notes.txt"}


def test_ctrl_c_stops_the_run_and_not_its_workers(world, tmp_path):
    fork = Fork(f"{PIXELCNN} -b 1 -e 3000 --snapshot_every 10 --workers 2 -o {tmp_path}", world)
    until = time.monotonic() + 60
    while not (tmp_path / "snapshot_iter_41").exists() and time.monotonic() < until:
        time.sleep(0.01)
    fork.send(signal.SIGINT)
    ended = fork.wait()
    assert ended.code == 128 + signal.SIGINT, ended
    said, stopped = ended.err.splitlines()[1:]
    assert said.startswith("finishing the update") and stopped.startswith("stopped at iteration")


# The last update is in mid-epoch, and a snapshot's turn by itself.
ENDS = "--iterations 20 --snapshot_every 10"


@BOTH
@pytest.mark.parametrize("flags", [*FLAGS, ENDS, f"{ENDS} --sample_every 7",
                                   "--iterations 20 --target_loss 9"])
def test_restarting_a_complete_run_changes_nothing(world, tmp_path, command, flags):
    command = f"{command} {flags} -o {tmp_path} --resume auto"
    first = forked(command, world)
    before = files_in(tmp_path)
    again = forked(command, world)
    assert files_in(tmp_path) == before
    ending = first.out[first.out.index("the best model is "):]
    assert again.out.endswith(ending) and "gone" not in ending
    assert ("test/main" in ending) == ("pixelcnn" in command)


@pytest.mark.parametrize("command", [f"{PIXELCNN} --sample_every 7", WAVENET],
                         ids=["pixelcnn", "wavenet"])
def test_killed_at_the_end(world, whole, tmp_path, command):
    command, number, deaths = f"{command} {ENDS}", 0, 1
    while deaths:
        number += 1
        out = tmp_path / str(number)
        deaths = check_killed(world, command, out, [at_the_end(number)])
        check_same(out, whole(command), 20)
    assert number > 8


@BOTH
def test_killed_in_the_last_validation(world, whole, tmp_path, command):
    command = f"{command} {ENDS}"
    assert check_killed(world, command, tmp_path, [in_evaluation(20)] * 2) == 2
    check_same(tmp_path, whole(command), 20)


@BOTH
def test_a_run_that_is_made_shorter_is_validated_at_its_end(world, whole, tmp_path, command):
    longer = f"{command} --snapshot_every 10"
    assert check_killed(world, f"{longer} --iterations 20", tmp_path / "a", [in_update(21)]) == 0
    ended = Fork(f"{longer} -o {tmp_path}/b", world, in_update(21)).wait()
    assert ended.code == -signal.SIGKILL
    forked(f"{longer} --iterations 20 -o {tmp_path}/b --resume auto", world)
    check_same(tmp_path / "b", tmp_path / "a", 20)


@BOTH
def test_a_complete_run_that_is_made_longer_keeps_its_best_model(world, tmp_path, command):
    # Weights that get worse after the first run has ended.
    worse = f"{command} --optimizer sgd --learning_rate"
    forked(f"{worse} 1e-3 {ENDS} -o {tmp_path}", world)
    best = best_model(tmp_path)
    before = best.read_bytes()
    assert best.name.endswith("_20")
    forked(f"{worse} 30 --iterations 30 -o {tmp_path} --resume auto", world)
    assert best_model(tmp_path) == best and best.read_bytes() == before


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("flags", [*FLAGS, "--keep_every 5 --snapshots_kept 1 --optimizer rmsprop"])
def test_killed_at_every_file_operation(world, whole, tmp_path, command, flags):
    command, number = f"{command} {flags}", 0
    while True:
        number += 1
        out = tmp_path / str(number)
        if not check_killed(world, command, out, [at_operation(number)]):
            break
        check_same(out, whole(command))
        shutil.rmtree(out)
    assert number > 30


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("flags", FLAGS)
def test_killed_at_random_moments(world, whole, tmp_path, command, flags):
    command, generator = f"{command} {flags}", random.Random(f"{command} {flags}")
    began = time.monotonic()
    forked(f"{command} -o {tmp_path}/again", world)
    duration, deaths, attempt = time.monotonic() - began, 0, 0
    check_same(tmp_path / "again", whole(command))
    while deaths < 20:
        attempt += 1
        out = tmp_path / str(attempt)
        complete = False
        while not complete:
            fork = Fork(f"{command} -o {out} --resume auto", world)
            time.sleep(generator.uniform(0.1, 1.2) * duration)
            fork.send(signal.SIGKILL)
            ended = fork.wait()
            assert ended.code in (-signal.SIGKILL, 0) and "passed over" not in ended.err, ended
            complete, deaths = ended.code == 0, deaths + (ended.code != 0)
        assert json.loads((out / "log").read_text())[-1]["iteration"] == UPDATES
        check_same(out, whole(command))
