"""The models in assets/models are those of the documented results, and they work."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from scipy.signal import correlate, resample_poly

from models.model_file import load
from sampling.pixelcnn import sample_images
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "assets/models"
FILES = sorted(MODELS.glob("*.pt"))
KINDS = {path.name: torch.load(path, weights_only=True)["kind"] for path in FILES}
SUMS = MODELS / "SHA256SUMS"


def test_checksums_of_all_models():
    sums = dict(reversed(line.split()) for line in SUMS.read_text().splitlines())
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES}


def test_models_are_small():
    assert sum(path.stat().st_size for path in FILES) < 40e6


def of_kind(kind):
    return pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name] == kind])


@of_kind("pixelcnn")
def test_every_model_of_images_draws(name):
    """What it draws it finds far likelier than noise, and different from one seed to the next."""
    model, label_names, data, _ = load(MODELS / name, "pixelcnn")
    label = torch.arange(4) % len(label_names) if label_names else None
    codes = sample_images(model, RandomStreams(0, range(4)), label, data["height"], data["width"])
    assert codes.shape == (4, data["channels"], data["height"], data["width"])
    assert codes.max() < data["levels"] and not torch.equal(codes[0], codes[1])
    with torch.no_grad():
        drawn, noise = (F.cross_entropy(model(each, label), each)
                        for each in (codes, torch.randint_like(codes, data["levels"])))
    assert drawn < 0.8 * np.log(data["levels"]) and drawn < noise - 1


@of_kind("wavenet")
def test_every_model_of_sound_draws(name):
    model, label_names, data, _ = load(MODELS / name, "wavenet")
    label = torch.zeros(1, dtype=torch.long) if label_names else None
    width, hop = model.config.features, model.config.hop
    frames = -torch.ones(1, 2000 // hop + 1, width) if width else None  # of silence
    codes = torch.cat([*sample_sounds(model, RandomStreams(0, [0]), label, 2000, frames=frames)],
                      dim=1)
    assert codes.shape == (1, 2000) and codes.max() < data["levels"]
    assert torch.bincount(codes[0]).max() < 2000 or data["levels"] < 3


def drawn(folder, model, *flags):
    """The sound, as bytes, that a user's command writes into `folder`."""
    subprocess.run([sys.executable, ROOT / "infer_wavenet.py", "-m", MODELS / model, "-c", "1",
                    "-o", folder, *flags], check=True, capture_output=True)
    return (folder / "sample_0.wav").read_bytes()


def test_the_same_command_draws_the_same_bytes(tmp_path):
    recording = ROOT / "assets/spoken_digits/jackson/3_jackson_1.wav"
    first, second = (drawn(tmp_path / str(number), "spoken_digits_from_features.pt",
                           "--features_from", recording) for number in (0, 1))
    assert first == second
    said, given = (soundfile.read(path)[0] for path in (tmp_path / "0/sample_0.wav", recording))
    assert 0 <= len(said) - len(given) < 100  # whole frames
    assert 0.5 < said.std() / given.std() < 2


def test_the_tone_is_a_tone(tmp_path):
    """500 Hz and little else."""
    drawn(tmp_path, "tone.pt", "--length", "1s")
    samples, rate = soundfile.read(tmp_path / "sample_0.wav")
    power = np.abs(np.fft.rfft(samples[rate // 4:] * np.hanning(len(samples) - rate // 4))) ** 2
    hertz = np.fft.rfftfreq(len(samples) - rate // 4, 1 / rate)
    assert abs(hertz[power.argmax()] - 500) < 3
    assert power[abs(hertz - 500) < 20].sum() > 0.98 * power.sum()


def test_p225_says_its_recording(tmp_path):
    """Learned by heart: the most likely sound is a part of the recording, as loud as it is."""
    drawn(tmp_path, "p225.pt", "--length", "1.3s", "--temperature", "0")
    said, rate = soundfile.read(tmp_path / "sample_0.wav")
    recording, its_rate = soundfile.read(ROOT / "assets/vctk/wav/p225/p225_001.wav")
    assert its_rate == 2 * rate
    recording = resample_poly(recording, 1, 2)
    begin = correlate(recording, said, "valid").argmax()
    part = recording[begin:begin + len(said)]
    assert np.linalg.norm(said - part) < 0.1 * np.linalg.norm(part)
