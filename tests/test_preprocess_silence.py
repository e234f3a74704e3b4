"""Silence that preprocess.py cuts off, or adds."""

import numpy as np
import pytest
import soundfile
from test_preprocess import preprocess, tone

from datasets.corpus.reader import Corpus
from datasets.quantization import silence


def test_silence_is_cut_off_at_both_ends_and_reported(tmp_path):
    quiet = 0.004 * tone(440, 8000, 1)
    for name, parts in (("a", (quiet, tone(440, 8000, 1), quiet, tone(440, 8000, 0.5), quiet)),
                        ("b", (quiet,)), ("c", (tone(300, 8000),))):
        path = tmp_path / f"data/{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.concatenate(parts), 8000)
    code, out, err = preprocess("--data", "data", "--output", "out", "--silence_threshold", 0.01,
                                cwd=tmp_path)
    assert code == 0 and "2.0 s of silence at beginnings and ends were cut off" in out
    assert "b.wav: all of it is below --silence_threshold 0.01" in err
    corpus = Corpus(tmp_path / "out")
    lengths = {recording.name: recording.length for part in (corpus.train, corpus.validation)
               for recording in part.recordings}
    assert lengths == {"a.wav": 20000, "c.wav": 4000}


def test_silence_follows_each_recording(tmp_path):
    quiet = 0.004 * tone(440, 8000, 1)
    (tmp_path / "data").mkdir()
    for name, sound in (("a", (tone(440, 8000, 1), quiet)), ("b", (tone(300, 8000), ))):
        soundfile.write(tmp_path / f"data/{name}.wav", np.concatenate(sound), 8000)
    flags = ("--data", "data", "--validation", 0, "--silence_threshold", 0.01, "--features", "mel")
    _, told, _ = preprocess(*flags, "--output", "plain", cwd=tmp_path)
    code, out, _ = preprocess(*flags, "--output", "out", "--silence_after", 0.1, cwd=tmp_path)
    assert code == 0 and "0.1 s of silence follow each recording" in out
    assert [line.split()[-2] for line in out.splitlines() if line.endswith("dB")] == [
        line.split()[-2] for line in told.splitlines() if line.endswith("dB")]  # loudness
    plain, split = (Corpus(tmp_path / name).train for name in ("plain", "out"))
    for index, recording in enumerate(plain.recordings):
        codes, before = split.codes(index), plain.codes(index)
        assert len(codes) == recording.length + 800
        assert (codes[:-800] == before).all() and (codes[-800:] == silence(256)).all()
        assert len(split.frames(index)) == -(-len(codes) // 100)
        assert (split.frames(index)[-5:] == -1).all()  # silence has frames too


@pytest.mark.parametrize("flags, line", [
    (("--silence_after", 61), "61 is more than 60 seconds"),
    (("--silence_after", 1, "--validation_of", "each"), "--silence_after: would follow only what "),
    (("--silence_after", 1, "--features", "npy"), "--silence_after: changes recordings, and not")])
def test_silence_that_can_not_follow(tmp_path, flags, line):
    code, _, err = preprocess("--data", "data", *flags, cwd=tmp_path)
    assert code == 2 and line in err
