"""infer_wavenet.py --features_from: sound that says what features say, as a user draws it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from forks import difference, forked, snapshot_in
from test_commands import write_sounds
from test_page import Page, wavs

import infer_wavenet
from datasets.audio.features import compute_features, make_features
from datasets.batches import Batch
from models import model_file
from models.local_conditioning import Frames
from models.wavenet import WaveNet, WaveNetConfig
from sampling.output.sound import pcm_table
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds
from training import likelihood

RATE, HOP = 8000, 100


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory):
    """A model file of a small network with mel features."""
    features = make_features("mel", [], RATE, HOP / RATE, 10)
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(hidden_dim=8, out_hidden_dim=8, stacks_num=2, layers_num=3,
                                  labels=2, features=features.width, hop=features.hop))
    path = tmp_path_factory.mktemp("vocoder") / "model"
    model_file.save(path, model_file.model_content("wavenet", model, ["p225", "p226"], {
        "levels": 256, "rate": RATE, "features": features.as_dict()}))
    return path


def write_tone(path, samples=950, rate=RATE):
    Path(path).parent.mkdir(exist_ok=True)
    soundfile.write(path, 0.5 * np.sin(np.arange(samples) / 3), rate)


def test_sound_as_long_as_its_features_from_sound_or_array(call, vocoder):
    write_tone("take.wav")
    model, _, data, _ = model_file.load(vocoder, "wavenet")
    frames = compute_features("take.wav", make_features("mel", [], RATE, HOP / RATE, 10))
    assert frames.shape == (10, 10) and data["features"]["hop"] == HOP
    np.save("take.npy", frames)
    found = []
    for name in ("take.wav", "take.npy"):
        code, out, err = call(infer_wavenet, "-m", vocoder, "-c", 2, "--features_from", name,
                              "-o", "out", "--label", "p226")
        assert code == 0 and "2 sounds of p226, 0.25 s of sound" in out, err
        found.append(wavs("out"))
    assert all(len(samples) == 1000 for samples in found[0].values())
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    # They are what the sampler draws by these frames.
    codes = torch.cat([*sample_sounds(model, RandomStreams(0, [1]), torch.tensor([1]), 1000,
                                      frames=torch.from_numpy(frames)[None])], dim=1)[0]
    assert np.array_equal(pcm_table(256)[codes.numpy()], found[0]["sample_1.wav"])


def test_a_folder_of_features_beside_each_other(call, vocoder):
    write_tone("takes/one.wav", 300, 16000)
    write_tone("takes/two.wav", 205)
    code, _, err = call(infer_wavenet, "-m", vocoder, "-c", 1, "--features_from", "takes",
                        "--label", "all")
    assert code == 0, err
    assert {name: len(samples) for name, samples in wavs("samples").items()} == {
        f"sample_{label}_{name}_0.wav": length for label in ("p225", "p226")
        for name, length in (("one", 200), ("two", 300))}
    found = wavs("samples")
    for name in ("one", "two"):  # drawn together, they are as each alone
        call(infer_wavenet, "-m", vocoder, "--features_from", f"takes/{name}.wav", "--label",
             "p226", "-o", "alone")
        assert np.array_equal(wavs("alone")["sample_0.wav"], found[f"sample_p226_{name}_0.wav"])
    page = Page(Path("samples/index.html"))
    assert len(page.sounds) == 4 and "p226, two\n" in page.text
    assert "mel, 10 numbers for every 100 samples (12.5 ms)" in page.text


def test_features_that_cannot_be_spoken(call, vocoder, models):
    write_tone("take.wav")
    Path("none").mkdir()
    for name, frames in (("narrow", np.zeros((5, 3))), ("nan", np.full((5, 10), np.nan)),
                         ("flat", np.zeros(5)), ("empty", np.zeros((0, 10)))):
        np.save(f"{name}.npy", frames)
    Path("text.npy").write_text("no array")
    for model, flags, words in [
            (vocoder, [], "was trained on features; give --features_from"),
            (models / "sound", ["take.wav"], "trained without features"),
            (vocoder, ["narrow.npy"], "3 numbers in a frame instead of 10"),
            (vocoder, ["nan.npy"], "nan.npy: holds NaN"),
            (vocoder, ["empty.npy"], "empty.npy: holds no frames"),
            (vocoder, ["flat.npy"], "flat.npy: not a .npy with"),
            (vocoder, ["text.npy"], "text.npy: not a .npy with"),
            (vocoder, ["missing.wav"], "missing.wav"),
            (vocoder, ["none"], "--features_from none: no recordings"),
            (vocoder, ["take.wav", "--length", 5], "--length: can't go"),
            (vocoder, ["take.wav", "--prime", "take.wav"], "--prime: can't")]:
        args = ["-m", model, *["--features_from"] * bool(flags), *flags]
        code, out, err = call(infer_wavenet, *args)
        assert code == 2 and out == "", (args, err)
        assert err.startswith("error: ") and err.count("\n") == 1 and words in err, (args, err)
    assert not Path("samples").exists()


def test_recordings_to_features_to_a_model_that_says_them(tmp_path, call):
    """The whole way as a user goes it, stopped once in between."""
    write_sounds(tmp_path / "sounds", [f"p225_{i:03}.wav" for i in range(1, 5)], seconds=0.2)
    forked("preprocess.py --data sounds --output corpus --rate 4000 --stacks_num 1 --layers_num 4 "
           "--target_length 93 --features mel --hop_seconds 0.007 --bins 8 --workers 1", tmp_path)
    small = "train_wavenet.py -d corpus --hidden_dim 4 --out_hidden_dim 4 -b 2 --sample_every 8"
    forked(f"{small} --iterations 16 -o whole", tmp_path)
    forked(f"{small} --iterations 9 -o parts", tmp_path)
    forked(f"{small} --iterations 16 -o parts --resume auto", tmp_path)
    whole, parts = (snapshot_in(tmp_path / name, 16) for name in ("whole", "parts"))
    assert not difference(whole["weights"], parts["weights"])
    assert whole["config"]["features"] == 8 and whole["config"]["hop"] == 28
    sounds = wavs(tmp_path / "whole/samples")
    assert list(sounds) and all(len(samples) % 28 == 0 for samples in sounds.values())
    log = (tmp_path / "whole/log").read_text()
    assert "validation/main/nll" in log
    code, out, err = call(infer_wavenet, "-m", tmp_path / "whole", "-c", 1, "--features_from",
                          tmp_path / "sounds/p225_001.wav")
    assert code == 0 and len(soundfile.read("samples/sample_0.wav")[0]) == 812, err


def test_it_does_not_matter_what_features_are_measured_in(tmp_path):
    write_sounds(tmp_path / "sounds", [f"p225_{i:03}.wav" for i in range(1, 5)], seconds=0.2)
    frames, logs = np.random.default_rng(0).normal(size=(4, 29, 2)), []
    for factor, offset in ((1, 0), (500, [3000, -70])):
        for number, of_one in enumerate(frames):
            np.save(tmp_path / f"sounds/p225_{number + 1:03}.npy", factor * of_one + offset)
        forked("preprocess.py --data sounds --output corpus --rate 4000 --stacks_num 1 "
               "--layers_num 4 --target_length 93 --features npy --hop_seconds 0.007 --workers 1",
               tmp_path)
        forked(f"train_wavenet.py -d corpus --hidden_dim 4 --out_hidden_dim 4 --learning_rate 1e-2 "
               f"--iterations 30 -o {factor}", tmp_path)
        logs.append([entry["main/nll"] for entry in
                     json.loads((tmp_path / f"{factor}/log").read_text()) if "main/nll" in entry])
        mean = snapshot_in(tmp_path / f"{factor}", 30)["weights"]["frames.mean"]
        assert mean.numpy() == pytest.approx(np.broadcast_to(offset, 2), abs=0.5 * factor)
    assert logs[0] == pytest.approx(logs[1], rel=1e-4) and logs[0][-1] < logs[0][0] - 0.5


def test_features_help_where_they_tell_what_the_past_does_not():
    """Of a sound that is loud or quiet by its frames alone, the likelihood is clearly better."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    nlls = {}
    for features in (0, 1):
        model = WaveNet(WaveNetConfig(levels=16, hidden_dim=8, out_hidden_dim=8, stacks_num=1,
                                      layers_num=3, features=features, hop=5 * features))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        field, seen = model.config.receptive_field, []
        for _ in range(150):
            loud = torch.randint(2, (8, 30), generator=generator)
            sizes = 1 + 7 * loud.repeat_interleave(5, dim=1)
            codes = 8 + (torch.rand(sizes.shape, generator=generator) * 2 * sizes - sizes).long()
            frames = Frames(loud[..., None].float(), torch.ones(8, 30, dtype=torch.bool),
                            torch.full((8,), 20)) if features else None
            window = codes[:, 20:120]
            batch = Batch(window[:, :-1], window[:, field:], None, frames)
            loss = likelihood.nll(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        nlls[features] = sum(seen[-30:]) / 30
    assert nlls[1] < nlls[0] - 0.2
