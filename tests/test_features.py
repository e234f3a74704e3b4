"""Frames of features follow their definition, and don't depend on block sizes."""

import copy
import io
import json

import librosa
import numpy as np
import pytest
import soundfile

from common.errors import UserError
from datasets.audio.features import Features, compute_features, frame_encoder, make_features

RATE = 8000
MEL = make_features("mel", [], RATE, 0.0125, 80)


def noise(length, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)


def by_definition(samples, features, frame):
    """One log-mel frame, in double precision: each step as datasets.audio.features defines it."""
    window, hop = features.window, features.hop
    begin = frame * hop + hop // 2 - window // 2
    padded = np.pad(samples.astype(float), window)[begin + window:begin + 2 * window]
    padded = np.pad(padded, (0, window - len(padded)))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    amplitudes = np.abs(np.fft.rfft(padded * hann)) / (hann.sum() / 2)
    edges = librosa.mel_frequencies(features.width + 2, fmin=0, fmax=features.rate / 2)
    bins = np.fft.rfftfreq(window, 1 / features.rate)
    mel_filterbank = np.array([np.interp(bins, edges[i:i + 3], [0, 1, 0], 0, 0)
                          for i in range(features.width)])
    mel = mel_filterbank / mel_filterbank.sum(axis=1, keepdims=True) @ amplitudes
    return 1 - 2 * np.log(np.maximum(mel, 1e-5)) / np.log(1e-5)


@pytest.mark.parametrize("rate, hop_seconds, bins", [
    (8000, 0.0125, 80), (16000, 0.0125, 80), (22050, 0.01, 40), (8000, 0.1, 20), (4000, 0.001, 7)])
def test_a_mel_frame_equals_its_definition(rate, hop_seconds, bins):
    features = make_features("mel", [], rate, hop_seconds, bins)
    samples = noise(7001) * np.linspace(0, 1, 7001, dtype=np.float32)
    found = compute_features(samples, features)
    assert found.dtype == np.float32
    assert found.shape == (-(-7001 // features.hop), bins)
    for frame in {0, 1, len(found) // 2, len(found) - 2, len(found) - 1}:
        assert np.abs(found[frame] - by_definition(samples, features, frame)).max() < 1e-4


def test_frames_are_from_minus_one_for_silence_to_one_at_full_scale():
    loudest = max(compute_features(np.sin(2 * np.pi * hertz / RATE * np.arange(RATE)), MEL).max()
                  for hertz in (100, 440, 1000, 3000))
    assert 0.8 < loudest <= 1
    assert (compute_features(np.zeros(999, np.float32), MEL) == -1).all()


@pytest.mark.parametrize("hop_seconds", [0.0125, 0.0101, 0.05])
def test_a_click_is_loudest_in_the_frame_that_covers_it(hop_seconds):
    features = make_features("mel", [], RATE, hop_seconds, 80)
    for place in (0, 199, 3456, 7999):
        click = np.zeros(8000, np.float32)
        click[place] = 1
        assert compute_features(click, features).sum(axis=1).argmax() == place // features.hop


@pytest.mark.parametrize("seed", range(12))
def test_mel_frames_do_not_depend_on_block_sizes(seed):
    generator = np.random.default_rng(seed)
    samples = noise(int(generator.integers(0, 40000)), seed)
    cuts = np.sort(generator.integers(0, len(samples) + 1, generator.integers(0, 20)))
    stream, found = frame_encoder(None, MEL), []
    for block in np.split(samples, cuts):
        found.append(stream.add(block))
        copy.copy(stream).add(noise(999))  # a copy leaves the one that it is of as it was
    found.append(stream.end())
    assert np.array_equal(np.concatenate(found), compute_features(samples, MEL))


def test_a_recording_is_resampled_to_the_rate_of_the_features(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 700 / RATE * np.arange(RATE))
    soundfile.write(tmp_path / "x.wav", tone, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "y.wav", np.repeat(np.interp(
        np.arange(4 * RATE) / 4, np.arange(RATE), tone)[:, None], 2, 1), 4 * RATE)
    wanted = compute_features(tone.astype(np.float32), MEL)
    assert np.array_equal(compute_features(tmp_path / "x.wav", MEL), wanted)
    found = compute_features(tmp_path / "y.wav", MEL)
    assert found.shape == wanted.shape and np.abs(found - wanted)[5:-5, :30].max() < 0.2


def test_features_restored_from_json_compute_the_same():
    again = Features(**json.loads(json.dumps(MEL.as_dict())))
    assert again == MEL
    assert np.array_equal(compute_features(noise(3000), again), compute_features(noise(3000), MEL))


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_stored_frames_equal_the_file(tmp_path, dtype, order):
    frames = np.asarray(noise(24).reshape(8, 3), dtype, order=order)
    np.save(tmp_path / "x.npy", frames)
    features = make_features("npy", [tmp_path / "none.wav", tmp_path / "x.wav"], RATE, 0.0125, 80)
    assert features == Features("npy", 3, 100, RATE)
    stream = frame_encoder(tmp_path / "x.wav", features)
    found = [stream.add(noise(length)) for length in (1, 0, 98, 250, 400)] + [stream.end()]
    assert [len(rows) for rows in found] == [1, 0, 0, 3, 4, 0]
    assert np.concatenate(found).dtype == np.float32
    assert np.array_equal(np.concatenate(found), frames.astype(np.float32))
    assert np.array_equal(compute_features(tmp_path / "x.npy", features), frames.astype(np.float32))


def stored(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


@pytest.mark.parametrize("content, told", [
    (b"", "not a .npy"), (b"no array at all", "not a .npy"), (stored(np.zeros((8, 3)))[:-1], "not"),
    (stored(np.array([[None]]), allow_pickle=True), "not a .npy"),
    (stored(np.zeros((8, 3), int)), "not a .npy"), (stored(np.zeros(8)), "not a .npy"),
    (stored(np.zeros((8, 0))), "not a .npy"), (stored(np.zeros((1, 8, 3))), "not a .npy"),
    (stored(np.zeros((8, 4))), "has 4 numbers in a frame instead of 3"),
    (stored(np.zeros((7, 3))), "holds 7 frames, but the recording's 701 samples are covered by 8 "
                               "of 100"),
    (stored(np.zeros((9, 3))), "holds 9 frames"), (stored(np.zeros((0, 3))), "holds 0 frames"),
    (stored(np.full((8, 3), np.nan)), "NaN"), (stored(np.full((8, 3), 1e300)), "infinite"),
    (None, "missing")])
def test_unusable_stored_frames_are_reported(tmp_path, content, told):
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        stream = frame_encoder(tmp_path / "x.wav", Features("npy", 3, 100, RATE))
        stream.add(noise(701))
        stream.end()
    assert str(error.value).startswith(f"{tmp_path}/x.npy: ") and "\n" not in str(error.value)


def test_an_archive_of_arrays_is_no_array(tmp_path):
    np.savez(tmp_path / "x", frames=np.zeros((8, 3)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(UserError, match="x.npy: not a .npy"):
        compute_features(tmp_path / "x.npy", Features("npy", 3, 100, RATE))


def test_impossible_features_are_reported(tmp_path):
    for rate, hop_seconds, bins, told in ((8000, 0.0001, 80, "hop_seconds 0.0001: shorter than"),
                                          (1000, 0.0125, 80, "bins 80: too many to be told")):
        with pytest.raises(UserError, match=told):
            make_features("mel", [], rate, hop_seconds, bins)
    with pytest.raises(UserError, match="features npy: .* first: .*x.npy: missing"):
        make_features("npy", [tmp_path / "x.wav"], RATE, 0.0125, 80)
    with pytest.raises(UserError, match=r"x.wav: .*can't be computed from sound; .*\(frames, 3\)"):
        compute_features(tmp_path / "x.wav", Features("npy", 3, 100, RATE))
