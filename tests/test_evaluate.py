"""The likelihoods of model files are those of their networks and of the runs that wrote them."""

import json
import re
import sys
from itertools import product

import numpy as np
import pytest
import torch
from test_commands import write_mnist, write_sounds

import preprocess
import train_pixelcnn
import train_wavenet
from benchmarks import evaluate
from common.errors import UserError
from datasets.audio.features import Features
from datasets.images.dataset import ImageCodes
from models.model_file import load, model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig


def run(monkeypatch, capsys, module, *flags):
    """Run a script in this process; return what it prints."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, flags)])
    module.main()
    return capsys.readouterr().out


def test_the_likelihood_without_labels_sums_to_1():
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(2, 1, 4, 4, blocks_num=2, labels=3)).eval()
    model.logits.weight.data *= 20
    every_image = np.array([*product((0, 255), repeat=6)], np.uint8).reshape(-1, 1, 2, 3)
    images = ImageCodes(every_image, np.arange(64) % 3, 2)
    without = evaluate.nats_without_labels(model, images, 3)
    assert (-without).exp().sum() == pytest.approx(1, abs=1e-5)
    given = torch.stack([evaluate.nats_of_each_image(
        model, ImageCodes(every_image, np.full(64, label), 2)) for label in range(3)])
    torch.testing.assert_close((-without).exp(), (-given).exp().mean(dim=0))
    assert given.std(dim=0).max() > 0.1  # the labels matter
    own = evaluate.nats_of_each_image(model, images)
    torch.testing.assert_close(own, given[torch.arange(64) % 3, torch.arange(64)])
    assert (without <= own + np.log(3) + 1e-6).all()


@pytest.mark.parametrize("flags", [["--condition", "none", "--binarize", "sampled"],
                                   ["--levels", "4"]])
def test_images_have_the_likelihood_that_training_reports(flags, tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path / "MNIST/raw")
    run(monkeypatch, capsys, train_pixelcnn, "--data", tmp_path, "-o", tmp_path / "run", "-d", 4,
        "-n", 2, "-e", 1, *flags)
    result = json.loads((tmp_path / "run/log").read_text())[-1]
    printed = run(monkeypatch, capsys, evaluate, "pixelcnn", "-m", tmp_path / "run", "--data",
                  tmp_path, "--threads", 1)
    bits, nats = re.findall(r"([\d.]+) bits/dim, ([\d.]+) nats per image", printed)[0]
    assert float(bits) == pytest.approx(result["test/main/bits/dim"], abs=1e-4)
    assert float(nats) == pytest.approx(result["test/main/nats"], abs=0.01)
    assert ("without their classes" in printed) == ("none" not in flags)


@pytest.mark.parametrize("features", ["none", "mel"])
def test_recordings_have_the_likelihood_that_training_reports(features, tmp_path, monkeypatch,
                                                              capsys):
    write_sounds(tmp_path / "sounds", [f"p{n}.wav" for n in range(3)])
    corpus, out = tmp_path / "corpus", tmp_path / "run"
    run(monkeypatch, capsys, preprocess, "--data", tmp_path / "sounds", "--validation", "p2",
        "--stacks_num", 1, "--layers_num", 4, "--workers", 1, "--features", features, "--output",
        corpus)
    run(monkeypatch, capsys, train_wavenet, "-d", corpus, "-o", out, "--hidden_dim", 4,
        "--out_hidden_dim", 4, "-e", 1)
    result = [entry for entry in json.loads((out / "log").read_text())
              if "validation/main/bits/dim" in entry][-1]
    printed = run(monkeypatch, capsys, evaluate, "wavenet", "-m", out, "--data", corpus)
    assert float(re.search(r"([\d.]+) bits per sample", printed)[1]) == pytest.approx(
        result["validation/main/bits/dim"], abs=1e-4)


def test_a_corpus_that_does_not_suit_the_model_is_refused(tmp_path, monkeypatch, capsys):
    write_sounds(tmp_path / "sounds", ["p0.wav", "p1.wav"])
    run(monkeypatch, capsys, preprocess, "--data", tmp_path / "sounds", "--stacks_num", 1,
        "--layers_num", 4, "--workers", 1, "--validation", 0, "--output", tmp_path / "corpus")

    def refusal(levels=256, labels=(), rate=8000, features=None):
        sizes = (features.width, features.hop) if features else ()
        model = WaveNet(WaveNetConfig(levels, 4, 4, 1, 4, len(labels), *sizes))
        described = {"features": features.as_dict()} if features else {}
        save(tmp_path / "model", model_content("wavenet", model, labels,
                                               {"levels": levels, "rate": rate, **described}))
        with pytest.raises(UserError) as error:
            run(monkeypatch, capsys, evaluate, "wavenet", "-m", tmp_path / "model", "--data",
                tmp_path / "corpus")
        return str(error.value)

    assert "8000 Hz" in refusal(rate=16000)
    assert "256 levels" in refusal(levels=16)
    assert "other labels" in refusal(labels=["a", "b"])
    assert "other features" in refusal(features=Features("npy", 8, 10, 8000))
    assert "no recordings held back" in refusal()


def test_a_model_of_vectors_is_refused(tmp_path):
    model = PixelCNN(PixelCNNConfig(2, 1, 4, 4, blocks_num=2, vector=3))
    save(tmp_path / "model", model_content("pixelcnn", model, [], dict(
        dataset="mnist", levels=2, channels=1, height=6, width=6, binarize="threshold")))
    with pytest.raises(UserError, match="conditioned on vectors"):
        evaluate.load_test_images("model", load(tmp_path / "model", "pixelcnn"), tmp_path)
