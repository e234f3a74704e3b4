"""How preprocess.py treats damaged, empty and very long recordings."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from test_preprocess import SCRIPT, contents, preprocess, tone

from datasets.corpus.reader import Corpus


def test_bad_files_of_all_kinds_next_to_a_good_one(tmp_path):
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
    for ending in ("wav", "aiff"):
        write(f"cut.{ending}", noise, "truncated", keep=0.5)
    write("cut.mp3", noise, keep=0.5)
    write("cut.flac", noise, "not a recording that can be decoded", keep=0.5)
    code, out, err = preprocess("--data", "data", "--output", "out", "--rate", 16000,
                                cwd=tmp_path)
    assert code == 0 and "3 recordings read" in out, err
    lines = {line.split(": ")[1]: line for line in err.splitlines() if "left out: " in line}
    assert lines.keys() == {f"data/{name}" for name in told}
    assert all(why in lines[f"data/{name}"] for name, why in told.items())


def test_recordings_of_all_endings_are_read_or_listed(tmp_path):
    kinds = {"ogg": ("OGG", "VORBIS"), "oga": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
             "mp3": ("MP3", None), "aifc": ("AIFF", None), "au": ("AU", None), "caf": ("CAF", None),
             "w64": ("W64", None), "WAV": ("WAV", None)}
    for ending, (kind, subtype) in kinds.items():
        soundfile.write(tmp_path / f"x.{ending}", tone(300, 8000), 8000, subtype, format=kind)
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x1cftypM4A \0\0\0\0")
    code, out, err = preprocess("--output", "out", cwd=tmp_path)
    assert code == 0 and f"{len(kinds)} recordings read" in out and "1 left out" in out
    assert "left out: song.m4a: not a recording that can be decoded" in err
    assert "convert it to wav or flac" in err


def test_names_that_are_not_utf_8_are_read_as_latin_1(tmp_path):
    folder = tmp_path / "data" / os.fsdecode("caf\u00e9".encode("latin-1"))
    try:
        folder.mkdir(parents=True)
    except OSError:
        pytest.skip("such names can't be on this disk")
    (tmp_path / "data/b").mkdir()
    for number in range(3):
        soundfile.write(os.fsencode(folder / f"{number}.wav"), tone(300, 8000), 8000, format="WAV")
        soundfile.write(tmp_path / f"data/b/{number}.wav", tone(200, 8000), 8000)
    (folder / "bad.wav").write_bytes(b"no sound")
    outputs = os.fsdecode(b"out\xe9"), "again"
    for output in outputs:
        code, out, err = preprocess("--data", "data", "--output", output, cwd=tmp_path)
        assert code == 0 and "6 recordings read" in out, err
        assert "labels: b, caf\u00e9\n" in out and "bad.wav: not a recording" in err
        assert Corpus(tmp_path / output).label_names == ["b", "caf\u00e9"]
    first, again = (contents(tmp_path / output) for output in outputs)
    assert first == again


def test_a_single_unusable_file_is_named(tmp_path):
    path = tmp_path / "data/none.wav"
    path.parent.mkdir()
    soundfile.write(path, np.zeros(0), 8000)
    code, out, err = preprocess("--data", path, cwd=tmp_path)
    assert (code, out) == (2, "") and err == f"error: --data {path}: holds no samples; remove it\n"


def test_four_hours_take_little_memory(tmp_path):
    """A sparse wav; memory used to hold it as float32, 461 MB."""
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
