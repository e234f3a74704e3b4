"""Recordings that are damaged, empty or very long, as preprocess.py takes them."""

import os
import struct
import subprocess
import sys

import numpy as np
import soundfile
from test_preprocess import SCRIPT, preprocess

from datasets.corpus import Corpus


def test_bad_files_of_all_kinds_beside_a_good_one(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40000)
    told = {}

    def write(name, samples, why=None, keep=1.0, **how):
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, 16000, **how)
        path.write_bytes(path.read_bytes()[:round(keep * path.stat().st_size)])
        if why:
            told[name] = why

    write("good.wav", noise)
    write("one.wav", noise[:1])
    write("zero.wav", noise[:0], "holds no samples")
    write("zero.flac", noise[:0], "not a recording that can be decoded")
    write("nan.wav", np.append(noise, np.nan), "holds NaN or infinite", subtype="FLOAT")
    for ending in ("mp3", "wav", "aiff"):
        write(f"cut.{ending}", noise, "truncated", keep=0.5)
    write("cut.flac", noise, "not a recording that can be decoded", keep=0.5)
    code, out, err = preprocess("--data", "data", "--output", "out", "--rate", 16000,
                                cwd=tmp_path)
    assert code == 0 and "2 recordings read" in out, err
    lines = {line.split(": ")[1]: line for line in err.splitlines() if "left out: " in line}
    assert lines.keys() == {f"data/{name}" for name in told}
    assert all(why in lines[f"data/{name}"] for name, why in told.items())


def test_a_single_file_that_cannot_be_used_is_named_itself(tmp_path):
    path = tmp_path / "data/none.wav"
    path.parent.mkdir()
    soundfile.write(path, np.zeros(0), 8000)
    code, out, err = preprocess("--data", path, cwd=tmp_path)
    assert (code, out) == (2, "") and err == f"error: --data {path}: holds no samples; remove it\n"


def test_four_hours_take_little_memory(tmp_path):
    """A wav that is a hole; it used to be held as float32, 461 MB."""
    path, length = tmp_path / "long.wav", 4 * 3600 * 8000
    soundfile.write(path, np.zeros(0), 8000)
    header = bytearray(path.read_bytes()[:44])
    header[4:8], header[40:44] = struct.pack("<I", 36 + 2 * length), struct.pack("<I", 2 * length)
    path.write_bytes(header)
    os.truncate(path, 44 + 2 * length)
    code = ("import resource, runpy, sys\nsys.argv = ['preprocess.py', *sys.argv[1:]]\n"
            "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "finally:\n print(*[x for x in open('/proc/self/status') if x[:5] == 'VmHWM'])\n"
            " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", code, "--data", path, "--output",
                           tmp_path / "out"], cwd=SCRIPT.parent, text=True, capture_output=True)
    assert "1 recordings read, 4:00:00 of sound" in done.stdout, done.stderr
    _, parent, _, worker = done.stdout.split()[-4:]
    assert 0 < int(parent) < 200_000 and 0 < int(worker) < 200_000
    recording, = Corpus(tmp_path / "out").train.recordings
    assert recording.length == length
