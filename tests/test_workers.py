"""Batches that worker processes read ahead, and runs that lose a worker."""

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import PIXELCNN, UPDATES, WAVENET, Fork, difference, forked, snapshot_in
from test_commands import ROOT

from common.errors import UserError
from datasets.batches import Batch, Frames, evaluation_batches, training_batches
from datasets.corpus.windows import Windows
from datasets.images.dataset import ImageCodes
from datasets.workers import LostWorkerError, read_ahead

BOTH = pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])


HANG_SECONDS = 60
pytestmark = pytest.mark.usefixtures("no_hanging")


class Rows(torch.utils.data.Dataset):
    """Batches with a field of each kind. bad: what a worker does instead for item 7."""

    def __init__(self, bad=None, width=3):
        self.bad, self.width, self.parent = bad, width, os.getpid()

    def __len__(self):
        return 11

    def __getitem__(self, indices):
        if self.bad and 7 in indices and os.getpid() != self.parent:
            self.bad()
        codes = torch.as_tensor(np.tile(np.asarray(indices)[:, None], self.width))
        frames = Frames(codes.float(), codes > 4, codes[:, 0])
        return Batch(codes, codes[:, :1], None, frames)


def same(a, b):
    if isinstance(a, tuple):
        return type(a) is type(b) and all(map(same, a, b))
    return a is b or a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("workers", [1, 2, 5, 99])
def test_workers_make_the_same_batches_as_one_process(workers):
    ways = [dict(seed=3, epoch=2), dict(seed=3, epoch=2, position=4)]
    for way in ways:
        alone, read = (training_batches(Rows(), 2, workers=count, **way) for count in (0, workers))
        assert len(alone) == len(read) == len(list(read))
        assert all(map(same, list(alone), list(read)))
    alone, read = (evaluation_batches(Rows(), 4, workers=count) for count in (0, workers))
    for _ in range(2):  # once for each validation
        assert all(map(same, list(alone), list(read)))


def test_batches_much_larger_than_a_pipe():
    seen = list(evaluation_batches(Rows(width=300_000), 5, workers=2))
    assert [batch.codes.shape for batch in seen] == [(5, 300_000), (5, 300_000), (1, 300_000)]
    seen[0].codes.add_(1)  # is memory of its own
    assert int(seen[0].codes[4, -1]) == 5


def raising(error):
    def bad():
        raise error

    return bad


@pytest.mark.parametrize("error", [UserError("x.npy: damaged; mend it"), MemoryError("of numpy"),
                                   FileNotFoundError(2, "No such file", "x.npy"),
                                   RuntimeError("a defect")])
def test_exceptions_in_a_worker_are_raised(error):
    seen = []
    with pytest.raises(type(error)) as found:
        for batch in evaluation_batches(Rows(raising(error)), 2, workers=2):
            seen += batch.codes[:, 0].tolist()
    assert str(found.value) == str(error) and seen == [0, 1, 2, 3, 4, 5]
    assert isinstance(error, UserError) or "in bad" in str(found.value.__cause__)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS, signal.SIGTERM])
def test_a_dead_worker_is_reported(number):
    def die():
        faulthandler.disable()  # pytest's
        os.kill(os.getpid(), number)

    rows = Rows(die)
    with pytest.raises(LostWorkerError) as found:
        list(evaluation_batches(rows, 2, workers=2))
    assert f"workers 2: a process that reads data has died ({number.name})" in str(found.value)
    assert "--workers 0" in str(found.value) and found.value.exit_code == 1


def children():
    return {process.pid for process in multiprocessing.active_children()}


def test_a_worker_killed_while_it_sends_a_batch_is_reported():
    before = children()
    batches = iter(evaluation_batches(Rows(width=300_000), 1, workers=1))
    next(batches)
    worker, = children() - before
    time.sleep(0.2)  # until it fills the pipe, which holds a part of a batch
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(LostWorkerError, match="SIGKILL"):
        list(batches)


def test_workers_end_when_they_are_no_longer_needed():
    before = children()
    batches = read_ahead(Rows(width=300_000), [[n] for n in range(9)], 3)
    next(batches)
    assert len(children() - before) == 3
    batches.close()
    assert children() == before


def test_a_worker_that_hangs_ends_with_the_run(tmp_path):
    pid = os.fork()
    if not pid:
        def hang():
            (tmp_path / "pid").write_text(str(os.getpid()))
            time.sleep(600)

        try:
            list(evaluation_batches(Rows(hang), 11, workers=1))
        finally:
            os._exit(0)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    worker = int((tmp_path / "pid").read_text())
    while Path(f"/proc/{worker}").exists() and \
            Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)


def test_no_process_can_be_started(monkeypatch):
    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(UserError, match="workers 2: can't start so many processes"):
        list(evaluation_batches(Rows(), 2, workers=2))


@BOTH
def test_a_run_that_loses_a_worker_ends_with_a_line_and_can_resume(world, tmp_path, command):
    command = f"{command} --snapshot_every 1"

    def prepare():
        run, seen = os.getpid(), []

        def dying(get):
            def get_or_die(dataset, indices):
                seen.append(indices)
                if os.getpid() != run and len(seen) == 3:  # of batches 0, 2, 4 and 1, 3, 5
                    os.kill(os.getpid(), signal.SIGKILL)
                return get(dataset, indices)

            return get_or_die

        for kind in ImageCodes, Windows:
            kind.__getitem__ = dying(kind.__getitem__)

    forked(f"{command} -o {tmp_path}/whole", world)
    ended = Fork(f"{command} --workers 2 -o {tmp_path}/cut", world, prepare).wait()
    assert ended.code == 1
    line, = (line for line in ended.err.splitlines() if line)
    assert line.startswith("error: --workers 2: a process that reads data has died (SIGKILL); ")
    assert (tmp_path / "cut/snapshot_iter_4").exists()
    forked(f"{command} --workers 2 --resume auto -o {tmp_path}/cut", world)
    whole, cut = (snapshot_in(tmp_path / name) for name in ("whole", "cut"))
    assert whole["run"]["iteration"] == UPDATES and difference(whole, cut) == ""


def test_preprocess_names_missing_shared_memory(world, tmp_path):
    if subprocess.run(shm_of("4k", "true"), capture_output=True).returncode:
        pytest.skip("this user can't mount")
    done = subprocess.run(shm_of("4k", sys.executable, ROOT / "preprocess.py", "--data", "sounds",
                                 "--output", tmp_path / "out"),
                          cwd=world, capture_output=True, text=True, timeout=50)
    line, = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: --workers: ") and "--shm-size" in line


def shm_of(size, *command):
    """The command, with that much shared memory."""
    return ["unshare", "-m", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs -o "
            f'size={size},nr_inodes=9 tmpfs /dev/shm && exec "$@"', "sh", *map(str, command)]


def test_workers_need_no_shared_memory(world, tmp_path):
    if subprocess.run(shm_of("4k", "true"), capture_output=True).returncode:
        pytest.skip("this user can't mount")
    flags = PIXELCNN.split()[1:]
    done = subprocess.run(shm_of("4k", sys.executable, ROOT / "train_pixelcnn.py", *flags, "-e", 1,
                                 "--workers", 4, "-o", tmp_path / "out"),
                          cwd=world, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    forked(f"{PIXELCNN} -e 1 -o {tmp_path}/whole", world)
    assert difference(*(snapshot_in(tmp_path / name, 8) for name in ("whole", "out"))) == ""
