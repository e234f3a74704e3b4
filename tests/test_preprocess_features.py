"""preprocess.py --features: a corpus holds the features of its recordings."""

import json

import numpy as np
import pytest
import soundfile
from test_continued_builds import built, interrupted
from test_preprocess import contents, preprocess

from common.errors import UserError
from datasets.audio import recordings as audio
from datasets.audio.features import Features, compute_features, make_features
from datasets.audio.recordings import find_recordings, read_recording
from datasets.corpus.reader import Corpus, CorpusPart

RATE, HOP, COUNT = 8000, 100, 9


@pytest.fixture
def data(tmp_path):
    """Recordings of noise of many rates and lengths, with features of 5 numbers."""
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        path = tmp_path / f"data/{number % 2}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = RATE if number % 3 else 2 * RATE
        length = (3000 + 333 * number) * rate // RATE
        soundfile.write(path, generator.uniform(-1, 1, (length, 1 + number % 2)), rate)
        np.save(path.with_suffix(".npy"), frames_for(path, generator))
    return tmp_path / "data"


def frames_for(path, generator, width=5):
    samples = len(read_recording(path, RATE))
    return generator.standard_normal((-(-samples // HOP), width))


def in_corpus(folder):
    """Return {name: its frames} of a corpus."""
    corpus = Corpus(folder)
    return {recording.name: np.array(part.frames(number))
            for part in (corpus.train, corpus.validation)
            for number, recording in enumerate(part.recordings)}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize("kind", ["mel", "npy"])
def test_a_corpus_holds_the_features_of_its_recordings(data, tmp_path, kind):
    for workers in (1, 3):
        code, out, err = preprocess("--data", data, "--output", f"{workers}", "--workers", workers,
                                    "--flush_every", 5, "--features", kind, cwd=tmp_path)
        assert (code, err) == (0, "")
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    width = {"mel": 80, "npy": 5}[kind]
    assert f"features: {kind}, {width} numbers for every 100 samples (12.5 ms)\n" in out
    features = Corpus(tmp_path / "1").features
    assert (features.kind, features.width, features.hop, features.rate) == (
        kind, width, HOP, RATE)
    given = {"mel": lambda path: path, "npy": lambda path: path.with_suffix(".npy")}[kind]
    same(in_corpus(tmp_path / "1"), {path.relative_to(data).as_posix():
                                     compute_features(given(path), features)
                                     for path in data.rglob("*.wav")})


def test_hop_and_bins_follow_the_flags(data, tmp_path):
    code, out, _ = preprocess("--data", data, "--output", "out", "--features", "mel", "--bins", 20,
                              "--hop_seconds", 0.0101, "--rate", 4000, cwd=tmp_path)
    assert code == 0 and "features: mel, 20 numbers for every 40 samples (10 ms)" in out
    assert Corpus(tmp_path / "out").features == Features("mel", 20, 40, 4000, 128, 1e-5)


@pytest.mark.parametrize("block", [63, 777, 1 << 17])
def test_mel_frames_describe_the_kept_samples(tmp_path, monkeypatch, block):
    noise = np.random.default_rng(1).uniform(-1, 1, 20000).astype(np.float32)
    for begin, end in ((0, 2050), (6000, 13000), (16333, 20000)):
        noise[begin:end] *= 0.001
    path = tmp_path / "data/x.wav"
    path.parent.mkdir()
    soundfile.write(path, noise, RATE, subtype="FLOAT")
    features = make_features("mel", [], RATE, 0.0125, 80)
    monkeypatch.setattr(audio, "BLOCK_FRAMES", block)
    built(tmp_path / "data", tmp_path / "out", features, silence_threshold=0.1)
    begin, end = 1920, 16480  # of frames of 20 ms
    found, = in_corpus(tmp_path / "out").values()
    assert Corpus(tmp_path / "out").train.recordings[0].length == end - begin
    assert np.array_equal(found, compute_features(noise[begin:end], features))


@pytest.mark.parametrize("kind", ["mel", "npy"])
@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_continued_run_gives_the_same_corpus(data, tmp_path, kind, after,
                                                                  capfd):
    features = make_features(kind, find_recordings(data), RATE, 0.0125, 80)
    built(data, tmp_path / "whole", features)
    out = tmp_path / "out"
    interrupted(after, data, out, features=features)
    built(data, out, features)
    assert f"going on after {after} of {COUNT}" in capfd.readouterr().err
    assert contents(out) == contents(tmp_path / "whole")
    # A shard of frames that is not as it was left.
    interrupted(after, data, out, features=features)
    (out / ".vctk_train_features_00000.npy.temporary").unlink()
    built(data, out, features)
    assert "going on" not in capfd.readouterr().err
    assert contents(out) == contents(tmp_path / "whole")


def test_changed_recordings_are_prepared_again(data, tmp_path, capfd):
    features, out = Features("npy", 5, HOP, RATE), tmp_path / "out"
    interrupted(5, data, out, features=features)
    path = data / "0/0.npy"
    np.save(path, np.load(path) + 1)
    built(data, out, features)
    interrupted(5, data, out, features=features)
    mel = make_features("mel", [], RATE, 0.0125, 8)
    built(data, out, mel)
    assert "going on" not in capfd.readouterr().err
    same(in_corpus(out), {path.relative_to(data).as_posix(): compute_features(path, mel)
                          for path in data.rglob("*.wav")})


def test_parts_equal_the_whole_and_must_agree(data, tmp_path):
    mel, npy, fewer = (make_features(kind, find_recordings(data), RATE, 0.0125, bins)
                       for kind, bins in (("mel", 80), ("npy", 0), ("mel", 79)))
    built(data, tmp_path / "whole", mel)
    for number in (1, 2):
        built(data, tmp_path / "parts", mel, part=CorpusPart(number, 2))
    same(in_corpus(tmp_path / "parts"), in_corpus(tmp_path / "whole"))
    for other in (npy, None, fewer):
        built(data, tmp_path / "parts", other, part=CorpusPart(2, 2))
        with pytest.raises(UserError, match="vctk_2_of_2_manifest.json: prepared with other flags"):
            Corpus(tmp_path / "parts")


def test_parts_from_before_features_existed_go_with_new_parts(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / f"data/{number}.wav", np.full(900, 0.1), RATE)
    built(tmp_path / "data", tmp_path / "out", part=CorpusPart(1, 2))
    manifest = json.loads((tmp_path / "out/vctk_1_of_2_manifest.json").read_text())
    assert manifest["collection"][:20] == "3f094ef81991ee05228f"


def test_older_parts_with_features_go_with_new_parts(tmp_path):
    """The type of Features doesn't change the fingerprint of a collection."""
    (tmp_path / "data").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / f"data/{number}.wav", np.full(900, 0.1), RATE)
    built(tmp_path / "data", tmp_path / "out", make_features("mel", [], RATE, 0.0125, 20),
             part=CorpusPart(1, 2))
    manifest = json.loads((tmp_path / "out/vctk_1_of_2_manifest.json").read_text())
    assert manifest["collection"][:20] == "efb4b1bbde677006e57c"
    assert list(manifest["features"].items()) == [
        ("kind", "mel"), ("width", 20), ("hop", 100), ("rate", RATE), ("window", 256),
        ("floor", 1e-05)]


def test_unusable_features_are_left_out_and_listed(data, tmp_path):
    generator = np.random.default_rng(2)
    whole = np.load(data / "1/1.npy")
    np.save(data / "0/2.npy", frames_for(data / "0/2.wav", generator, width=6))
    np.save(data / "1/1.npy", whole[:-1])
    np.save(data / "1/3.npy", np.zeros((99, 5)))
    broken = np.load(data / "0/4.npy")
    broken[-1, 2] = np.nan
    np.save(data / "0/4.npy", broken)
    (data / "1/5.npy").unlink()
    (data / "0/6.npy").write_bytes(b"no array")
    np.save(data / "1/7.npy", np.array([{}]), allow_pickle=True)
    told = {"0/2": "has 6 numbers in a frame instead of 5", "0/4": "holds NaN",
            "1/1": f"holds {len(whole) - 1} frames, but the recording's 3333 samples are covered "
                   f"by {len(whole)} of 100", "1/3": "holds 99 frames", "1/5": "missing",
            "0/6": "not a .npy", "1/7": "not a .npy"}
    results = []
    for workers in (1, 3):
        code, out, err = preprocess("--data", data, "--output", f"{workers}", "--features", "npy",
                                    "--workers", workers, cwd=tmp_path)
        assert code == 0 and f"{COUNT - len(told)} recordings read" in out
        results.append((contents(tmp_path / f"{workers}"), err))
    assert results[0] == results[1]
    lines = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(lines) == len(told)
    for name, why in told.items():
        assert any(f"{name}.npy: {why}" in line for line in lines)
    assert in_corpus(tmp_path / "1").keys() == {"0/0.wav", "0/8.wav"}
    code, _, err = preprocess("--data", data, "--output", "out", "--features", "npy", "--strict",
                              "--workers", 1, cwd=tmp_path)
    assert code == 2 and err.count("\n") == 1 and "0/2.npy: has 6 numbers" in err


@pytest.mark.parametrize("flags, told", [
    (["npy", "--silence_threshold", 0.1], "--silence_threshold: "),
    (["npy", "--max_seconds", 1], "--max_seconds: "),
    (["npy", "--offset_seconds", 1], "--offset_seconds: "),
    (["npy", "--data", "bare"], "--features npy: there are none"),
    (["mel", "--hop_seconds", 0.0001], "--hop_seconds 0.0001: shorter than a sample"),
    (["npy", "--hop_seconds", 0.0001], "--hop_seconds 0.0001: shorter than a sample"),
    (["mel", "--hop_seconds", 0], "--hop_seconds"), (["mel", "--bins", 0], "--bins"),
    (["mel", "--bins", 999], "--bins 999: too many"), (["mfcc"], "--features")])
def test_impossible_flags_give_one_line(data, tmp_path, flags, told):
    (tmp_path / "bare").mkdir()
    soundfile.write(tmp_path / "bare/x.wav", np.zeros(900), RATE)
    code, out, err = preprocess("--data", data, "--output", "out", "--features", *flags,
                                cwd=tmp_path)
    assert (code, out) == (2, "") and err.count("\n") == 1 and told in err
