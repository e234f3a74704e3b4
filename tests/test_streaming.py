"""Sound that infer_wavenet.py writes while it is drawn, to wavs and to a player."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from test_infer import ROOT, draw_sounds, samples_of


@pytest.fixture
def start(models, tmp_path):
    """Start infer_wavenet.py on `sound` in an empty folder, and kill it if need be at the end."""
    started = []

    def start(*args, **options):
        started.append(subprocess.Popen(
            [sys.executable, ROOT / "infer_wavenet.py", "-m", models / "sound", *map(str, args)],
            cwd=tmp_path, stderr=subprocess.PIPE, **options))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def wait_for_samples(process, path, least):
    """Wait until the wav `path`, which the process writes, announces at least so many samples."""
    while not path.exists() or int.from_bytes(path.read_bytes()[40:44], "little") < 2 * least:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_a_killed_process_leaves_what_it_drew(start, models, call, tmp_path):
    process = start("-c", 2, "--length", 0)
    for i in range(2):
        wait_for_samples(process, tmp_path / f"samples/sample_{i}.wav", 2000)
    process.kill()
    process.wait()
    expected = draw_sounds(call, models, "whole", "-c", 2, "--length", 2000)
    for name, samples in expected.items():
        assert np.array_equal(samples_of(tmp_path / "samples" / name)[:2000], samples)


@pytest.mark.parametrize("length, number, expected", [
    (0, signal.SIGINT, 0), (0, signal.SIGTERM, 0),
    (10 ** 9, signal.SIGINT, 130), (10 ** 9, signal.SIGTERM, 143)])
def test_a_signal_ends_the_sounds(start, tmp_path, length, number, expected):
    process = start("-c", 2, "--length", length, "--plot", stdout=subprocess.PIPE, text=True)
    wait_for_samples(process, tmp_path / "samples/sample_1.wav", 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == expected, err
    assert err == "\nfinishing the block in hand; once more to stop at once\n"
    sounds = [samples_of(tmp_path / f"samples/sample_{i}.wav") for i in range(2)]
    assert len(sounds[0]) == len(sounds[1]) > 0
    seconds = re.fullmatch(r"samples: 2 sounds of p225, (\S+) s of sound in .* real time\n", out)[1]
    assert float(seconds.replace(",", "")) == pytest.approx(2 * len(sounds[0]) / 8000, rel=0.01)
    # Who interrupts what would have ended by itself does not wait for plots.
    assert (tmp_path / "samples/sample_1.png").exists() == (length == 0)


def test_raw_samples_for_a_player(start, models, call, tmp_path):
    soundfile.write("tone.wav", 0.5 * np.sin(np.arange(400) / 3), 8000)
    flags = ["--length", "0.2s", "--prime", "tone.wav", "--label", 1]
    process = start(*flags, "-o", "-", stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert re.fullmatch(rb"stdout: 1 sound of a/b c, 0\.2 s of sound in .* real time\n", err)
    wav, = draw_sounds(call, models, "a", *flags, "-c", 1).values()
    assert len(wav) == 2000 and np.array_equal(np.frombuffer(out, "<i2"), wav)
    assert not (tmp_path / "samples").exists()


def test_a_player_that_ends(start):
    process = start("--length", 0, "-o", "-", stdout=subprocess.PIPE)
    assert len(process.stdout.read(5000)) == 5000  # they come while the sound has no end
    process.stdout.close()
    assert process.wait(timeout=300) == 0 and process.stderr.read() == b""


def test_the_bar_on_a_terminal(models, tmp_path):
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows, columns
    done = subprocess.run([sys.executable, ROOT / "infer_wavenet.py", "-m", models / "sound",
                           "-c", "2", "--length", "1s"], cwd=tmp_path, stderr=end,
                          stdout=subprocess.PIPE, timeout=300)
    os.close(end)
    bar = ""
    with suppress(OSError):  # which is how a terminal says that it ends
        while more := os.read(terminal, 4096):
            bar += more.decode()
    os.close(terminal)
    assert done.returncode == 0, bar
    assert re.search(r"16\.0k/16\.0k \[.*sample/s, [\d.,]+x real time\]", bar), bar


def test_no_raw_samples_to_a_terminal(start):
    terminal, end = pty.openpty()
    process = start("-o", "-", stdout=end)
    _, err = process.communicate(timeout=300)
    os.close(end)
    os.close(terminal)
    assert process.returncode == 2 and b"pipe it to a player" in err and err.count(b"\n") == 1
