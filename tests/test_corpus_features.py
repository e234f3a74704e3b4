"""A corpus with features is read back, and windows have the frames that they need."""

import json

import numpy as np
import pytest
import torch
from test_corpus import LENGTHS, recordings

from common.errors import UserError
from datasets.audio.features import Features
from datasets.batches import training_batches
from datasets.corpus import reader as corpus_module
from datasets.corpus.reader import ENTIRE_CORPUS, Corpus
from datasets.corpus.windows import Windows
from datasets.corpus.writer import CorpusWriter
from models.local_conditioning import MARGIN_FRAMES


def write(folder, hop=7, width=3, features=True, flush_every=4):
    """Write recordings of LENGTHS whose frames encode recording and number; return both."""
    described = Features("npy", width, hop, 8000) if features else None
    told = [(1000 * number + np.arange(-(-length // hop))[:, None]
             + np.arange(width) / 10).astype(np.float32) for number, length in enumerate(LENGTHS)]
    with CorpusWriter(folder, rate=8000, levels=256, stacks_num=2, layers_num=3, target_length=16,
                      labels="none", flush_every=flush_every, features=described) as writer:
        for number, (codes, frames) in enumerate(zip(recordings(), told, strict=True)):
            blocks = [frames[:2], frames[2:]] if features else []
            writer.add("train", f"{number}.wav", None, [codes[:9], codes[9:]], blocks)
        writer.close()
    return Corpus(folder), told


@pytest.mark.parametrize("hop", [1, 7, 1000])
def test_a_written_corpus_is_read_back(tmp_path, hop):
    corpus, told = write(tmp_path, hop)
    assert corpus.features == corpus.train.features == Features("npy", 3, hop, 8000)
    shards = json.loads((tmp_path / ENTIRE_CORPUS.manifest).read_text())["parts"]["train"]["shards"]
    assert [shard["features"] for shard in shards] == [
        f"vctk_train_features_0000{number}.npy" for number in range(3)]
    assert sum(len(np.load(tmp_path / shard["features"])) for shard in shards) == (
        sum(map(len, told)))
    for number, frames in enumerate(told):
        found = corpus.train.frames(number)
        assert isinstance(found, np.memmap) and found.dtype == np.float32
        assert np.array_equal(found, frames)
        assert np.array_equal(corpus.train.codes(number), recordings()[number])


def test_an_earlier_corpus_with_features_leaves_nothing_behind(tmp_path):
    write(tmp_path, flush_every=1)
    (tmp_path / "vctk_train_features_mine.npy").touch()  # not ours
    corpus, _ = write(tmp_path, features=False, flush_every=1000)
    assert corpus.features is None and corpus.train.features is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "vctk_manifest.json", "vctk_train_00000.npy", "vctk_train_features_mine.npy"]
    assert "features" not in (tmp_path / ENTIRE_CORPUS.manifest).read_text()


@pytest.mark.parametrize("change", [
    lambda m: m["features"].update(width=0), lambda m: m["features"].update(hop=0),
    lambda m: m["features"].update(hop=8), lambda m: m["features"].pop("kind"),
    lambda m: m["features"].update(tempo=1), lambda m: m.update(features="mel"),
    lambda m: m["parts"]["train"]["shards"][0].pop("features")])
def test_a_damaged_manifest_is_named(tmp_path, change):
    write(tmp_path)
    manifest = json.loads((tmp_path / ENTIRE_CORPUS.manifest).read_text())
    change(manifest)
    (tmp_path / ENTIRE_CORPUS.manifest).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="vctk_manifest.json: damaged .*run preprocess.py again"):
        Corpus(tmp_path)


def test_damaged_frames_are_named(tmp_path):
    write(tmp_path)
    shard = tmp_path / "vctk_train_features_00001.npy"
    content = shard.read_bytes()
    shard.write_bytes(content[:-5])
    with pytest.raises(UserError, match="vctk_train_features_00001.npy: damaged"):
        Corpus(tmp_path)
    for wrong in (np.zeros((15, 4), np.float32), np.zeros((15, 3)), np.zeros((1, 3), np.float32)):
        np.save(shard, wrong)
        with pytest.raises(UserError, match="vctk_train_features_00001.npy: holds"):
            Corpus(tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match="vctk_train_features_00001.npy: missing"):
        Corpus(tmp_path)


@pytest.mark.parametrize("hop", [1, 7, 16, 40, 1000])
@pytest.mark.parametrize("field", [1, 16, 40, 300])
def test_every_window_has_the_frames_of_its_samples_and_a_margin(tmp_path, hop, field):
    corpus, told = write(tmp_path, hop)
    windows = Windows(corpus.train, 16, field, 256, MARGIN_FRAMES)
    index = 0
    for number, length in enumerate(LENGTHS):
        for start in range(0, length, 16):
            batch = windows[[index]]
            values, valid, offset = (part[0].numpy() for part in batch.frames)
            assert (batch.frames.values.dtype, batch.frames.valid.dtype,
                    batch.frames.offset.dtype) == (torch.float32, torch.bool, torch.int64)
            inputs = batch.codes.shape[1]
            # For a first input that is the last sample of its frame.
            assert len(values) == 2 * MARGIN_FRAMES + 1 + (hop - 1 + inputs) // hop
            # Frame and sample of the recording that the row begins with.
            first = (start - field - int(offset)) / hop
            assert first == int(first)
            for input_ in range(-MARGIN_FRAMES * hop, inputs + 1 + MARGIN_FRAMES * hop):
                sample, place = start - field + input_, (offset + input_) // hop
                assert 0 <= place < len(values)
                if 0 <= sample < length:
                    assert valid[place]
                    assert np.array_equal(values[place], told[number][sample // hop])
            for place in range(len(values)):
                assert valid[place] == (0 <= first + place < len(told[number]))
                assert valid[place] or not values[place].any()
            index += 1
    assert index == len(windows)


def test_the_mean_and_the_deviation_of_frames(tmp_path, monkeypatch):
    corpus, told = write(tmp_path)
    frames = np.concatenate([told[number] for number in range(len(LENGTHS))], dtype=float)
    for wanted, found in zip((frames.mean(0), frames.std(0)), corpus.train.frame_statistics(),
                             strict=True):
        assert found == pytest.approx(wanted, abs=1e-6)
    monkeypatch.setattr(corpus_module, "STATISTICS_FRAMES", len(frames) // 3)
    part = Corpus(tmp_path).train
    assert part.frame_statistics()[0] == pytest.approx(
        np.concatenate([shard[::3] for shard in part.frame_shards], dtype=float).mean(0))
    part.frame_shards = [np.full((9, 2), 0.1, np.float32)]
    assert [values.tolist() for values in part.frame_statistics()] == [
        pytest.approx([0.1, 0.1]), [1, 1]]


def test_batches_with_frames_go_through_the_loader_and_to_a_device(tmp_path):
    corpus, _ = write(tmp_path)
    windows = Windows(corpus.train, 16, 5, 256, MARGIN_FRAMES)
    batches = [*training_batches(windows, 4, seed=0, epoch=1)]
    assert sum(len(batch.frames.values) for batch in batches) == len(windows)
    moved = batches[0].to(torch.device("meta"))
    assert {part.device.type for part in (moved.codes, *moved.frames)} == {"meta"}
    assert windows[[]].frames.values.shape[::2] == (0, batches[0].frames.values.shape[2])
    plain = Windows(write(tmp_path, features=False)[0].train, 16, 5, 256)[[0]]
    assert plain.frames is None and plain.to(torch.device("meta")).frames is None
