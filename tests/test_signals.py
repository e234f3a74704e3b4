"""Signals that let a script finish what it has in hand, and how a script ends at Ctrl+C."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_ctrl_c_then_acts_as_ever(number, capfd):
    with Signals("tidying up") as signals:
        assert signals.number is None
        signal.raise_signal(number)
        assert signals.number == number
        assert capfd.readouterr().err == "\ntidying up; once more to stop at once\n"
        signal.raise_signal(signal.SIGTERM)  # as a group's members are sent it twice
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.number == number and capfd.readouterr().err == ""


def test_signals_act_as_ever_outside(capfd):
    with Signals("tidying up") as signals:
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signals.number is None and capfd.readouterr().err == ""


def test_ctrl_c_again_does_not_wait_for_threads():
    script = """
import threading, time
from training.script import run_script

def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise KeyboardInterrupt

run_script(main)
"""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True,
                          cwd=Path(__file__).resolve().parent.parent) as process:
        assert process.stderr.readline() == "stopped\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT and process.stderr.read() == ""
