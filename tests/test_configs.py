"""Each file in configs/ trains on data like its own, and describes the model of its name."""

import json
import shlex
import sys

import pytest
import torch
from forks import forked
from music import make_music
from PIL import Image
from prompts import fake_alignment, write_prompts
from test_commands import write_cifar, write_mnist, write_sounds
from test_readme import ROOT

import preprocess
import train_pixelcnn
import train_wavenet

SCRIPTS = {"preprocess": preprocess, "train_pixelcnn": train_pixelcnn,
           "train_wavenet": train_wavenet}
CONFIGS = sorted((ROOT / "configs").glob("*.json"))
MODELS = sorted((ROOT / "assets/models").glob("*.pt"))


def scripts_of(path):
    """The scripts that the configuration is for."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    return list(settings) if "preprocess" in settings else ["train_pixelcnn"]


def parsed(path, script, monkeypatch):
    """The flags of a script with this configuration, by name."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--config", str(path)])
    return vars(SCRIPTS[script].arguments())


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory):
    """A folder with the data that configurations name, made up and small."""
    folder = tmp_path_factory.mktemp("configs")
    for name in ("assets", "configs"):
        (folder / name).symlink_to(ROOT / name)
    write_mnist(folder / "data/MNIST/raw")
    write_mnist(folder / "data/FashionMNIST/raw")
    write_cifar(folder / "data/cifar-10-batches-py")
    for name in ("cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png"):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (50, 100, 200)).save(path)
    takes = [f"{digit}_{speaker}_{take}.wav" for digit in (0, 7) for speaker in ("george", "lucas")
             for take in (0, 6)]
    write_sounds(folder / "spoken_digits", takes, seconds=0.2)
    make_music(folder / "music", seconds=1)
    write_prompts(folder / "prompts")
    for label in ("george", "lucas", "nicolas", "guitar"):
        write_sounds(folder / "mixed" / label, [f"take_{number}.wav" for number in (2, 3)])
    return folder


def train(path, folder, monkeypatch):
    """Run the scripts of a configuration for one update: the log."""
    script = scripts_of(path)[-1]
    flags = parsed(path, script, monkeypatch)
    if flags["init_from"] and not (folder / flags["init_from"]).exists():
        train(path.with_stem(flags["init_from"].rpartition("/")[2]), folder, monkeypatch)
    size = "-d 3 -n 2" if script == "train_pixelcnn" else "--hidden_dim 4"
    if script == "train_wavenet":
        forked(f"preprocess.py --config configs/{path.name} --workers 1", folder, fake_alignment)
        size += " --speech_updates 1"
    forked(f"{script}.py --config configs/{path.name} --iterations 1 {size} --out_hidden_dim 3",
           folder)
    return json.loads((folder / flags["out"] / "log").read_text())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains(path, user_folder, monkeypatch):
    log = train(path, user_folder, monkeypatch)
    assert log[-1]["stopped_by"] == "--iterations 1 reached"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_flags_beside_a_config_win(path, monkeypatch):
    script = scripts_of(path)[-1]
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *shlex.split(
        f"--config {path} --epoch 99 --out runs/other")])
    flags = vars(SCRIPTS[script].arguments())
    assert flags["epoch"] == 99 and flags["out"] == "runs/other"


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_config_of_a_model_describes_it(path, monkeypatch):
    content = torch.load(path, weights_only=True)
    config, data = content["config"], content["data"]
    settings = ROOT / "configs" / f"{path.stem}.json"
    flags = parsed(settings, f"train_{content['kind']}", monkeypatch)
    for name in ("hidden_dim", "out_hidden_dim"):
        assert config[name] == flags[name]
    if content["kind"] == "pixelcnn":
        assert config["blocks_num"] == flags["blocks_num"]
        assert config["position"] is not flags["no_position"]
        assert bool(config["labels"]) == (flags["condition"] == "class")
        assert config["vector"] == 0 and config.get("embedding", 0) == flags["embedding"]
        assert all(data[name] == flags[name] for name in ("dataset", "levels", "binarize"))
    else:
        flags = parsed(settings, "preprocess", monkeypatch)
        assert all(config[name] == flags[name] for name in ("levels", "stacks_num", "layers_num"))
        assert data["rate"] == flags["rate"]
        assert bool(config["labels"]) == (flags["labels"] != ["none"])
        mel = flags["features"] in ("mel", "text")
        assert ("speech" in content) == (flags["features"] == "text")
        assert config["features"] == (flags["bins"] if mel else 0)
        assert config["hop"] == (round(flags["hop_seconds"] * flags["rate"]) if mel else 0)
