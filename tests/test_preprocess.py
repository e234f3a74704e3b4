import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import encoding
from datasets.corpus import Corpus
from datasets.errors import UserError
from datasets.quantization import mu_law_decode

SCRIPT = Path(__file__).parents[1] / "preprocess.py"


def preprocess(*flags, cwd):
    """Run the script as a user does: (exit code, stdout, stderr)."""
    result = subprocess.run([sys.executable, str(SCRIPT), *map(str, flags)], cwd=cwd, text=True,
                            capture_output=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


def tone(frequency, rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def data(tmp_path):
    """Twelve recordings of two speakers, of several rates, depths and channels."""
    kinds = [(8000, "PCM_16", 1), (48000, "PCM_24", 2), (44100, "FLOAT", 1), (16000, "PCM_U8", 3)]
    for number in range(12):
        rate, subtype, channels = kinds[number % 4]
        path = tmp_path / "data" / "ab"[number % 2] / f"{number % 3}_zoe{number % 3}_{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.repeat(tone(300 + 50 * number, rate)[:, None], channels, 1)
        soundfile.write(path, samples, rate, subtype=subtype)
    return tmp_path / "data"


def test_the_corpus_does_not_depend_on_the_number_of_workers(data, tmp_path):
    for workers in (1, 3):
        code, out, err = preprocess("--data", data, "--output", tmp_path / f"{workers}",
                                    "--workers", workers, "--flush_every", 5, cwd=tmp_path)
        assert (code, err) == (0, "")
        assert "12 recordings read" in out and "1 held back" in out
        assert "0:00:06 of sound" in out and "labels: a, b\n" in out
        assert f"python train_wavenet.py --data {tmp_path / str(workers)}" in out
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert len(contents(tmp_path / "1")) == 1 + 6 + 1  # shards of two recordings each
    corpus = Corpus(tmp_path / "1")
    assert corpus.label_names == ["a", "b"]
    assert (len(corpus.train.recordings), len(corpus.validation.recordings)) == (11, 1)
    for number, recording in enumerate(corpus.train.recordings):
        frequency = 300 + 50 * int(Path(recording.name).stem.split("_")[2])
        assert corpus.label_names[recording.label] == Path(recording.name).parent.name
        heard = mu_law_decode(corpus.train.codes(number), 256)[500:3500]
        assert np.abs(heard - tone(frequency, 8000)[500:3500]).max() < 0.03


def test_settings_reach_the_manifest(data, tmp_path):
    code, out, _ = preprocess("--data", data / "a", "--output", "made/here", "--workers", 2,
                              "--rate", 4000, "--stacks_num", 3, "--layers_num", 4,
                              "--levels", 1024, "--target_length", 99, "--labels", "speaker",
                              "--validation", 0, cwd=tmp_path)
    assert code == 0 and "python train_wavenet.py --data made/here" in out
    corpus = Corpus(tmp_path / "made/here")
    assert (corpus.rate, corpus.stacks_num, corpus.layers_num, corpus.target_length,
            corpus.levels) == (4000, 3, 4, 99, 1024)
    assert corpus.label_names == ["zoe0", "zoe1", "zoe2"] and not corpus.validation.recordings
    assert corpus.train.codes(0).dtype == np.uint16 and len(corpus.train.codes(0)) == 2000


def test_defaults_read_and_write_the_working_folder(data):
    code, out, _ = preprocess("--labels", "none", cwd=data / "a")
    assert code == 0 and "labels: none" in out
    assert Corpus(data / "a").label_names == []


def test_a_single_file_is_a_corpus_without_validation(data, tmp_path):
    file = next((data / "a").iterdir())
    code, _, _ = preprocess("--data", file, "--output", "out", cwd=tmp_path)
    corpus = Corpus(tmp_path / "out")
    assert code == 0 and corpus.label_names == ["a"]
    assert [recording.name for recording in corpus.train.recordings] == [file.name]
    assert not corpus.validation.recordings


def test_bad_files_are_left_out_and_listed(data, tmp_path):
    for number in range(11):
        (data / f"bad{number:02}.wav").write_bytes(b"no sound")
    good = next((data / "a").iterdir())
    (data / "cut.wav").write_bytes(good.read_bytes()[:500])
    soundfile.write(data / "loud.wav", np.array([0.5, 3, -2]), 8000, subtype="FLOAT")
    code, out, err = preprocess("--data", data, "--output", "out", cwd=tmp_path)
    assert code == 0 and "13 recordings read" in out and "2 samples beyond full scale" in out
    lines = err.splitlines()
    assert len(lines) == 11 and lines[-1] == "and 2 more left out"
    assert "bad00.wav: " in lines[0] and "; " in lines[0]
    corpus = Corpus(tmp_path / "out")
    assert len(corpus.train.recordings) + len(corpus.validation.recordings) == 13


@pytest.mark.parametrize("bad", range(3))
def test_both_parts_are_filled_whichever_file_is_bad(tmp_path, bad):
    for number in range(3):
        path = tmp_path / f"data/{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(0 if number == bad else 900), 8000)
    code, _, err = preprocess("--data", "data", "--output", "out", "--validation", 0.6,
                              "--workers", 1, cwd=tmp_path)
    corpus = Corpus(tmp_path / "out")
    assert code == 0 and f"{bad}.wav: holds no samples" in err
    assert len(corpus.train.recordings) == len(corpus.validation.recordings) == 1


def test_nothing_readable_leaves_the_earlier_corpus(data, tmp_path):
    assert preprocess("--data", data, "--output", "out", cwd=tmp_path)[0] == 0
    before = contents(tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.wav").write_bytes(b"no sound")
    code, out, err = preprocess("--data", "bad", "--output", "out", cwd=tmp_path)
    assert (code, out) == (2, "") and contents(tmp_path / "out") == before
    assert err.startswith("error: --data bad: ") and err.count("\n") == 1


@pytest.mark.parametrize("flags, named", [
    (["--data", "nowhere"], "--data nowhere"), (["--data", "empty"], "--data empty"),
    (["--levels", "1"], "--levels 1"), (["--levels", "65537"], "--levels 65537"),
    (["--output", "file"], "--output file")])
def test_bad_input_is_one_line_and_exit_code_2(data, tmp_path, flags, named):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    code, out, err = preprocess("--data", data, "--output", "out", *flags, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {named}") and err.count("\n") == 1


@pytest.mark.parametrize("flags", [["--rate", "0"], ["--workers", "x"], ["--validation", "1"],
                                   ["--flush_every", "-1"], ["--labels", "tone"], ["--tempo", "3"]])
def test_wrong_flags_are_refused_by_name(tmp_path, flags):
    code, _, err = preprocess(*flags, cwd=tmp_path)
    assert code == 2 and flags[0] in err and "Traceback" not in err


def die(*_):
    os._exit(1)


def test_a_worker_that_dies_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(encoding, "encode", die)
    with pytest.raises(UserError, match="--workers 2: a process died"):
        list(encoding.encoded([Path("x.wav")] * 20, 8000, 256, workers=2))


def test_help_does_not_wait_for_torch():
    code = 'import sys, preprocess; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent).returncode == 0
