"""Codes written by a model's probabilities are read again exactly, and as short as it says."""

import math
import re
import sys

import numpy as np
import pytest
import soundfile
import torch
from test_commands import write_mnist

from benchmarks import compress
from common.errors import UserError
from models.model_file import model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.random_streams import RandomStreams


@pytest.fixture
def images():
    """A network with strong opinions, and images that it drew: (model, labels, codes)."""
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(4, 3, 6, 6, blocks_num=2, labels=2)).eval()
    model.logits.weight.data *= 20
    label = torch.arange(40) % 2
    return model, label, pixelcnn.sample_images(model, RandomStreams(0, range(40)), label, 8, 8)


@pytest.fixture
def sound():
    """The same of a WaveNet: (model, label, codes)."""
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(16, 6, 6, stacks_num=1, layers_num=4, labels=2)).eval()
    model.logits.weight.data *= 20
    label = torch.tensor([1])
    return model, label, torch.cat(list(wavenet.sample_sounds(model, RandomStreams(0, [0]), label,
                                                              3000)), dim=1)


def coded(through, codes):
    """The message of `codes`, which it is decoded to."""
    encoder = compress.Encoder()
    assert torch.equal(through(encoder, codes), codes)
    message = encoder.message()
    assert torch.equal(through(compress.Decoder(message), None), codes)
    return message


def promised(logits, codes):
    """The bytes that a likelihood makes of codes."""
    return torch.nn.functional.cross_entropy(logits, codes, reduction="sum").item() / math.log(256)


def test_images_are_coded_as_the_likelihood_says(images):
    model, label, codes = images
    message = coded(lambda code, known: compress.through_pixelcnn(
        model, label, codes.shape, code, known), codes)
    with torch.inference_mode():
        bytes_of_network = promised(model(codes, label), codes)
    assert bytes_of_network < 0.95 * codes.numel() * 2 / 8  # it knows what it drew
    assert len(message) == pytest.approx(bytes_of_network, rel=0.01)


def test_a_sound_is_coded_as_the_likelihood_says(sound):
    model, label, codes = sound
    message = coded(lambda code, known: compress.through_wavenet(
        model, label, codes.shape[1], code, known), codes)
    before = torch.full((1, model.config.receptive_field), 8)
    with torch.inference_mode():
        bytes_of_network = promised(model(torch.cat((before, codes[:, :-1]), 1), label), codes)
    assert bytes_of_network < 0.95 * codes.numel() * 4 / 8
    assert len(message) == pytest.approx(bytes_of_network, rel=0.01)


def test_what_another_model_reads_is_something_else(images):
    model, label, codes = images
    encoder = compress.Encoder()
    compress.through_pixelcnn(model, label, codes.shape, encoder, codes)
    for right, reader in ((True, label), (False, 1 - label)):
        assert compress.is_read_as(codes, encoder.message(), lambda code, known, reader=reader: (
            compress.through_pixelcnn(model, reader, codes.shape, code, known))) == right


def run(monkeypatch, capsys, *flags):
    """What the script prints."""
    monkeypatch.setattr(sys, "argv", ["compress.py", *map(str, flags), "--threads", "1"])
    compress.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("levels, binarize", [(2, "sampled"), (4, "threshold"), (256, "threshold")])
def test_the_script_codes_test_images(levels, binarize, tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path / "MNIST/raw")
    model = PixelCNN(PixelCNNConfig(levels, 1, 4, 4, blocks_num=2, labels=10))
    save(tmp_path / "model", model_content("pixelcnn", model, [str(i) for i in range(10)], dict(
        dataset="mnist", levels=levels, channels=1, height=10, width=9, binarize=binarize)))
    printed = run(monkeypatch, capsys, "pixelcnn", "-m", tmp_path / "model", "--data", tmp_path,
                  "--items", 20)
    assert printed.startswith("20 test images of mnist: 1,800 codes")
    bits = float(re.search(r"([\d.]+) bits/dim by", printed)[1])
    size, off, expected = re.search(r"coded in ([\d,]+) bytes, [\d.]+ bits/dim, ([+-][\d.]+)% of "
                                    r"the ([\d,]+) bytes", printed).groups()
    assert float(expected.replace(",", "")) == pytest.approx(1800 * bits / 8, abs=1)
    assert abs(float(off)) < 2  # of so short a message a word may be a percent
    png = int(re.search(r"one of all: ([\d,]+)", printed)[1].replace(",", ""))
    assert png >= 1800 * math.log2(levels) / 8 * 0.8  # noise, at as few bits as its levels need
    assert png <= 1800 * math.log2(levels) / 8 * 1.2 + 1024


def test_the_script_codes_a_recording(tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).uniform(-1, 1, 2000), 8000)
    model = WaveNet(WaveNetConfig(256, 4, 4, stacks_num=1, layers_num=3, labels=2))
    save(tmp_path / "model", model_content(
        "wavenet", model, ["a", "b"], dict(levels=256, rate=8000)))
    flags = ["wavenet", "-m", tmp_path / "model", "--data", tmp_path / "noise.wav"]
    printed = run(monkeypatch, capsys, *flags, "--label", "b")
    off, = re.findall(r"([+-][\d.]+)% of the", printed)
    assert abs(float(off)) < 1
    assert re.search(r"FLAC: 2,\d{3} bytes", printed)  # whose blocks have headers
    with pytest.raises(UserError, match="--label c: name one of a, b"):
        run(monkeypatch, capsys, *flags, "--label", "c")


def test_a_message_that_is_read_wrongly_is_an_error(tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path / "MNIST/raw")
    model = PixelCNN(PixelCNNConfig(2, 1, 4, 4, blocks_num=2))
    save(tmp_path / "model", model_content("pixelcnn", model, [], dict(
        dataset="mnist", levels=2, channels=1, height=6, width=6, binarize="threshold")))
    monkeypatch.setattr(compress.Encoder, "message", lambda self: bytes(400))
    with pytest.raises(SystemExit, match="decoded to something else"):
        run(monkeypatch, capsys, "pixelcnn", "-m", tmp_path / "model", "--data", tmp_path)
