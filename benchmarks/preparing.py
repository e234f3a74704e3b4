"""How fast preprocess.py prepares recordings, and how much memory it takes.

    python benchmarks/preparing.py

Speed: of 60 recordings of 60 s and 1,200 of 3 s, made up of a tone and noise, 48 kHz, 16 bits, one
channel. As seconds of sound prepared in one second, for each number of --workers, by the time that
preprocess.py tells itself; and the same for each core that worked. Once more with --features mel.
Memory: of as many recordings of four hours, 48 kHz stereo, as there are workers. The most that all
processes had together at once, what they share counted once (the sum of PSS).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import numpy as np
import soundfile

from benchmarks.figures import number
from cli.arguments import positive_float, positive_int
from cli.script import run_script

SCRIPT = Path(__file__).resolve().parents[1] / "preprocess.py"
RATE = 48000
MINUTE = 60  # seconds, of which long recordings are made


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=positive_int, default=60,
                        help="of sound of each kind, to measure speed on")
    parser.add_argument("--hours", type=positive_float, default=4,
                        help="of a long recording, to measure memory on")
    parser.add_argument("--workers", type=positive_int, nargs="+", default=[1, 2])
    parser.add_argument("--memory_workers", type=positive_int, nargs="+", default=[2, 8])
    parser.add_argument("--rate", type=positive_int, default=16000)
    return parser.parse_args()


def main():
    """Make up recordings, prepare them, print."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print(f"from {RATE} Hz to {args.rate} Hz on {number(os.cpu_count(), 'core')}")
        for seconds in (60, 3):
            count = args.minutes * MINUTE // seconds
            data = folder / f"{count} × {seconds} s"
            write_noise(data, count, seconds)
            for features, workers in product(("none", "mel"), args.workers):
                took, _ = prepare(data, folder / "corpus", args.rate, workers, features)
                rate, cores = count * seconds / took, min(workers, os.cpu_count())
                print(f"{data.name}, --features {features}, {number(workers, 'worker')}: "
                      f"{rate:,.0f} × real time, {rate / cores:,.0f} a core", flush=True)
        write_long(folder / "long.wav", args.hours)
        for workers in args.memory_workers:
            data = folder / f"{workers} × {args.hours:g} h stereo"
            data.mkdir()
            for name in range(workers):
                (data / f"{name}.wav").symlink_to(folder / "long.wav")
            for features in ("none", "mel"):
                _, memory = prepare(data, folder / "corpus", args.rate, workers, features)
                print(f"{data.name}, --features {features}, {number(workers, 'worker')}: "
                      f"{memory / 2**20:,.0f} MB", flush=True)


def write_noise(folder, count, seconds):
    """So many recordings of so many seconds."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in range(count):
        tone = 0.3 * np.sin(np.arange(RATE * seconds) * (0.02 + name / count))
        samples = tone + 0.1 * generator.standard_normal(len(tone))
        soundfile.write(folder / f"{name:05}.wav", samples, RATE, subtype="PCM_16")


def write_long(path, hours):
    """One of so many hours, stereo: a minute again and again."""
    minute = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE * MINUTE, 2))
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        for _ in range(max(1, round(hours * 60))):
            file.write(minute)


def prepare(data, out, rate, workers, features):
    """Run preprocess.py: (seconds that it tells, the most bytes of memory it had)."""
    command = [sys.executable, SCRIPT, "--data", data, "--output", out,
               "--rate", str(rate), "--workers", str(workers), "--features", features]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            most = max(most, sum(map(memory_of, family(process.pid))))
            time.sleep(0.05)
        told = process.stdout.read()
    return float(re.search(r"in ([\d.]+) s;", told)[1]), most


def family(pid):
    """The process `pid` and its descendants."""
    try:
        children = [int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children")
                    for child in tasks.read_text().split()]
    except OSError:  # it has just ended
        return []
    return [pid, *(one for child in children for one in family(child))]


def memory_of(pid):
    """Bytes that a process has, of what several share its part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    run_script(main)
