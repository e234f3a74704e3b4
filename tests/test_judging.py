"""Judging recognises samples that match their labels, and detects copies."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from benchmarks import judges, judging
from benchmarks.spoken_digits import first_ending
from common.errors import UserError
from datasets.corpus.reader import Corpus
from datasets.images.dataset import load_images
from datasets.quantization import silence
from models.model_file import model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig

ROOT = Path(__file__).resolve().parents[1]
DIGITS = [str(digit) for digit in range(10)]


def run(monkeypatch, capsys, *flags):
    """Run the script.

    Returns ({kind: share recognised}, the median distances of unseen data and of samples, the
    number of samples equal to a training item).
    """
    monkeypatch.setattr(sys, "argv", ["judging.py", *map(str, flags), "--threads", "1"])
    judging.main()
    printed = capsys.readouterr().out
    recognised = {name: float(rate) / 100 for name, rate in
                  re.findall(r"^([a-z ]+): ([\d.]+)% of [\d,]+ recognised", printed, re.M)}
    unseen, samples, equal = re.search(r"unseen data ([\d.]+), samples ([\d.]+); samples equal to "
                                       r"one: (\d+)", printed).groups()
    return recognised, float(unseen), float(samples), int(equal)


# ------------------------------------------------------------------------------------ images


def stripes(labels, generator):
    """Noisy images (N, 1, 8, 8), uint8, with a bright row at the index of their class."""
    images = generator.integers(0, 60, (len(labels), 1, 8, 8))
    images[np.arange(len(labels)), 0, labels % 8] += 190
    return images.astype(np.uint8)


@pytest.fixture
def digits(tmp_path):
    """MNIST's files with stripes of eight classes, and an untrained model of them."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        labels = np.arange(160, dtype=np.uint8) % 8
        for kind, array in (("images-idx3", stripes(labels, generator)[:, 0]),
                            ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(
                gzip.compress(header + array.tobytes()))
    model = PixelCNN(PixelCNNConfig(256, 1, 4, 4, blocks_num=2, labels=10))
    save(tmp_path / "model", model_content("pixelcnn", model, DIGITS, dict(
        dataset="mnist", levels=256, channels=1, height=8, width=8, binarize="threshold")))
    return tmp_path


def test_samples_of_an_untrained_model_are_not_recognised(digits, monkeypatch, capsys):
    picture = digits / "neighbours.png"
    recognised, unseen, samples, equal = run(
        monkeypatch, capsys, "pixelcnn", "-m", digits / "model", "--data", digits, "-c", 10,
        "--output", picture)
    assert recognised["unseen data"] == 1 and recognised["samples"] < 0.4
    assert samples > 2 * unseen and equal == 0
    assert Image.open(picture).size == (5 * 1.5 * 80, 10 * 1.3 * 80)


def test_new_images_are_distinguished_from_copies(digits, monkeypatch, capsys):
    """A first model draws new stripes of the class, a second one training images."""
    flags = "pixelcnn", "-m", digits / "model", "--data", digits, "-c", 5
    generator = np.random.default_rng(1)

    def draw_new(model, streams, label, *size_and_more):
        return torch.from_numpy(stripes(label.numpy(), generator)).long()

    monkeypatch.setattr(judges, "sample_images", draw_new)
    recognised, unseen, samples, equal = run(monkeypatch, capsys, *flags)
    assert recognised["samples"] >= 0.8  # all but the two classes without data
    assert samples == pytest.approx(unseen, rel=0.1) and equal == 0

    train = load_images("mnist", digits).train

    def draw_copies(model, streams, label, *size_and_more):
        return torch.from_numpy(np.stack([
            train.pixels[np.flatnonzero(train.labels == kind % 8)[0]] for kind in label])).long()

    monkeypatch.setattr(judges, "sample_images", draw_copies)
    _, unseen, samples, equal = run(monkeypatch, capsys, *flags)
    assert samples == 0 < unseen and equal == 50


# ------------------------------------------------------------------------------------- sound


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A corpus of chirps whose frequency depends on the digit, and an untrained model of it."""
    folder = tmp_path_factory.mktemp("spoken")
    generator = np.random.default_rng(0)
    (folder / "sounds").mkdir()
    for digit in (1, 2):
        for take in range(8):
            time = np.arange(3500) / 8000
            phase = 2 * np.pi * (400 * digit * time + generator.uniform(500, 600) * time ** 2)
            soundfile.write(folder / f"sounds/{digit}_anna_{take}.wav",
                            0.3 * np.sin(phase) * np.hanning(len(time)), 8000)
    for corpus, silent in (("corpus", "0"), ("corpus_with_endings", "0.1")):
        subprocess.run([sys.executable, ROOT / "preprocess.py", "--data", folder / "sounds",
                        "--output", folder / corpus, "--labels", r"(\d_anna)", "--validation",
                        r"_[67]\.wav", "--stacks_num", "1", "--layers_num", "3", "--workers", "1",
                        "--silence_after", silent], check=True, capture_output=True)
    for name, labels in (("model", ["1_anna", "2_anna"]), ("other", ["anna", "bob"])):
        model = WaveNet(WaveNetConfig(256, 4, 4, stacks_num=1, layers_num=3, labels=2))
        save(folder / name, model_content("wavenet", model, labels, dict(levels=256, rate=8000)))
    return folder


def test_sounds_are_distinguished_from_noise_and_from_copies(spoken, monkeypatch, capsys):
    flags = ("wavenet", "-m", spoken / "model", "--data", spoken / "corpus", "-c", 6, "--output",
             spoken / "neighbours.png")
    recognised, unseen, samples, equal = run(monkeypatch, capsys, *flags)
    assert recognised == {"unseen data": 1, "samples": 0.5}  # all samples are similar noise
    assert samples > 2 * unseen and equal == 0
    assert Image.open(spoken / "neighbours.png").size == (5 * 1.5 * 80, 2 * 1.3 * 80)

    train = Corpus(spoken / "corpus").train

    def draw_copies(model, streams, label, length, *more):
        """Yield training recordings of the labels, in two blocks."""
        kinds = [recording.label for recording in train.recordings]
        codes = torch.tensor(np.stack([train.codes(kinds.index(kind)) for kind in label]))
        yield from codes.split(length - 100, dim=1)

    monkeypatch.setattr(judges, "sample_sounds", draw_copies)
    recognised, _, samples, equal = run(monkeypatch, capsys, *flags)
    assert recognised["samples"] == 1 and samples == 0 and equal == 12


def test_what_follows_the_end_of_a_sound_is_not_judged(spoken, monkeypatch, capsys):
    def draw_with_noise_after(model, streams, label, length, *more):
        kinds = [recording.label for recording in train.recordings]
        codes = np.stack([train.codes(kinds.index(kind)) for kind in label])
        assert length == codes.shape[1] == 4300  # the longest recording
        codes[:, 3900:] = np.random.default_rng(0).integers(256, size=(len(label), 400))
        yield torch.tensor(codes)

    train = Corpus(spoken / "corpus_with_endings").train
    monkeypatch.setattr(judges, "sample_sounds", draw_with_noise_after)
    recognised, _, samples, equal = run(
        monkeypatch, capsys, "wavenet", "-m", spoken / "model", "--data",
        spoken / "corpus_with_endings", "-c", 6)
    assert recognised["samples"] == 1 and samples == 0 and equal == 12


def test_a_sound_ends_where_only_silence_follows_for_a_while():
    quiet, codes = silence(256), np.full(1000, 200, np.uint8)
    codes[100:499] = quiet  # a code too short
    assert first_ending(codes, 256, 8000) is None
    codes[600:] = quiet
    assert first_ending(codes, 256, 8000) == 600
    codes[:400] = quiet
    assert first_ending(codes, 256, 8000) == 0


def test_models_without_suitable_labels_are_refused(spoken, digits, monkeypatch, capsys):
    flags = "wavenet", "--data", spoken / "corpus", "-m"
    with pytest.raises(UserError, match="don't begin with a digit"):
        run(monkeypatch, capsys, *flags, spoken / "other")
    unlabelled = model_content("pixelcnn", PixelCNN(PixelCNNConfig(256, 1, 4, 4, 2)), [], dict(
        dataset="mnist", levels=256, channels=1, height=8, width=8, binarize="threshold"))
    save(digits / "unlabelled", unlabelled)
    with pytest.raises(UserError, match="not conditioned on classes"):
        run(monkeypatch, capsys, "pixelcnn", "--data", digits, "-m", digits / "unlabelled")
