"""Signals that let a script finish its current work, and how a script ends at Ctrl+C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.signals import Signals

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_recorded_and_then_ctrl_c_works_as_usual(number, capfd):
    with Signals("tidying up") as signals:
        assert signals.number is None
        signal.raise_signal(number)
        assert signals.number == number
        assert capfd.readouterr().err == "\ntidying up; once more to stop at once\n"
        signal.raise_signal(signal.SIGTERM)  # as a group's members are sent it twice
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.number == number and capfd.readouterr().err == ""


def test_signals_work_as_usual_outside_the_context(capfd):
    with Signals("tidying up") as signals:
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signals.number is None and capfd.readouterr().err == ""


def test_a_second_ctrl_c_does_not_wait_for_threads():
    script = """
import threading, time
from cli.script import run_script

def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise KeyboardInterrupt

run_script(main)
"""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True,
                          cwd=ROOT) as process:
        assert process.stderr.readline() == "stopped\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT and process.stderr.read() == ""


# Waits in Python, or in a library that doesn't let go of the main thread.
HANGS = {"python": "time.sleep(600)", "library": "ctypes.CDLL(None).usleep(600_000_000)"}
WAITING = """
import ctypes, os, signal, sys, time
from common.signals import Signals
with Signals("tidying up", patient={patient}) as signals:
    print("ready", flush=True)
    {hang}
    time.sleep(600)
"""


def waiting(patient=False, hang=HANGS["python"], before=None):
    """A process in the context of Signals."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(patient=patient, hang=hang)], env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("hang", HANGS)
def test_a_second_sigterm_ends_a_process_that_hangs(hang):
    with waiting(hang=HANGS[hang]) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # as a group's members are sent it twice
        time.sleep(0.7)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_a_process_of_several_is_more_patient():
    with waiting(patient=True) as process:
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.7)
        assert process.poll() is None
        time.sleep(4.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM


def ignore_ctrl_c():
    """As the shell does for a command in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("patient", [False, True])
def test_ignored_ctrl_c_stays_ignored(patient):
    with waiting(patient=patient, before=ignore_ctrl_c) as process:
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline().startswith("tidying up")
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert process.poll() is None
        process.kill()


def test_a_fork_does_not_pass_its_signals_on():
    with Signals("tidying up") as signals:
        for _ in range(2):
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGTERM, lambda *_: None)
                signal.raise_signal(signal.SIGTERM)
                os._exit(0)
            os.waitpid(pid, 0)
            time.sleep(0.6)
        assert signals.number is None
