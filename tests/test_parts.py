"""A corpus prepared in parts equals the one that a single machine prepares."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from test_preprocess import contents, preprocess

from common.errors import UserError
from datasets.batches import training_batches
from datasets.corpus.reader import Corpus
from datasets.corpus.windows import Windows

RATE, COUNT = 8000, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with recordings, their corpus in `whole`, and the same in `parts`."""
    folder = tmp_path_factory.mktemp("parts")
    generator = np.random.default_rng(0)
    for number in range(20):
        # Two labels of a single recording; and names that sort otherwise as paths than as texts.
        label = {3: "once", 4: "a-b"}.get(number, "ab"[number % 2])
        path = folder / f"data/{label}/{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.uniform(-1, 1, 3000 + 100 * number), RATE)
    (folder / "data/b/bad.wav").write_bytes(b"no sound")
    assert prepare(folder, "whole")[0] == 0
    for number in range(1, COUNT + 1):
        code, out, err = prepare(folder, "parts", f"{number}/{COUNT}")
        assert code == 0 and f"next, with all {COUNT} parts in one folder: python train_" in out
        assert f"drawn in parts/corpus_{number}_of_{COUNT}.png" in out
    return folder


def prepare(folder, out, part=None, *more):
    return preprocess("--data", "data", "--output", out, "--workers", 1, "--flush_every", 4,
                      "--validation", 0.2, *(["--part", part] if part else []), *more, cwd=folder)


def test_training_on_parts_equals_training_on_the_whole(world):
    whole, parts = Corpus(world / "whole"), Corpus(world / "parts")
    assert whole.label_names == parts.label_names == ["a", "a-b", "b", "once"]
    for name in ("train", "validation"):
        batches = []
        for corpus in (whole, parts):
            windows = Windows(getattr(corpus, name), corpus.target_length, 20, corpus.levels)
            batches.append([*training_batches(windows, 4, seed=1, epoch=2)])
        assert len(batches[0]) == len(batches[1]) > 1
        for one, other in zip(*batches, strict=True):
            assert all(map(torch.equal, one[:3], other[:3]))
    assert [recording.name for recording in whole.train.recordings] == [
        recording.name for recording in parts.train.recordings]


def test_parts_share_a_folder_without_a_clash(world):
    names = {path.name for path in (world / "parts").iterdir()}
    assert {"corpus_2_of_3.png", "vctk_2_of_3_manifest.json", "vctk_2_of_3_train_00000.npy",
            "vctk_3_of_3_train_00000.npy"} <= names
    assert not any(name.startswith(".") for name in names)
    before = contents(world / "parts")
    assert prepare(world, "parts", "2/3")[0] == 0
    assert contents(world / "parts") == before


@pytest.fixture
def parts(world, tmp_path):
    """A copy of the parts."""
    shutil.copytree(world / "parts", tmp_path / "parts")
    return tmp_path / "parts"


def test_a_missing_part_is_named_with_its_command(parts):
    (parts / "vctk_2_of_3_manifest.json").unlink()
    with pytest.raises(UserError, match="vctk_2_of_3_manifest.json: not found, one of 3 parts; .*"
                                        "python preprocess.py --part 2/3 --data"):
        Corpus(parts)


@pytest.mark.parametrize("name", ["vctk_manifest.json", "vctk_1_of_2_manifest.json"])
def test_a_mixture_of_corpora_is_refused(parts, name):
    shutil.copy(parts / "vctk_1_of_3_manifest.json", parts / name)
    with pytest.raises(UserError, match="of different corpora"):
        Corpus(parts)


@pytest.mark.parametrize("change", [{"rate": 4000}, {"target_length": 99}, {"collection": "x"}])
def test_parts_of_different_corpora_are_refused(parts, change):
    path = parts / "vctk_3_of_3_manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="vctk_3_of_3_manifest.json: prepared with other flags"):
        Corpus(parts)


@pytest.mark.parametrize("flags", [["--silence_threshold", 0.01], ["--validation", 0.4],
                                   ["--labels", "none"], ["--data", "data/a"]])
def test_parts_of_other_flags_or_recordings_are_refused(world, parts, flags):
    assert prepare(world, parts, "2/3", *flags)[0] == 0
    with pytest.raises(UserError, match="vctk_2_of_3_manifest.json: prepared with other flags"):
        Corpus(parts)


@pytest.mark.parametrize("there, part, told", [
    ("whole", "1/3", "holds a whole corpus; remove vctk_manifest.json, vctk_train_"),
    ("parts", None, "holds a corpus in 3 parts; remove vctk_*_of_3_*"),
    ("parts", "1/2", "holds a corpus in 3 parts; remove vctk_*_of_3_*")])
def test_parts_that_do_not_go_together_are_not_written(world, there, part, told):
    before = contents(world / there)
    code, out, err = prepare(world, there, part)
    assert (code, out) == (2, "") and err.startswith(f"error: --output {there}: {told}")
    assert err.count("\n") == 1 and contents(world / there) == before


@pytest.mark.parametrize("part", ["0/8", "9/8", "2", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_a_wrong_part_is_refused(tmp_path, part):
    code, _, err = preprocess(f"--part={part}", cwd=tmp_path)
    assert code == 2 and "--part" in err and "such as 2/8" in err and err.count("\n") == 1


def test_a_part_without_training_or_validation_data_is_reported_and_read(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / f"data/{number}.wav", np.full(900, 0.1), RATE)
    (tmp_path / "data/3.wav").write_bytes(b"no sound")
    told = []
    for number in range(1, 6):
        code, _, err = prepare(tmp_path, "parts", f"{number}/5")
        assert code == 0
        warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
        told += [line.partition(";")[0].removeprefix("warning: part ") for line in warnings]
    lacks = "holds no recording for validation"
    assert len(told) == 4 and [line for line in told if line[-len(lacks):] != lacks] == [
        "4 of 5 holds no recording", "5 of 5 holds no recording"]
    corpus = Corpus(tmp_path / "parts")
    assert len(corpus.train.recordings) == 2 and len(corpus.validation.recordings) == 1
    code, _, err = prepare(tmp_path, "strict", "4/5", "--strict")
    assert code == 2 and "3.wav: not a recording" in err


def test_parts_without_any_recording_are_no_corpus(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.wav").write_bytes(b"no sound")
    for part in ("1/2", "2/2"):
        assert prepare(tmp_path, "parts", part)[0] == 0
    with pytest.raises(UserError, match="parts: in none of its 2 parts there is a recording"):
        Corpus(tmp_path / "parts")
