"""16-bit sound and mixtures of logistics, from recordings to wavs and pictures, by the scripts."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import infer_pixelcnn
import infer_wavenet
import preprocess
import train_pixelcnn
import train_wavenet
from datasets.corpus.reader import Corpus
from models.model_file import load, model_content, read, save
from models.wavenet import WaveNet, WaveNetConfig

SMALL = ("--hidden_dim", 4, "--out_hidden_dim", 4, "--iterations", 2)


@pytest.fixture
def corpus(call):
    """A corpus of 16-bit noise in corpus/, of the recordings in data/."""
    return write_corpus(call)


def write_corpus(call, *flags):
    random = np.random.default_rng(0)
    Path("data/a").mkdir(parents=True, exist_ok=True)
    for number in range(4):
        samples = random.normal(0, 2000, 900).astype(np.int16)
        soundfile.write(f"data/a/{number}.wav", samples, 8000, subtype="PCM_16")
    code, out, err = call(preprocess, "--data", "data", "--output", "corpus", "--workers", 1,
                          "--levels", 65536, "--stacks_num", 1, "--layers_num", 4,
                          "--target_length", 300, "--labels", "none", *(flags or (
                              "--encoding", "linear")))
    assert code in (0, None), err


def train(call, *flags):
    return call(train_wavenet, "-d", "corpus", "--out", "run", "--distribution", "logistics",
                "--mixtures", 3, *SMALL, *flags)


def test_a_corpus_keeps_16_bit_recordings_as_they_are(corpus):
    read = Corpus("corpus")
    assert (read.levels, read.encoding) == (65536, "linear")
    for split in (read.train, read.validation):
        for number, recording in enumerate(split.recordings):
            pcm, _ = soundfile.read(f"data/{recording.name}", dtype="int16")
            codes = split.codes(number)
            assert codes.dtype == np.uint16
            assert (codes.astype(int) - 2 ** 15 == pcm).all()


def test_the_default_encoding_is_not_in_the_manifest(call):
    write_corpus(call, "--encoding", "mulaw")
    assert Corpus("corpus").encoding == "mulaw"
    with open("corpus/vctk_manifest.json") as file:
        assert "encoding" not in json.load(file)


def test_train_and_draw(corpus, call):
    code, _, err = train(call)
    assert code in (0, None), err
    file = load("run", "wavenet")
    assert file.data["encoding"] == "linear"
    assert (file.model.config.distribution, file.model.config.mixtures) == ("logistics", 3)
    code, _, err = call(infer_wavenet, "-m", "run", "-c", 2, "--length", 50, "--prime",
                        "data/a/1.wav", "--output", "out")
    assert code in (0, None), err
    drawn, _ = soundfile.read("out/sample_1.wav", dtype="int16")
    given, _ = soundfile.read("data/a/1.wav", dtype="int16")
    assert len(drawn) == 950 and (drawn[:900] == given).all()
    assert (drawn % 2).any()  # finer than 15 bits

    # A run goes on with the same distribution only.
    code, _, err = train(call, "--resume", "auto", "--iterations", 3)
    assert code in (0, None), err
    for flags in (("--distribution", "softmax"), ("--mixtures", 4)):
        code, _, err = train(call, "--resume", "auto", *flags)
        assert code == 2 and err.splitlines()[-1].startswith("error: --resume: ")
        assert f"has {flags[0][2:]}" in err
    code, _, err = call(train_wavenet, "-d", "corpus", "--out", "other", "--init_from", "run",
                        *SMALL)
    assert code == 2 and "give --distribution logistics" in err


def test_a_run_from_before_the_linear_prediction_goes_on_without_it(corpus, call):
    train(call)
    snapshot, = Path("run").glob("snapshot_iter_*")
    content = read(snapshot, "wavenet")
    assert content["config"].pop("prediction")
    assert not torch.equal(content["weights"].pop("prediction"), torch.tensor([0.0, 1.0]))
    for name in {"weights"} & content["run"].keys():
        content["run"][name].pop("prediction", None)
    save(snapshot, content)
    code, _, err = train(call, "--resume", "auto", "--iterations", 3)
    assert code in (0, None), err
    file = load("run/snapshot_iter_3", "wavenet")
    assert not file.model.config.prediction
    # A new run with its weights predicts 0, so it begins as the same network.
    code, _, err = train(call, "--out", "new", "--init_from", "run/snapshot_iter_3",
                         "--learning_rate", 1e-9)
    assert code in (0, None), err
    new = load("new", "wavenet").model
    assert new.config.prediction and torch.equal(new.prediction, torch.zeros(2))
    codes = torch.randint(65536, (1, 40))
    torch.testing.assert_close(new(codes), file.model(codes), rtol=1e-4, atol=1e-4)


def test_a_run_of_another_encoding_does_not_go_on(corpus, call):
    train(call)
    write_corpus(call, "--encoding", "mulaw")
    code, _, err = train(call, "--resume", "auto")
    assert code == 2 and "has encoding linear, this run mulaw" in err
    code, _, err = train(call, "--out", "other", "--init_from", "run")
    assert code == 2 and err.splitlines()[-1] == (
        "error: --init_from run: its codes are linear, those of the data mulaw; prepare the data "
        "with --encoding linear")


def test_a_file_without_an_encoding_is_mu_law(tmp_path, call):
    """As all files of before are; and configurations without a distribution have a softmax."""
    model = WaveNet(WaveNetConfig(256, 4, 4, 1, 3))
    content = model_content("wavenet", model, [], dict(levels=256, rate=8000))
    del content["config"]["distribution"], content["config"]["mixtures"]
    save(tmp_path / "model", content)
    drawn = []
    for name, encoding in (("model", None), ("mulaw", "mulaw"), ("linear", "linear")):
        content["data"] = dict(levels=256, rate=8000)
        if encoding:
            content["data"]["encoding"] = encoding
        save(tmp_path / name, content)
        code, _, err = call(infer_wavenet, "-m", tmp_path / name, "-c", 1, "--length", 30,
                            "--output", name + "_out")
        assert code in (0, None), err
        drawn.append(soundfile.read(f"{name}_out/sample_0.wav", dtype="int16")[0])
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()


def test_pictures(call):
    for label in "ab":
        Path(f"pictures/{label}").mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(f"pictures/{label}/{number}.png")
    code, _, err = call(train_pixelcnn, "--dataset", "pictures", "--height", 8, "--width", 8,
                        "--levels", 256, "--distribution", "logistics", "--out", "run",
                        "--blocks_num", 2, "--validation", 0.2, "-b", 4, *SMALL)
    assert code in (0, None), err
    model = load("run", "pixelcnn").model
    assert model.config.mixtures == 10 and model.logits.weight.shape[0] == 90
    code, _, err = call(infer_pixelcnn, "-m", "run", "--label", "all", "-c", 2, "-o", "drawn.png")
    assert code in (0, None), err
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 8, 8, dtype=torch.long), torch.tensor([0])).isfinite().all()


@pytest.mark.parametrize("flags", [("--distribution", "beta"), ("--mixtures", 0),
                                   ("--mixtures", "ten")])
def test_wrong_flags_are_one_line(call, flags):
    code, _, err = call(train_pixelcnn, *flags)
    assert code == 2 and len(err.splitlines()) == 1 and flags[0] in err
