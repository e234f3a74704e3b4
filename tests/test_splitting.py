"""preprocess.py --validation_of each holds back the end of each recording."""

import numpy as np
import pytest
import soundfile
from test_preprocess import preprocess, tone

from datasets.corpus.reader import Corpus
from datasets.corpus.splitting import Splitting


@pytest.fixture
def data(tmp_path):
    """Twelve recordings of several rates, half a second each."""
    for number in range(12):
        rate = (8000, 48000, 44100, 16000)[number % 4]
        path = tmp_path / "data" / f"{number}_zoe{number % 3}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, tone(300 + 50 * number, rate), rate)
    return tmp_path / "data"


@pytest.mark.parametrize("features", ["none", "mel"])
def test_the_end_of_each_recording_is_held_back(data, tmp_path, features):
    """The two splits put together are what is prepared without one, sample for sample."""
    flags = ["--data", data, "--features", features, "--flush_every", 5]
    for out, more in (("whole", ["--validation", 0]),
                      ("split", ["--validation", 0.3, "--validation_of", "each"])):
        code, printed, err = preprocess(*flags, *more, "--output", tmp_path / out, cwd=tmp_path)
        assert (code, err) == (0, "")
    assert "12 recordings read, 0:00:06 of sound" in printed
    assert "the ends of 12 held back for validation, 0:00:02" in printed
    whole, split = Corpus(tmp_path / "whole").train, Corpus(tmp_path / "split")
    parts = split.train, split.validation
    for index, recording in enumerate(whole.recordings):
        pieces = [part.recordings[index] for part in parts]
        begin = pieces[0].length / 8000
        assert [piece.name for piece in pieces] == [recording.name, f"{recording.name}#t={begin:g}"]
        assert abs(pieces[1].length - 0.3 * recording.length) <= 100
        joined = np.concatenate([part.codes(index) for part in parts])
        assert np.array_equal(joined, whole.codes(index))
        if features == "mel":
            joined = np.concatenate([part.frames(index) for part in parts])
            assert np.array_equal(joined, whole.frames(index))


def test_a_recording_too_short_to_divide_is_for_training():
    splitting = Splitting(["held"], 10, 0.1, 100)
    assert splitting.pieces("x", 1000) == [("train", "x", 0, 900),
                                           ("validation", "x#t=90", 900, 1000)]
    assert splitting.pieces("x", 1049)[1] == ("validation", "x#t=90", 900, 1049)
    assert splitting.pieces("x", 99) == [("train", "x", 0, 99)]
    assert splitting.pieces("held", 1000) == [("validation", "held", 0, 1000)]
    assert Splitting([], 10, 0, 100).pieces("x", 1049) == [("train", "x", 0, 1049)]
    assert splitting.held_back("x", 1049) == 149 and splitting.held_back("held", 7) == 7


def test_ends_are_of_fractions(data, tmp_path):
    code, _, err = preprocess("--data", data, "--validation", "zoe1", "--validation_of", "each",
                              cwd=tmp_path)
    assert code == 2 and "--validation zoe1: must be a fraction" in err
