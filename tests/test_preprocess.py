import json
import shutil
import subprocess
import sys
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen.id3 import TCON, TDRC
from PIL import Image

from datasets.corpus.reader import Corpus
from datasets.quantization import mu_law_decode

SCRIPT = Path(__file__).parents[1] / "preprocess.py"


def preprocess(*flags, cwd):
    """Run the script as a user does: (exit code, stdout, stderr)."""
    result = subprocess.run([sys.executable, str(SCRIPT), *map(str, flags)], cwd=cwd, text=True,
                            capture_output=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


def tone(frequency, rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def tagged(path, seconds=0.5, **tags):
    """A recording with tags, by their names in Vorbis comments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(440, 8000, seconds), 8000)
    file = mutagen.File(path, easy=True)
    if path.suffix in (".wav", ".aiff"):
        file.add_tags()
        for name, frame in (("genre", TCON), ("date", TDRC)):
            if name in tags:
                file.tags.add(frame(encoding=3, text=[tags[name]]))
    else:
        file.update(tags)
    file.save()


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
    assert len(contents(tmp_path / "1")) == 1 + 6 + 1 + 1  # shards of two recordings each
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
    assert len(lines) == 12 and lines[-2] == "and 2 more left out"
    assert lines[-1].startswith("warning: label data has 0.0 seconds in 1 recording")
    assert "bad00.wav: " in lines[0] and "; " in lines[0]
    corpus = Corpus(tmp_path / "out")
    assert len(corpus.train.recordings) + len(corpus.validation.recordings) == 13


@pytest.mark.parametrize("bad", range(3))
def test_both_splits_are_filled_whichever_file_is_bad(tmp_path, bad):
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
                                   ["--flush_every", "-1"], ["--labels", "tone"], ["--tempo", "3"],
                                   ["--labels", "(a"], ["--validation", "(a"], ["--genres", "a b"],
                                   ["--genres", "metal"], ["--min_seconds", "-1"],
                                   ["--max_seconds", "0"], ["--offset_seconds", "nan"]])
def test_wrong_flags_are_refused_by_name(tmp_path, flags):
    code, _, err = preprocess(*flags, cwd=tmp_path)
    assert code == 2 and flags[0] in err and "Traceback" not in err


def test_labels_and_validation_by_regular_expressions(data, tmp_path):
    code, out, err = preprocess("--data", data, "--output", "out", "--labels", r"_(zoe\d)_",
                                "--validation", "^b/", cwd=tmp_path)
    assert (code, err) == (0, "")
    corpus = Corpus(tmp_path / "out")
    assert corpus.label_names == ["zoe0", "zoe1", "zoe2"]
    assert {recording.name[0] for recording in corpus.train.recordings} == {"a"}
    assert {recording.name[0] for recording in corpus.validation.recordings} == {"b"}
    for recording in corpus.train.recordings:
        assert corpus.label_names[recording.label] in recording.name
    code, out, err = preprocess("--data", data, "--output", "out", "--labels", r"^a/.*(zoe\d)",
                                cwd=tmp_path)
    assert code == 0 and "6 recordings read" in out and "6 left out" in out
    assert "no label, --labels ^a/.*(zoe\\d) doesn't match b/" in err


@pytest.mark.parametrize("expression, matched", [("nothing", 0), (".", 12)])
def test_a_validation_expression_that_splits_nothing_is_refused(data, tmp_path, expression,
                                                                 matched):
    code, _, err = preprocess("--data", data, "--output", "out", "--validation", expression,
                              cwd=tmp_path)
    assert code == 2 and err.count("\n") == 1
    assert err.startswith(f"error: --validation {expression}: matches {matched} of 12 recordings")


def test_short_recordings_are_left_out_and_excerpts_of_others_are_read(tmp_path):
    for number in (1, 2, 3, 4):
        for rate in (8000, 44100):
            path = tmp_path / f"data/{number}_{rate}.flac"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, np.repeat([0.1, 0.2, 0.3, 0.4], rate)[:number * rate], rate)
    code, out, err = preprocess("--data", "data", "--output", "out", "--min_seconds", 2,
                                "--offset_seconds", 1.5, "--max_seconds", 1, cwd=tmp_path)
    assert code == 0 and "6 recordings read" in out and "2 left out" in out
    assert "1_8000.flac: 1 seconds long, shorter than --min_seconds 2" in err
    corpus = Corpus(tmp_path / "out")
    for part in (corpus.train, corpus.validation):
        for number, recording in enumerate(part.recordings):
            samples = mu_law_decode(part.codes(number), 256)
            assert len(samples) == (4000 if recording.name[0] == "2" else 8000)
            assert np.allclose(samples[100:3900], 0.2, atol=0.01)
            assert np.allclose(samples[4100:7900], 0.3, atol=0.01)
    code, _, err = preprocess("--data", "data", "--output", "out", "--offset_seconds", 1,
                              cwd=tmp_path)
    assert code == 0 and "1_8000.flac: 1 seconds long, over before --offset_seconds 1" in err


def test_strict_makes_unusable_recordings_an_error(data, tmp_path):
    assert preprocess("--data", data, "--output", "out", "--strict", cwd=tmp_path)[0] == 0
    before = contents(tmp_path / "out")
    (data / "bad.wav").write_bytes(b"no sound")
    code, out, err = preprocess("--data", data, "--output", "out", "--strict", cwd=tmp_path)
    assert (code, out) == (2, "") and contents(tmp_path / "out") == before
    assert err.startswith("error: ") and "bad.wav" in err and err.count("\n") == 1


def test_the_summary_warns_of_labels_with_too_little_sound(tmp_path):
    for label, count, seconds, volume in (("much", 6, 2, 1), ("some", 3, 1, 0.1), ("a", 1, 0.2, 1)):
        for number in range(count):
            path = tmp_path / f"data/{label}/{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, volume * tone(440, 8000, seconds + number), 8000)
    code, out, err = preprocess("--data", "data", "--output", "out", cwd=tmp_path)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["much"].split()[1:] == ["6", "27", "2.00,", "4.50,", "7.00", "s", "-9.0", "dB"]
    assert lines["some"].split()[1:] == ["3", "6", "1.00,", "2.00,", "3.00", "s", "-29.0", "dB"]
    assert err == ("warning: label a has 0.2 seconds in 1 recording, next to nothing beside the "
                   "others; the network will not learn it\n")
    with Image.open(tmp_path / "out/corpus.png") as picture:
        assert picture.width > 800 and picture.format == "PNG"


def test_all_flags_work_in_a_config_file(tmp_path):
    for number, genre in enumerate(["Metalcore", "Punk Rock", "Polka", "Rock", "Rock", "Metal"]):
        tagged(tmp_path / f"data/{number}.flac", seconds=1 + number / 10, genre=genre)
    flags = {"data": "data", "output": "typed", "workers": 1, "part": "1/2", "rate": 4000,
             "stacks_num": 2, "layers_num": 3, "target_length": 50, "flush_every": 7, "levels": 99,
             "encoding": "linear",
             "labels": "genre", "genres": "metal,rock", "validation": 0.4,
             "validation_of": "recordings", "min_seconds": 0.2, "max_seconds": 0.6,
             "offset_seconds": 0.1, "silence_threshold": 0.01, "silence_after": 0.05,
             "features": "mel", "hop_seconds": 0.01, "bins": 9, "strict": False}
    typed = [f"--{name}={value}" for name, value in flags.items() if value is not False]
    code, out, err = preprocess(*typed, cwd=tmp_path)
    assert code == 0 and "1 left out" in out
    settings = {line.split()[0].strip("-[,") for line in preprocess(
        "--help", cwd=tmp_path)[1].splitlines() if line.startswith("  --")}
    assert settings == {*flags, "config", "transcripts"}  # the last is in test_speech_commands.py
    for genres in ("metal,rock", ["metal", "rock"]):
        (tmp_path / "flags.json").write_text(json.dumps(flags | {"output": "read",
                                                                 "genres": genres}))
        code, said, told = preprocess("--config", "flags.json", cwd=tmp_path)
        assert (code, told) == (0, err)
        assert contents(tmp_path / "read") == contents(tmp_path / "typed")
        shutil.rmtree(tmp_path / "read")
    (tmp_path / "flags.json").write_text(json.dumps({"data": "data", "strict": True,
                                                     "labels": "year"}))
    code, _, err = preprocess("--config", "flags.json", cwd=tmp_path)
    assert code == 2 and "its tags hold no year" in err


def test_help_does_not_wait_for_torch():
    code = 'import sys, preprocess; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent).returncode == 0
