"""Runs that torchrun starts, on one machine and on two, and restarts after a crash."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from forks import PIXELCNN, forked, snapshot_in
from test_commands import ROOT
from test_distributed import check_same_losses, free_port, log_of

pytestmark = pytest.mark.slow


class Agent:
    """`torchrun` with its options, running `PIXELCNN` with more flags in `folder`."""

    def __init__(self, options, flags, folder, environment=()):
        script, *its_flags = f"{PIXELCNN} {flags}".split()
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options.split(), ROOT / script,
             *its_flags], cwd=folder, stdout=self.file, stderr=self.file, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **dict(environment)})

    def text(self):
        return os.pread(self.file.fileno(), 1 << 20, 0).decode()

    def workers(self):
        """Its processes: {rank: process id}."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                settings = (place / "environ").read_text().split("\0")
                rank = next((it[5:] for it in settings if it.startswith("RANK=")), None)
                if int(parent) == self.process.pid and rank:
                    found[int(rank)] = int(place.name)
        return found

    def wait(self, code=0):
        try:
            assert self.process.wait(180) == code, self.text()
        finally:
            for process in self.workers().values():
                os.kill(process, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        return self.text()


def wait_for(path, agent):
    until = time.monotonic() + 180
    while not path.exists() and time.monotonic() < until and agent.process.poll() is None:
        time.sleep(0.02)
    assert path.exists(), agent.text()


LONG = "-e 400 --iterations 90 --snapshot_every 4 --resume auto"
ONE_MACHINE = "--standalone --nproc_per_node=2"


def test_torchrun_runs_it_and_errors_are_reported_once(world, tmp_path):
    text = Agent(ONE_MACHINE, f"-o {tmp_path}/two", world).wait()
    assert text.count("epoch 3  iteration") == text.count("next: ") == 1
    forked(f"{PIXELCNN} -o {tmp_path}/one", world)
    check_same_losses(log_of(tmp_path / "one"), log_of(tmp_path / "two"))
    text = Agent(ONE_MACHINE, f"-o {tmp_path}/no --levels 999", world).wait(code=1)
    assert text.count("error: --levels 999") == 1
    text = Agent(ONE_MACHINE, f"-o {tmp_path}/no --auto_restart 2", world).wait(code=1)
    assert text.count("error: --auto_restart") == 1 and "--max-restarts" in text


@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_restarts_a_run_after_a_process_was_killed(world, tmp_path, rank):
    forked(f"{PIXELCNN} {LONG} -o {tmp_path}/whole", world)
    agent = Agent(f"{ONE_MACHINE} --max-restarts=1", f"{LONG} -o {tmp_path}/cut", world)
    wait_for(tmp_path / "cut/snapshot_iter_12", agent)
    os.kill(agent.workers()[rank], signal.SIGKILL)
    text = agent.wait()
    assert "going on from" in text and "--iterations 90 reached" in text
    check_same_losses(log_of(tmp_path / "whole"), log_of(tmp_path / "cut"))
    assert [entry["restart"] for entry in log_of(tmp_path / "cut") if "restart" in entry] == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_torchrun_that_is_stopped_leaves_a_snapshot(world, tmp_path, number):
    agent = Agent(ONE_MACHINE, f"-e 4000 -o {tmp_path}/out", world)
    wait_for(tmp_path / "out/snapshot_iter_8", agent)
    if number == signal.SIGINT:  # as a terminal does
        for process in agent.workers().values():
            os.kill(process, number)
    agent.process.send_signal(number)
    text = agent.wait(code=1)
    assert text.count("stopped at iteration ") == 1
    stopped = int(text.partition("stopped at iteration ")[2].partition(";")[0])
    assert snapshot_in(tmp_path / "out", stopped)["run"]["iteration"] == stopped


MACHINES = {  # all on this one; ways for the agents of two to find each other
    "static": ("--nnodes=2 --node_rank={n} --master_addr=127.0.0.1 --master_port={port}", {}),
    "c10d": ("--nnodes=2 --rdzv_id=1 --rdzv_backend=c10d --rdzv_endpoint=127.0.0.1:{port}",
             {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"})}


@pytest.mark.parametrize("way", MACHINES)
@pytest.mark.parametrize("lost", [None, 0, 1])
def test_two_machines_learn_what_one_learns_and_are_restarted(world, tmp_path, way, lost):
    forked(f"{PIXELCNN} {LONG} -o {tmp_path}/whole", world)
    (options, environment), port, folders = MACHINES[way], free_port(), []
    for n in range(2):  # each machine has its own files
        folders.append(tmp_path / str(n))
        folders[n].mkdir()
        (folders[n] / "data").symlink_to(world / "data")
    agents = [Agent(f"{options.format(n=n, port=port)} --nproc_per_node=1 --max-restarts=1",
                    f"{LONG} -o out", folders[n], environment) for n in range(2)]
    if lost is not None:
        first = next_first(agents)
        wait_for(folders[first] / "out/snapshot_iter_12", agents[first])
        os.kill(next(iter(agents[lost].workers().values())), signal.SIGKILL)
    for agent in agents:
        agent.wait()
    logs = [log_of(folder / "out") for folder in folders if (folder / "out/log").exists()]
    assert len(logs) == 1
    check_same_losses(log_of(tmp_path / "whole"), logs[0])
    assert sum("resumed_at" in entry for entry in logs[0]) == (lost is not None)


def next_first(agents):
    """Which of the agents has the process of rank 0; c10d gives it to either."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for n, agent in enumerate(agents):
            if 0 in agent.workers():
                return n
        time.sleep(0.05)
    raise AssertionError([agent.text() for agent in agents])
