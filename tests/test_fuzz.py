"""Files damaged at random, and headers with hostile values: refused in one line, or used sanely.

Each case runs a script as a user would, in a fork. Nothing but exit codes 0 and 2 may come of it,
within SECONDS and MEMORY. The quick tests try some of each kind,
`pytest -m slow tests/test_fuzz.py` thousands.
"""

import copy
import io
import json
import math
import random
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from forks import PIXELCNN, WAVENET, Fork
from PIL import Image

from datasets.audio import features
from models.model_file import load, model_content, save
from models.wavenet import WaveNet, WaveNetConfig

SECONDS, MEMORY = 20, 2 * 2 ** 20  # of one case, in seconds and KiB
FEW, MANY = 12, 250  # cases of a kind

NASTY = [None, True, False, -1, 0, 1, 3, 2 ** 31, 10 ** 30, -10 ** 30, 0.5, -0.0, 1e308,
         math.nan, math.inf, "", "text", "\ud800", "a\x1b[2J\nb", "../victim", "/etc/passwd",
         "a" * 10_000, [], {}, [1, "a"], {"a": 1}, [[[[]]]], [0] * 1000]


def counts(*names):
    """Parameters: some cases of each name, and under `slow` many."""
    return pytest.mark.parametrize("name, count", [
        *((name, FEW) for name in names),
        *(pytest.param(name, MANY, marks=pytest.mark.slow) for name in names)])


# ------------------------------------------------------------------------------ damage

def damaged_bytes(content, chance):
    """`content` with bytes changed, lost, repeated or put in."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        # The beginning, where headers are, as often as the rest.
        at = chance.randrange(min(len(content), chance.choice((64, 512, len(content)))) or 1)
        size = chance.choice((1, 1, 2, 4, 8, 100))
        kind = chance.randrange(6)
        if kind == 0:
            content[at:at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            content[at:at + size] = chance.choice((b"\0", b"\xff")) * size
        elif kind == 2:
            content[at:at + size] = chance.randbytes(size)
        elif kind == 3:
            del content[at:at + size]
        elif kind == 4:
            content[at:at] = content[at:at + size]
        else:
            del content[max(at, 1):]
    return bytes(content)


def places(content, before=()):
    """The ways to all values in nested dictionaries and lists, but for tensors' own."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content[:3])
    else:
        return
    for name, value in items:
        yield (*before, name)
        yield from places(value, (*before, name))


def damaged_values(content, chance):
    """A copy in which one to three values are others, or missing."""
    content = copy.deepcopy(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        *way, last = chance.choice(list(places(content)))
        inside = content
        for name in way:
            inside = inside[name]
        if chance.random() < 0.1:
            del inside[last]
        elif isinstance(inside[last], torch.Tensor) and chance.random() < 0.7:
            inside[last] = chance.choice((
                inside[last].flatten()[:0], inside[last].long(), inside[last].flatten(),
                inside[last] * math.nan, inside[last].expand(2, *inside[last].shape)))
        else:
            inside[last] = copy.deepcopy(chance.choice(NASTY))
    return content


# ------------------------------------------------------------------------------ running

def check(command, folder):
    """Run a script: whether it took the files. It must end with 0, or with 2 and one line."""
    ended = Fork(command, folder).wait(SECONDS)
    said = f"{command}: {ended}"
    assert ended.code in (0, 2), said
    assert "Traceback" not in ended.err and "Warning" not in ended.err, said
    assert "process died" not in ended.err, said
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (ended.code == 2), said
    assert all(line.isprintable() for line in ended.err.splitlines()), said
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < MEMORY, said
    return ended.code == 0


def check_trained(folder, kind):
    """That a run has left what can be drawn from."""
    log = json.loads((folder / "log").read_text())
    assert math.isfinite(log[-1]["main/nll"])
    load(folder, kind)


@pytest.fixture(scope="module")
def good(world, tmp_path_factory):
    """A folder with good files of each kind."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(world / "corpus", folder / "corpus")
    shutil.copytree(world / "data", folder / "data")
    for command, name in ((PIXELCNN, "pixelcnn_run"), (WAVENET, "wavenet_run")):
        assert check(f"{command} --iterations 10 --snapshot_every 5 -o {name}", folder)
    torch.manual_seed(0)
    frames = {"kind": "npy", "width": 2, "hop": 5, "rate": 8000, "window": 0, "floor": 0.0}
    model = WaveNet(WaveNetConfig(16, 4, 4, 1, 2, features=2, hop=5))
    save(folder / "features_model", model_content(
        "wavenet", model, [], {"levels": 16, "rate": 8000, "features": frames}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _libraries():
    """Load and compile once, here, what takes seconds: forks inherit it."""
    features.make_features("mel", [], 8000, 0.0125, 10)


# ------------------------------------------------------------------------------ tests

def sound_of(kind):
    """The bytes of a short sound."""
    file, samples = io.BytesIO(), np.sin(np.arange(4000) / 5) * np.linspace(0.1, 1, 4000)
    soundfile.write(file, samples, 8000, format=kind)
    return file.getvalue()


@counts("wav", "flac", "ogg", "mp3", "aiff", "au")
def test_sounds(tmp_path, name, count):
    chance, sounds = random.Random(f"{name} {count}"), tmp_path / "sounds"
    sounds.mkdir()
    (sounds / "good.wav").write_bytes(sound_of("wav"))
    content = sound_of(name)
    for number in range(count):
        (sounds / f"{number}.{name}").write_bytes(damaged_bytes(content, chance))
    assert check("preprocess.py --data sounds --output corpus --workers 1 --features mel --bins 10 "
                 "--validation 0 --stacks_num 1 --layers_num 2", tmp_path)
    manifest = json.loads((tmp_path / "corpus/vctk_manifest.json").read_text())
    used = manifest["parts"]["train"]["recordings"]
    assert "good.wav" in [recording["name"] for recording in used]
    assert all(0 < recording["length"] < 10 ** 6 for recording in used)


def picture_of(kind):
    """The bytes of a small picture."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@counts("png", "jpeg", "gif", "bmp", "webp", "tiff")
def test_pictures(tmp_path, name, count):
    chance, pictures = random.Random(f"{name} {count}"), tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        (pictures / f"good{number}.png").write_bytes(picture_of("png"))
    content = picture_of(name)
    for number in range(count):
        (pictures / f"{number}.{name}").write_bytes(damaged_bytes(content, chance))
    assert check("train_pixelcnn.py --dataset pictures --height 8 --width 8 -d 4 -n 1 -b 4 "
                 "--iterations 1 -o run", tmp_path)
    check_trained(tmp_path / "run", "pixelcnn")


DRAW = {"pixelcnn": "infer_pixelcnn.py -m model -c 1 --height 4 --width 4 -o drawn/a.png",
        "wavenet": "infer_wavenet.py -m model -c 1 --length 3 -o drawn"}


def draw_from(folder, kind):
    """Draw from the file `model`: what was taken must have drawn something."""
    if check(DRAW[kind], folder):
        drawn, = (folder / "drawn").iterdir()
        assert drawn.stat().st_size > 44
        shutil.rmtree(folder / "drawn")


@counts("pixelcnn", "wavenet")
def test_model_files(good, tmp_path, name, count):
    chance = random.Random(f"{name} {count}")
    model = next((good / f"{name}_run").glob(f"{name}_*"))
    content, file = torch.load(model, weights_only=True), tmp_path / "model"
    for number in range(count):
        if number % 2:
            file.write_bytes(damaged_bytes(model.read_bytes(), chance))
        else:
            torch.save(damaged_values(content, chance), file)
        draw_from(tmp_path, name)


@counts("pixelcnn", "wavenet")
def test_snapshots(good, tmp_path, name, count):
    chance = random.Random(f"{name} {count}")
    shutil.copytree(good, tmp_path / "here")
    here, run = tmp_path / "here", tmp_path / "here" / f"{name}_run"
    command = {"pixelcnn": PIXELCNN, "wavenet": WAVENET}[name]
    snapshot = run / "snapshot_iter_8"
    content, bytes_of = torch.load(snapshot, weights_only=True), snapshot.read_bytes()
    victim = tmp_path / "here/victim"
    victim.write_text("mine")
    before = sorted(path.name for path in run.iterdir())
    for number in range(count):
        if number % 2:
            snapshot.write_bytes(damaged_bytes(bytes_of, chance))
        else:
            torch.save(damaged_values(content, chance), snapshot)
        if check(f"{command} --iterations 9 -o {name}_run --resume {snapshot}", here):
            check_trained(run, name)
            shutil.rmtree(run)
            shutil.copytree(good / f"{name}_run", run)
        assert sorted(path.name for path in run.iterdir()) == before
        assert victim.read_text() == "mine"


@counts("manifest", "shards")
def test_corpora(good, tmp_path, name, count):
    chance, corpus = random.Random(f"{name} {count}"), tmp_path / "corpus"
    shutil.copytree(good / "corpus", corpus)
    files = sorted(corpus.glob("*.json" if name == "manifest" else "*.npy"))
    contents = {file: file.read_bytes() for file in files}
    for number in range(count):
        file = chance.choice(files)
        content = contents[file]
        if name == "manifest" and number % 3:
            content = json.dumps(damaged_values(json.loads(content), chance)).encode()
        else:
            content = damaged_bytes(content, chance)
        file.write_bytes(content)
        if check("train_wavenet.py -d corpus --hidden_dim 4 --out_hidden_dim 4 -b 2 --iterations 1 "
                 f"-o run{number}", tmp_path):
            check_trained(tmp_path / f"run{number}", "wavenet")
        file.write_bytes(contents[file])


@counts("config")
def test_configs(good, tmp_path, name, count):
    chance = random.Random(f"{name} {count}")
    shutil.copytree(good / "corpus", tmp_path / "corpus")
    content = json.loads((good / "wavenet_run/config.json").read_text())
    content |= {"iterations": 1, "epoch": 1, "sample_every": None}
    config = tmp_path / "config.json"
    for number in range(count):
        if number % 3:
            text = json.dumps(damaged_values(content, chance)).encode()
        else:
            text = damaged_bytes(json.dumps(content).encode(), chance)
        config.write_bytes(text)
        # Sizes are given, for whoever asks for a large network has asked for it.
        check("train_wavenet.py --config config.json -d corpus --hidden_dim 4 --out_hidden_dim 4 "
              f"-s 1 -l 3 -b 2 -e 1 --iterations 1 --workers 0 --auto_restart 0 -o run{number}",
              tmp_path)


@counts("npy")
def test_features(good, tmp_path, name, count):
    chance, file = random.Random(f"{name} {count}"), io.BytesIO()
    shutil.copy(good / "features_model", tmp_path / "model")
    np.save(file, np.zeros((4, 2), np.float32))
    for _ in range(count):
        (tmp_path / "a.npy").write_bytes(damaged_bytes(file.getvalue(), chance))
        check("infer_wavenet.py -m model --features_from a.npy -o drawn", tmp_path)
        assert not Path(tmp_path, "drawn").exists() or list((tmp_path / "drawn").iterdir())
