"""Compressed codes decode exactly, and their size is what the likelihood predicts."""

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
from models import distributions
from models.model_file import model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.random_streams import RandomStreams


@pytest.fixture
def images():
    """A network with sharp distributions and images drawn from it: (model, labels, codes)."""
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(4, 3, 6, 6, blocks_num=2, labels=2)).eval()
    model.logits.weight.data *= 20
    label = torch.arange(40) % 2
    return model, label, pixelcnn.sample_images(model, RandomStreams(0, range(40)), label, 8, 8)


@pytest.fixture
def sound():
    """The same for a WaveNet: (model, label, codes)."""
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(16, 6, 6, stacks_num=1, layers_num=4, labels=2)).eval()
    model.logits.weight.data *= 20
    label = torch.tensor([1])
    return model, label, torch.cat(list(wavenet.sample_sounds(model, RandomStreams(0, [0]), label,
                                                              3000)), dim=1)


def encode(run, codes):
    """Encode `codes`; return the message, which decodes to them."""
    encoder = compress.Encoder()
    assert torch.equal(run(encoder, codes), codes)
    message = encoder.message()
    assert torch.equal(run(compress.Decoder(message), None), codes)
    return message


def predicted_bytes(logits, codes):
    """The size of codes by their likelihood."""
    return torch.nn.functional.cross_entropy(logits, codes, reduction="sum").item() / math.log(256)


def test_coded_images_have_the_size_that_the_likelihood_predicts(images):
    model, label, codes = images
    message = encode(lambda coder, known: compress.code_images(
        model, label, codes.shape, coder, known), codes)
    with torch.inference_mode():
        expected = predicted_bytes(model(codes, label), codes)
    assert expected < 0.95 * codes.numel() * 2 / 8  # shorter than uniform codes
    assert len(message) == pytest.approx(expected, rel=0.01)


def test_a_coded_sound_has_the_size_that_the_likelihood_predicts(sound):
    model, label, codes = sound
    message = encode(lambda coder, known: compress.code_sound(
        model, label, codes.shape[1], coder, known), codes)
    before = torch.full((1, model.config.receptive_field), 8)
    with torch.inference_mode():
        expected = predicted_bytes(model(torch.cat((before, codes[:, :-1]), 1), label), codes)
    assert expected < 0.95 * codes.numel() * 4 / 8
    assert len(message) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("levels, narrower", [(256, 1), (1000, 2), (65536, 2), (65536, 6)])
def test_a_sound_of_logistics_has_the_size_that_the_likelihood_predicts(levels, narrower):
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(levels, 6, 6, 1, 4, distribution="logistics", mixtures=3,
                                  prediction=levels > 256)).eval()
    if levels > 256:
        model.prediction.copy_(torch.tensor([-0.5, 0.9]))
    model.logits.bias.data[6:] -= narrower
    codes = torch.cat([*wavenet.sample_sounds(model, RandomStreams(0, [0]), None, 1500)], dim=1)
    message = encode(lambda coder, known: compress.code_sound(
        model, None, codes.shape[1], coder, known), codes)
    before = torch.full((1, model.config.receptive_field), levels // 2)
    with torch.inference_mode():
        outputs = model(torch.cat((before, codes[:, :-1]), 1))
    expected = distributions.nll(model.distribution, outputs, codes, "sum").item() / math.log(256)
    assert expected < 0.95 * codes.numel() * math.log2(levels) / 8
    assert len(message) == pytest.approx(expected, rel=0.01)


def test_with_another_label_a_message_decodes_to_other_codes(images):
    model, label, codes = images
    encoder = compress.Encoder()
    compress.code_images(model, label, codes.shape, encoder, codes)
    for expected, decoder_label in ((True, label), (False, 1 - label)):
        def run(coder, known, label=decoder_label):
            return compress.code_images(model, label, codes.shape, coder, known)

        assert compress.decodes_to(codes, encoder.message(), run) == expected


def run(monkeypatch, capsys, *flags):
    """Run the script; return what it prints."""
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
    deviation, predicted = re.search(r"coded in [\d,]+ bytes, [\d.]+ bits/dim, ([+-][\d.]+)% of "
                                     r"the ([\d,]+) bytes", printed).groups()
    assert float(predicted.replace(",", "")) == pytest.approx(1800 * bits / 8, abs=1)
    assert abs(float(deviation)) < 2  # one word is about a percent of such a short message
    png = int(re.search(r"one of all: ([\d,]+)", printed)[1].replace(",", ""))
    assert png >= 1800 * math.log2(levels) / 8 * 0.8  # noise, in as few bits as possible
    assert png <= 1800 * math.log2(levels) / 8 * 1.2 + 1024


def test_the_script_codes_a_recording(tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).uniform(-1, 1, 2000), 8000)
    model = WaveNet(WaveNetConfig(256, 4, 4, stacks_num=1, layers_num=3, labels=2))
    save(tmp_path / "model", model_content(
        "wavenet", model, ["a", "b"], dict(levels=256, rate=8000)))
    flags = ["wavenet", "-m", tmp_path / "model", "--data", tmp_path / "noise.wav"]
    printed = run(monkeypatch, capsys, *flags, "--label", "b")
    deviation, = re.findall(r"([+-][\d.]+)% of the", printed)
    assert abs(float(deviation)) < 1
    assert re.search(r"FLAC: 2,\d{3} bytes", printed)  # its blocks have headers
    with pytest.raises(UserError, match="--label c: name one of a, b"):
        run(monkeypatch, capsys, *flags, "--label", "c")


def test_a_message_that_decodes_wrongly_is_an_error(tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path / "MNIST/raw")
    model = PixelCNN(PixelCNNConfig(2, 1, 4, 4, blocks_num=2))
    save(tmp_path / "model", model_content("pixelcnn", model, [], dict(
        dataset="mnist", levels=2, channels=1, height=6, width=6, binarize="threshold")))
    monkeypatch.setattr(compress.Encoder, "message", lambda self: bytes(400))
    with pytest.raises(SystemExit, match="does not decode"):
        run(monkeypatch, capsys, "pixelcnn", "-m", tmp_path / "model", "--data", tmp_path)
