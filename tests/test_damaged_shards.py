"""Shards with wrong numbers in a right form are reported by name when they are read."""

import numpy as np
import pytest
from forks import refused
from test_corpus import write as write_codes
from test_corpus_features import write as write_frames

from common.errors import UserError
from datasets.batches import evaluation_batches, training_batches
from datasets.corpus.reader import Corpus
from datasets.corpus.windows import Windows

SMALL = "train_wavenet.py -d corpus --hidden_dim 2 --out_hidden_dim 2 -b 2 --iterations 60 -o run"


def change(path, place, value):
    """Put a number into the shard at `path`."""
    shard = np.load(path, mmap_mode="r+")
    shard[place] = value
    shard.flush()


@pytest.mark.parametrize("levels, most", [(4, 4), (4, 255), (1000, 1000), (1000, 65535)])
@pytest.mark.parametrize("place", [0, 99])  # of the one recording in the shard
def test_a_code_beyond_the_levels(tmp_path, levels, most, place):
    codes = [np.zeros(20, int), np.zeros(100, int), np.zeros(30, int)]
    write_codes(tmp_path, codes, levels=levels, flush_every=1)
    change(tmp_path / "vctk_train_00001.npy", place, most)
    windows = Windows(Corpus(tmp_path).train, 16, 40, levels)
    assert len(windows[[0, len(windows) - 1]].codes) == 2
    for read in (lambda: windows[np.arange(len(windows))],
                 lambda: [*training_batches(windows, 3, seed=0, epoch=0, workers=1)]):
        with pytest.raises(UserError, match=rf"^\S*vctk_train_00001.npy: damaged \(the code {most} "
                                            rf"of {levels} levels\); run preprocess.py again$"):
            read()
    change(tmp_path / "vctk_train_00001.npy", place, levels - 1)
    assert sum(len(batch.codes) for batch in evaluation_batches(windows, 3, workers=1)) == (
        len(windows))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_frames_that_are_not_finite(tmp_path, value):
    write_frames(tmp_path)
    change(tmp_path / "vctk_train_features_00001.npy", (14, 2), value)
    corpus = Corpus(tmp_path)
    windows = Windows(corpus.train, 16, 40, 256, 1)
    assert len(windows[[0, 1]].codes) == 2
    for read in (lambda: windows[np.arange(len(windows))], lambda: corpus.train.read_frames(5),
                 corpus.train.frame_statistics):
        with pytest.raises(UserError, match=r"^\S*vctk_train_features_00001.npy: damaged \(NaN or "
                                            r"infinite numbers\); run preprocess.py again$"):
            read()
    assert np.array_equal(corpus.train.read_frames(5, 0, 9), corpus.train.frames(5)[:9])


@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_bad_codes_ends_with_one_line(tmp_path, workers):
    write_codes(tmp_path / "corpus", [np.zeros(900, int)], levels=8)
    change(tmp_path / "corpus/vctk_train_00000.npy", 700, 8)
    line = refused(f"{SMALL} --workers {workers}", tmp_path)
    assert line.endswith("corpus/vctk_train_00000.npy: damaged (the code 8 of 8 levels); run "
                         "preprocess.py again")


def test_training_on_frames_ends_with_one_line(tmp_path):
    write_frames(tmp_path / "corpus")
    change(tmp_path / "corpus/vctk_train_features_00000.npy", (3, 0), np.nan)
    assert "vctk_train_features_00000.npy: damaged (NaN" in refused(SMALL, tmp_path)
