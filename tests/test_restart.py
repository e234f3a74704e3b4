"""--auto_restart: what is restarted, how often and after which wait, and what is not."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from forks import PIXELCNN, UPDATES, difference, forked, snapshot_in, write_data
from test_commands import ROOT

from training import restart

# A training that needs no torch: it ends as its folder's `plan` says, line by line.
STAND_IN = """
import json, os, signal, sys
from pathlib import Path
plan = Path("plan").read_text().split()
Path("plan").write_text(" ".join(plan[1:]))
with open("calls", "a") as file:
    print(json.dumps([sys.argv[1:], os.environ["TRAINING_RESTARTS"]]), file=file)
if plan[0].startswith("snapshot"):
    Path("out").mkdir(exist_ok=True)
    Path("out/snapshot_iter_7").touch()
code = int(plan[0].removeprefix("snapshot"))
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.exit(code) if code >= 0 else os.kill(os.getpid(), -code)
"""


@pytest.fixture
def supervise(monkeypatch, tmp_path, capfd):
    """A function of a plan and --auto_restart: exit code, calls, waits and lines on stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "stand_in.py", "--flag"])
    monkeypatch.delenv("TRAINING_RESTARTS", raising=False)

    def run(plan, most):
        waits = []
        monkeypatch.setattr(restart.time, "sleep", waits.append)
        (tmp_path / "plan").write_text(plan)
        (tmp_path / "calls").write_text("")
        with pytest.raises(SystemExit) as end:
            restart.supervise(most, "out")
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        return end.value.code, calls, waits, capfd.readouterr().err.splitlines()

    return run


def test_a_crash_is_restarted_after_ever_longer_waits(supervise):
    code, calls, waits, lines = supervise("1 -9 -11 134 0", 4)
    assert code == 0 and waits == [1, 2, 4, 8]
    assert calls == [[["--flag"], str(n)] for n in range(5)]
    assert [line.split("; ")[0] for line in lines] == [
        f"the training died ({cause})" for cause in ("exit code 1", "SIGKILL", "SIGSEGV",
                                                      "exit code 134")]
    assert lines[2].endswith("restart 3 of 4 in 4 s")


def test_the_wait_is_five_minutes_at_most(supervise):
    waits = supervise(" ".join("1" * 13), 12)[2]
    assert waits[7:] == [128, 256, 300, 300, 300]


def test_it_gives_up_after_the_given_number_of_restarts(supervise):
    code, calls, waits, _ = supervise("1 1 -9 0", 2)
    assert code == 128 + signal.SIGKILL and len(calls) == 3 and len(waits) == 2


def test_a_restart_resumes_from_a_snapshot_once_there_is_one(supervise):
    calls = supervise("1 snapshot1 1 0", 5)[1]
    assert [flags for flags, _ in calls] == [
        ["--flag"], ["--flag"], *[["--flag", "--resume", "auto"]] * 2]


def test_an_earlier_runs_snapshots_are_not_resumed(supervise, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/snapshot_iter_99").touch()
    hour_ago = time.time() - 3600
    os.utime(tmp_path / "out/snapshot_iter_99", (hour_ago, hour_ago))
    assert [flags for flags, _ in supervise("1 0", 5)[1]] == [["--flag"]] * 2


@pytest.mark.parametrize("end, code", [("0", 0), ("2", 2), ("3", 3), ("130", 130), ("143", 143),
                                       ("-2", 130), ("-15", 143)])
def test_ends_that_were_asked_for_or_would_recur_are_not_restarted(supervise, end, code):
    ended, calls, waits, lines = supervise(f"{end} 0", 5)
    assert (ended, len(calls), waits, lines) == (code, 1, [], [])


def test_the_child_itself_does_not_supervise(monkeypatch):
    monkeypatch.setenv("TRAINING_RESTARTS", "1")
    restart.supervise(3, ".")
    assert restart.count() == 1
    monkeypatch.delenv("TRAINING_RESTARTS")
    assert restart.count() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert restart.count() == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_ends_both(tmp_path, number):
    script = """
import os, signal, sys, time
from training import restart
from cli.script import run_script

def main():
    restart.supervise(3, ".")
    open("pid", "w").write(str(os.getpid()))
    time.sleep(60)

run_script(main)
"""
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, text=True,
                               stderr=subprocess.PIPE, start_new_session=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)  # as a terminal does
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert stderr.splitlines() == (["stopped"] if number == signal.SIGINT else [])
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("hang", ["time.sleep(60)",
                                  "ctypes.PyDLL(None).usleep(60_000_000)"])  # in both threads
def test_a_second_sigterm_ends_a_child_that_hangs(tmp_path, hang):
    (tmp_path / "script.py").write_text(f"""
import ctypes, os, time
from training import restart
from cli.script import run_script
from common.signals import Signals

def main():
    restart.supervise(3, ".")
    with Signals("tidying up"):
        open("pid", "w").write(str(os.getpid()))
        {hang}
        time.sleep(60)

run_script(main)
""")
    process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, text=True,
                               stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
    stderr = process.communicate(timeout=10)[1]
    assert process.returncode == 128 + signal.SIGTERM and "died" not in stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_run_that_crashes_ends_like_one_that_does_not(tmp_path):
    write_data(tmp_path)
    forked(f"{PIXELCNN} -o whole", tmp_path)
    # Another complete run lies in the folder.
    forked(f"{PIXELCNN} --seed 8 -e 4 -o crashing", tmp_path)
    (tmp_path / "script.py").write_text("""
import os, signal, sys
import train_pixelcnn
from training import restart
from cli import script

if "TRAINING_RESTARTS" in os.environ:
    from training.extensions.plots import PlotReport
    from training.trainer import Trainer
    PlotReport.__call__ = lambda *_: None
    update = Trainer.update

    def dying(trainer, batch):
        if (trainer.iteration, restart.count()) == (12, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        update(trainer, batch)

    Trainer.update = dying
script.run_script(train_pixelcnn.main)
""")
    flags = PIXELCNN.split()[1:]
    done = subprocess.run([sys.executable, "script.py", *flags, "--auto_restart", "2", "-o",
                           "crashing"], cwd=tmp_path, text=True, capture_output=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "died (SIGKILL); restart 1 of 2" in done.stderr
    whole, crashed = (tmp_path / name for name in ("whole", "crashing"))
    assert difference(snapshot_in(whole), snapshot_in(crashed)) == ""
    log = json.loads((crashed / "log").read_text())
    assert [(entry["iteration"], entry.get("resumed_at"), entry.get("restart"))
            for entry in log] == [(8, None, None), (16, 8, 1), (UPDATES, None, None)]
    assert (crashed / "earlier_1/snapshot_iter_32").exists()
