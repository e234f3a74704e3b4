"""Measure the speed and the memory of preprocess.py.

    python benchmarks/preparing.py

Speed: on 60 recordings of 60 s as wav, ogg and mp3, and on 1,200 wavs of 3 s, each a tone and
noise, 48 kHz, mono, wavs with 16 bits. Prints seconds of sound per second, in all and per working
core, from the time that preprocess.py reports; for each number of --workers, without features and
with --features mel.
Memory: on one recording of four hours, 48 kHz stereo, for each worker. Prints the peak of all
processes together, with shared memory counted once (the sum of PSS).
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
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import soundfile

from benchmarks.formatting import format_count
from cli.arguments import positive_float, positive_int
from cli.script import run_script
from common.errors import UserError

SCRIPT = Path(__file__).resolve().parents[1] / "preprocess.py"
RATE = 48000
MINUTE = 60  # seconds


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=positive_int, default=60,
                        help="minutes of sound of each kind, to measure speed")
    parser.add_argument("--hours", type=positive_float, default=4,
                        help="hours of a long recording, to measure memory")
    parser.add_argument("--workers", type=positive_int, nargs="+", default=[1, 2])
    parser.add_argument("--memory_workers", type=positive_int, nargs="+", default=[2, 8])
    parser.add_argument("--rate", type=positive_int, default=16000)
    return parser.parse_args()


def main() -> None:
    """Write synthetic recordings, prepare them, print the measurements."""
    args = arguments()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"from {RATE} Hz to {args.rate} Hz on {format_count(cores, 'core')}")
        for seconds, ending in ((60, "wav"), (60, "ogg"), (60, "mp3"), (3, "wav")):
            count = args.minutes * MINUTE // seconds
            data = folder / f"{count} × {seconds} s, {ending}"
            write_recordings(data, count, seconds, ending)
            for features, workers in product(("none", "mel"), args.workers):
                elapsed, _ = prepare(data, folder / "corpus", args.rate, workers, features)
                rate = count * seconds / elapsed
                print(f"{data.name}, --features {features}, "
                      f"{format_count(workers, 'worker')}: {rate:,.0f} × real time, "
                      f"{rate / min(workers, cores):,.0f} a core", flush=True)
        write_long_recording(folder / "long.wav", args.hours)
        for workers in args.memory_workers:
            data = folder / f"{workers} × {args.hours:g} h stereo"
            data.mkdir()
            for index in range(workers):
                (data / f"{index}.wav").symlink_to(folder / "long.wav")
            for features in ("none", "mel"):
                _, memory = prepare(data, folder / "corpus", args.rate, workers, features)
                print(f"{data.name}, --features {features}, {format_count(workers, 'worker')}: "
                      f"{memory / 2**20:,.0f} MB", flush=True)


def write_recordings(folder: Path, count: int, seconds: int, ending: str) -> None:
    """Write `count` recordings of a tone and noise, each of `seconds`. ending: wav, ogg or mp3."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(count):
        tone = 0.3 * np.sin(np.arange(RATE * seconds) * (0.02 + index / count))
        samples = tone + 0.1 * generator.standard_normal(len(tone))
        # In blocks, because libsndfile's Vorbis encoder crashes if it gets a minute at once.
        with soundfile.SoundFile(folder / f"{index:05}.{ending}", "w", RATE, 1) as file:
            for second in samples.reshape(seconds, RATE):
                file.write(second)


def write_long_recording(path: Path, hours: float) -> None:
    """Write a stereo recording of `hours`: the same minute of noise repeated."""
    minute = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE * MINUTE, 2))
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        for _ in range(max(1, round(hours * 60))):
            file.write(minute)


def prepare(data: Path, out: Path, rate: int, workers: int, features: str) -> tuple[float, int]:
    """Run preprocess.py: (the seconds that it reports, the peak bytes of its processes)."""
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--output", str(out),
               "--rate", str(rate), "--workers", str(workers), "--features", features]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_bytes, process_tree(process.pid))))
            time.sleep(0.05)
        output = process.stdout.read() if process.stdout else ""
    reported = re.search(r"in ([\d.]+) s;", output)
    if not reported:
        raise UserError(f"preprocess.py ended with exit code {process.returncode}; see its "
                        "messages above")
    return float(reported[1]), peak


def process_tree(pid: int) -> list[int]:
    """The process `pid` and its descendants."""
    try:
        children = [int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children")
                    for child in tasks.read_text().split()]
    except OSError:  # the process has just ended
        return []
    return [pid, *(each for child in children for each in process_tree(child))]


def proportional_bytes(pid: int) -> int:
    """The proportional set size: the process's bytes, shared pages divided among their users."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    run_script(main)
