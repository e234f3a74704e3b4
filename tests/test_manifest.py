"""A manifest from a stranger is used as a whole or refused in one line."""

import json
import os

import numpy as np
import pytest
import soundfile
from test_corpus_features import write

import preprocess
import train_wavenet
from common.errors import UserError
from datasets.corpus.manifest import ENTIRE_CORPUS, SETTINGS, CorpusPart
from datasets.corpus.reader import Corpus
from datasets.corpus.writer import CorpusWriter

TRAIN = "parts.train"


def train(m):
    return m["parts"]["train"]


def recording(m, number=0):
    return train(m)["recordings"][number]


def shard(m, number=0):
    return train(m)["shards"][number]


def nested(depth):
    content = []
    for _ in range(depth):
        content = [content]
    return content


def put(field, value):
    """A change of one field of a manifest."""
    return lambda m: m.update({field: value})


def described(**values):
    return lambda m: m["features"].update(values)


def of_recording(**values):
    return lambda m: recording(m).update(values)


def of_shard(**values):
    return lambda m: shard(m).update(values)


WRONG = {  # how a manifest is changed, and what the line says of it
    **{f"{name} {value!r:.20}": (put(name, value), name)
       for name in SETTINGS for value in (10 ** 30, -1, float("nan"), "8000", None, [1], 1.5)},
    "target_length": (put("target_length", 10 ** 10), "target_length"),
    "infinite": (put("rate", float("inf")), "rate"),
    "levels": (put("levels", 65537), "levels"), "boolean": (put("levels", True), "levels"),
    "layers_num": (put("layers_num", 25), "layers_num"),
    "stacks_num": (put("stacks_num", 10 ** 9), "stacks_num"),
    "receptive field": (lambda m: m.update(stacks_num=1000, layers_num=24), "receptive field"),
    "format": (put("format", 10 ** 30), "format"), "version": (put("format", 3), "format 3"),
    "names as text": (put("label_names", "ab"), "label_names"),
    "names of numbers": (put("label_names", [1]), r"label_names\[0\]"),
    "names twice": (put("label_names", ["a", "a"]), "label_names: .* twice"),
    "names that are no text": (put("label_names", ["\ud800"]), "no Unicode"),
    "names nested": (put("label_names", nested(500)), "label_names"),
    "no part": (lambda m: m["parts"].pop("validation"), "validation"),
    "a list of parts": (put("parts", []), "parts"),
    "shards as text": (lambda m: train(m).update(shards="x"), f"{TRAIN}.shards"),
    "recordings as an object": (lambda m: train(m).update(recordings={}), f"{TRAIN}.recordings"),
    "an outer shard": (of_shard(file="../outside.npy"), rf"{TRAIN}.shards\[0\].file"),
    "an absolute shard": (of_shard(file="/etc/passwd"), rf"{TRAIN}.shards\[0\].file"),
    "a shard within": (of_shard(file="./vctk_train_00000.npy"), rf"{TRAIN}.shards\[0\].file"),
    "another's shard": (of_shard(file="vctk_train_00001.npy"), rf"{TRAIN}.shards\[0\].file"),
    "a nameless shard": (of_shard(file=None), rf"{TRAIN}.shards\[0\].file"),
    "outer frames": (of_shard(features="../outside.npy"), rf"{TRAIN}.shards\[0\].features"),
    "no frames": (lambda m: shard(m).pop("frames"), rf"{TRAIN}.shards\[0\].frames"),
    "few frames": (of_shard(frames=1), "the manifest says"),
    "negative samples": (of_shard(samples=-71), rf"{TRAIN}.shards\[0\].samples"),
    "many samples": (of_shard(samples=10 ** 30), rf"{TRAIN}.shards\[0\].samples"),
    "more samples": (of_shard(samples=10 ** 12), "the manifest says"),
    "no recordings": (lambda m: train(m).update(recordings=[], shards=[]), "no recording to train"),
    "outside its shard": (of_recording(offset=10 ** 15), r"recordings\[0\]: does not lie"),
    "a shard too far": (of_recording(shard=9), r"recordings\[0\].shard: 9 of 3"),
    "a negative offset": (of_recording(offset=-1), r"recordings\[0\].offset"),
    "a broken offset": (of_recording(offset=0.5), r"recordings\[0\].offset"),
    "empty": (of_recording(length=0), r"recordings\[0\].length"),
    "overlapping": (lambda m: recording(m, 3).update(offset=21), r"recordings\[3\]: overlaps"),
    "the same place": (lambda m: recording(m, 1).update(offset=0), r"\[[01]\]: overlaps"),
    "a label of none": (of_recording(label=0), r"recordings\[0\].label: 0 of 0"),
    "a label as text": (of_recording(label="a"), r"recordings\[0\].label"),
    "a label missing": (put("label_names", ["a"]), r"recordings\[0\].label: missing"),
    "no name": (of_recording(name=""), r"recordings\[0\].name"),
    "a name of another kind": (of_recording(name=7), r"recordings\[0\].name"),
    "a name that is no file's": (of_recording(name="a\ud800"), "not a manifest .*surrogate"),
    "a name twice": (of_recording(name="1.wav"), r"recordings\[1\].name: is that of another"),
    "an unknown field": (of_recording(tempo=1), "tempo"),
    "kind": (described(kind="x"), "features.kind"), "wide": (described(width=10 ** 9), "width"),
    "hop": (described(hop=0), "features.hop"), "long": (described(hop=10 ** 9), "features.hop"),
    "rate of frames": (described(rate=-8000), "features.rate"),
    "window": (described(window=10 ** 12), "features.window"),
    "floor": (described(floor=float("nan")), "features.floor"),
    "no window": (described(kind="mel"), "features.*window"),
    "frames described by text": (put("features", "mel"), "features")}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A corpus with features, and its manifest."""
    folder = tmp_path_factory.mktemp("good")
    write(folder)
    return folder, (folder / ENTIRE_CORPUS.manifest).read_text()


def refused(call, folder, content):
    """The line of train_wavenet.py about a corpus whose manifest is `content`."""
    (folder / ENTIRE_CORPUS.manifest).write_bytes(content)
    code, out, err = call(train_wavenet, "-d", folder, "-o", "run", "--iterations", 1)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("error: "), err
    assert len(err) < 1000
    return err


@pytest.mark.parametrize("change, told", WRONG.values(), ids=WRONG)
def test_a_wrong_manifest_gives_one_line_with_file_and_field(call, good, change, told):
    folder, text = good
    manifest = json.loads(text)
    change(manifest)
    try:
        with pytest.raises(UserError, match=told):
            raise UserError(refused(call, folder, json.dumps(manifest).encode()))
    finally:
        (folder / ENTIRE_CORPUS.manifest).write_text(text)


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"7", b'"text"', b"\xff\xfe{}", b"[" * 100_000, b'{"parts":' * 100_000,
    b'{"format": 1' + b"0" * 5000 + b"}", b"PK\3\4", b'{"format": 1}', b'{"format": 1} x'])
def test_a_file_that_is_no_manifest_gives_one_line(call, good, content):
    folder, text = good
    try:
        assert ENTIRE_CORPUS.manifest in refused(call, folder, content)
    finally:
        (folder / ENTIRE_CORPUS.manifest).write_text(text)


def test_a_named_pipe_for_a_manifest_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / ENTIRE_CORPUS.manifest)
    with pytest.raises(UserError, match="vctk_manifest.json: is no file"):
        Corpus(tmp_path)


def test_names_that_are_no_unicode_are_read_back(good, tmp_path):
    assert len(Corpus(good[0]).train.recordings) == 8
    name = os.fsdecode(b"caf\xe9/1.wav")
    with CorpusWriter(tmp_path, rate=1, levels=2, stacks_num=1, layers_num=24, target_length=1,
                      labels="none", flush_every=1) as writer:
        writer.add("train", name, None, [np.zeros(3)])
        writer.close()
    assert [one.name for one in Corpus(tmp_path).train.recordings] == [name]


def test_a_recording_in_two_parts_is_refused(tmp_path):
    for number in (1, 2):
        with CorpusWriter(tmp_path, rate=8000, levels=256, stacks_num=1, layers_num=1,
                          target_length=4, labels="none", flush_every=9,
                          part=CorpusPart(number, 2), collection="c") as writer:
            writer.add("train", "same.wav", None, [np.zeros(9)])
            writer.close()
    with pytest.raises(UserError, match="'same.wav' is in it 2 times"):
        Corpus(tmp_path)


@pytest.mark.parametrize("flags, told", [
    (["--layers_num", 25], "argument --layers_num: '25' is not a whole number from 1 up to 24"),
    (["--rate", 10 ** 12], "argument --rate: '1000000000000'"),
    (["--levels", 65537], "--levels 65537"),
    (["--target_length", 10 ** 30], "argument --target_length: '1000"),
    (["--stacks_num", 5, "--layers_num", 24], "--stacks_num 5, layers_num 24: the receptive field"),
    (["--features", "mel", "--hop_seconds", 10 ** 6], "--hop_seconds 1e.06: too long")])
def test_settings_that_can_not_be_read_are_not_written(call, flags, told):
    for number in range(2):
        soundfile.write(f"{number}.wav", np.zeros(900), 8000)
    code, out, err = call(preprocess, "--output", "out", *flags)
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    with pytest.raises(UserError, match=f"^error: {told}"):
        raise UserError(err)
    assert not os.path.exists("out")
