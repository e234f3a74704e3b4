import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from datasets.batches import IGNORED, training_batches
from datasets.corpus.reader import ENTIRE_CORPUS, Corpus
from datasets.corpus.splitting import validation_names
from datasets.corpus.windows import Windows
from datasets.corpus.writer import CorpusWriter

LENGTHS = (1, 5, 16, 17, 32, 100, 15, 48)  # of recordings; windows are 16 long


def writer(folder, levels=256, flush_every=4, labels="folder", target_length=16):
    return CorpusWriter(folder, rate=8000, levels=levels, stacks_num=2, layers_num=3,
                        target_length=target_length, labels=labels, flush_every=flush_every)


def recordings(levels=256, lengths=LENGTHS):
    generator = np.random.default_rng(0)
    return [generator.integers(0, levels, length) for length in lengths]


def write(folder, codes, label="ab", **settings):
    with writer(folder, **settings) as corpus:
        for number, recording in enumerate(codes):
            corpus.add("train", f"{number}.wav", label and label[number % len(label)], [recording])
        corpus.add("validation", "v.wav", label and label[0], [codes[-1]])
        corpus.close()
    return Corpus(folder)


@pytest.mark.parametrize("levels, dtype", [(2, "uint8"), (256, "uint8"), (1024, "uint16"),
                                           (65536, "uint16")])
def test_a_written_corpus_is_read_back(tmp_path, levels, dtype):
    codes = recordings(levels)
    corpus = write(tmp_path / "made/for/it", codes, label="ba", levels=levels)
    assert (corpus.levels, corpus.rate, corpus.stacks_num, corpus.layers_num,
            corpus.target_length) == (levels, 8000, 2, 3, 16)
    assert corpus.label_names == ["a", "b"]
    assert [recording.label for recording in corpus.train.recordings[:3]] == [1, 0, 1]
    assert [recording.name for recording in corpus.train.recordings[:2]] == ["0.wav", "1.wav"]
    for number, wanted in enumerate(codes):
        got = corpus.train.codes(number)
        assert isinstance(got, np.memmap) and got.dtype == dtype
        assert (got == wanted).all()
    assert (corpus.validation.codes(0) == codes[-1]).all()


def test_shards_are_closed_once_full_and_hold_whole_recordings(tmp_path):
    corpus = write(tmp_path, recordings(), flush_every=4)  # 64 samples
    manifest = json.loads((tmp_path / ENTIRE_CORPUS.manifest).read_text())
    shards = manifest["parts"]["train"]["shards"]
    assert [shard["samples"] for shard in shards] == [1 + 5 + 16 + 17 + 32, 100, 15 + 48]
    assert [shard["file"] for shard in shards] == [f"vctk_train_0000{i}.npy" for i in range(3)]
    assert sum(np.load(tmp_path / shard["file"]).size for shard in shards) == sum(LENGTHS)
    assert [recording.shard for recording in corpus.train.recordings] == [0] * 5 + [1] + [2] * 2


def test_an_earlier_larger_corpus_leaves_nothing_behind(tmp_path):
    write(tmp_path, recordings(), flush_every=1)
    (tmp_path / "vctk_train_mine.npy").touch()  # not ours
    write(tmp_path, recordings()[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "vctk_manifest.json", "vctk_train_00000.npy", "vctk_train_mine.npy",
        "vctk_validation_00000.npy"]


def test_a_killed_writer_leaves_the_earlier_corpus(tmp_path):
    codes = recordings()
    write(tmp_path, codes)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    script = ('import os, signal, sys, numpy as np\n'
              f'sys.path.insert(0, {str(Path(__file__).parent)!r})\n'
              'from test_corpus import writer\n'
              f'corpus = writer({str(tmp_path)!r}, flush_every=1)\n'
              'corpus.add("train", "x", "c", [np.zeros(500)])\n'
              'os.kill(os.getpid(), signal.SIGKILL)')
    result = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    assert result.returncode == -9
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(left) == len(before) + 1  # the shard that was written, under a temporary name
    assert before.items() <= left.items()
    assert (Corpus(tmp_path).train.codes(5) == codes[5]).all()
    write(tmp_path, codes)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failed_writer_leaves_the_earlier_corpus_and_no_litter(tmp_path):
    write(tmp_path, recordings())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError), writer(tmp_path, flush_every=1) as corpus:
        corpus.add("train", "x", "c", [np.zeros(500)])
        1 / 0  # noqa: B018
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_writer_that_dies_while_renaming_leaves_no_mixture(tmp_path, monkeypatch):
    write(tmp_path, recordings())
    rename = os.replace

    def once(source, target):
        monkeypatch.setattr(os, "replace", fail)
        rename(source, target)

    def fail(*_):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(UserError, match="output .*power cut"):
        write(tmp_path, [recording[::-1] for recording in recordings()])
    with pytest.raises(UserError, match="not found; run preprocess.py first"):
        Corpus(tmp_path)


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UserError, match="output .*file"):
            writer(folder)


def test_no_corpus_names_the_command(tmp_path):
    with pytest.raises(UserError, match="vctk_manifest.json: not found; run preprocess.py first"):
        Corpus(tmp_path)


@pytest.mark.parametrize("change", [
    lambda m: m.pop("rate"), lambda m: m.update(rate="x"), lambda m: m.update(target_length=0),
    lambda m: m.update(levels=1), lambda m: m.pop("parts"), lambda m: m.pop("format"),
    lambda m: m["parts"].update(train=[]),
    lambda m: m["parts"]["train"]["recordings"][0].update(shard=9),
    lambda m: m["parts"]["train"]["recordings"][0].update(offset=10 ** 9),
    lambda m: m["parts"]["train"]["recordings"][0].update(offset=-1),
    lambda m: m["parts"]["train"]["recordings"][0].update(length="x"),
    lambda m: m["parts"]["train"]["recordings"][0].update(label=2),
    lambda m: m["parts"]["train"]["recordings"][0].update(label=None),
    lambda m: m["parts"]["train"]["recordings"][0].pop("name"),
    lambda m: m["parts"]["train"]["recordings"][0].update(tempo=1)])
def test_damaged_manifest_is_named(tmp_path, change):
    write(tmp_path, recordings())
    manifest = json.loads((tmp_path / ENTIRE_CORPUS.manifest).read_text())
    change(manifest)
    (tmp_path / ENTIRE_CORPUS.manifest).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="vctk_manifest.json: .*run preprocess.py again") as error:
        Corpus(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_garbage_for_a_manifest(tmp_path, content):
    (tmp_path / ENTIRE_CORPUS.manifest).write_bytes(content)
    with pytest.raises(UserError, match="vctk_manifest.json: not a manifest"):
        Corpus(tmp_path)


def test_manifest_of_another_version(tmp_path):
    write(tmp_path, recordings())
    text = (tmp_path / ENTIRE_CORPUS.manifest).read_text()
    (tmp_path / ENTIRE_CORPUS.manifest).write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match="vctk_manifest.json: format 2"):
        Corpus(tmp_path)


def test_damaged_shards_are_named(tmp_path):
    write(tmp_path, recordings())
    shard = tmp_path / "vctk_train_00001.npy"
    content = shard.read_bytes()
    for damage in (content[:-5], content[:50], b"", b"garbage" * 40):
        shard.write_bytes(damage)
        with pytest.raises(UserError, match="vctk_train_00001.npy: damaged"):
            Corpus(tmp_path)
    for wrong in (np.zeros(7, np.uint8), np.zeros(100, np.uint16), np.zeros((100, 1), np.uint8)):
        np.save(shard, wrong)
        with pytest.raises(UserError, match="vctk_train_00001.npy: holds"):
            Corpus(tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match="vctk_train_00001.npy: missing"):
        Corpus(tmp_path)


def test_validation_names():
    names = [f"p{i // 10}/{i}.wav" for i in range(200)]
    chosen = validation_names(names, 0.1)
    assert len(chosen) == 20 and chosen < set(names)
    assert validation_names(reversed(names), 0.1) == chosen
    assert len({name.split("/")[0] for name in chosen}) > 8  # spread over the folders
    assert validation_names(names, 0.05) < chosen
    assert validation_names(names, 0) == set()
    assert validation_names(["a"], 0.5) == set()
    assert len(validation_names(["a", "b"], 0.01)) == 1
    assert len(validation_names(["a", "b", "c"], 0.999)) == 2
    # Were the choice to change, a resumed run would train on what it is validated with.
    assert validation_names(list("abcdefghij"), 0.2) == {"c", "g"}


@pytest.mark.parametrize("field", [1, 2, 7, 16, 40, 300])
@pytest.mark.parametrize("target_length", [1, 16, 64])
def test_every_sample_is_a_target_once_with_its_full_context(tmp_path, field, target_length):
    codes = [*recordings(), np.full(40, 128)]
    corpus = write(tmp_path, codes)
    windows = Windows(corpus.train, target_length, field, 256)
    assert len(windows) == sum(-(-len(recording) // target_length) for recording in codes)
    seen = {}
    order = np.random.default_rng(1).permutation(len(windows))
    for rows in np.array_split(order, 3):
        batch = windows[rows]
        assert batch.codes.dtype == batch.targets.dtype == batch.label.dtype == torch.int64
        outputs = int((batch.targets != IGNORED).sum(1).max())  # of the longest window
        assert batch.codes.shape == (len(rows), field + outputs - 1)
        assert batch.targets.shape == (len(rows), outputs)
        for row, index in enumerate(rows):
            seen[index] = [part[row].numpy() for part in batch[:3]]
    index = 0
    for number, recording in enumerate(codes):
        padded = np.concatenate([np.full(field, 128), recording, np.full(target_length, 128)])
        for start in range(0, len(recording), target_length):
            inputs, targets, label = seen[index]
            index += 1
            count = min(target_length, len(recording) - start)
            assert (targets[:count] == recording[start:start + count]).all()
            assert (targets[count:] == IGNORED).all()
            assert (inputs == padded[start:start + len(inputs)]).all()
            assert label == number % 2
    assert index == len(windows)


def test_windows_of_an_unlabelled_and_of_an_empty_split(tmp_path):
    corpus = write(tmp_path, recordings(1024), label=None, levels=1024, labels="none")
    windows = Windows(corpus.train, 16, 4, 1024)
    assert corpus.label_names == [] and windows[[0]].label is None
    assert windows[[0]].codes[0, 0] == 512
    with writer(tmp_path) as corpus:
        corpus.add("train", "x", "a", [np.zeros(5)])
        corpus.close()
    assert len(Windows(Corpus(tmp_path).validation, 16, 4, 256)) == 0


def test_windows_go_through_the_loader(tmp_path):
    windows = Windows(write(tmp_path, recordings()).train, 16, 4, 256)
    batches = list(training_batches(windows, 3, seed=0, epoch=5))
    assert windows.epoch == 5
    assert sum(len(batch.codes) for batch in batches) == len(windows)
    assert sum(int((batch.targets != IGNORED).sum()) for batch in batches) == windows.lengths.sum()


def test_recordings_of_two_microphones_are_held_back_together():
    names = [f"p225/p225_{i:03}_mic{m}.flac" for i in range(40) for m in (1, 2)]
    held_back = validation_names(names, 0.1)
    assert len(held_back) == 8
    assert {name.replace("_mic1", "_mic2") for name in held_back} <= held_back
