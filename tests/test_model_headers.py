"""An impossible model file is refused in one line, before anything is built from it."""

import math
import os
import resource
import zipfile

import pytest
import torch
from crafted import DEEP, GONE, changed, doubled, flipped, rewritten, write

import infer_pixelcnn
import infer_wavenet
from common.errors import UserError
from models import model_file
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig

IMAGES = {"dataset": "mnist", "levels": 4, "channels": 1, "height": 4, "width": 3,
          "binarize": "threshold"}
SOUND = {"levels": 8, "rate": 8000, "features": {"kind": "mel", "width": 5, "hop": 20, "rate": 8000,
                                                 "window": 64, "floor": 1e-5}}
HUGE, NAN = 10 ** 30, math.nan
WEIGHT = ("weights", "hidden.bias")
PIXELCNN = [
    ("kind", 7, "kind|no model file"), ("kind", ["pixelcnn"], "no model file"),
    ("kind", torch.ones(1), "no model file"),
    ("format", "1", "format"), ("format", HUGE, "format"), ("format", 10 ** 5000, "format|tensors"),
    ("format", True, "format"), ("format", [1], "format"),
    ("config", [1], "config"), ("config", None, "config"),
    ("config.levels", HUGE, "config.levels"), ("config.levels", "4", "config.levels"),
    ("config.levels", 4.0, "config.levels"), ("config.levels", True, "config.levels"),
    ("config.levels", 8, "weights"), ("config.levels", GONE, "weights"),
    ("config.channels", 3, "weights"), ("config.channels", 0, "config.channels"),
    ("config.hidden_dim", 10 ** 9, "config.hidden_dim"), ("config.hidden_dim", 10 ** 6, "weights"),
    ("config.hidden_dim", -1, "config.hidden_dim"), ("config.out_hidden_dim", 10 ** 6, "weights"),
    ("config.blocks_num", 10 ** 9, "config.blocks_num"), ("config.blocks_num", 4000, "weights"),
    ("config.blocks_num", 0, "config.blocks_num"), ("config.blocks_num", NAN, "config.blocks_num"),
    ("config.blocks_num", math.inf, "config.blocks_num"),
    ("config.labels", -1, "config.labels"), ("config.labels", 10 ** 7, "weights"),
    ("config.vector", 3, "vector"), ("config.position", "yes", "config.position"),
    ("config.position", True, "weights"), ("config.depth", 3, "depth"),
    (("config", 3), 4, "key"), (("config", "a\nb\ud800"), 4, "Unicode|a"),
    ("label_names", "cd", "label_names"), ("label_names", ["cat"], "labels"),
    ("label_names", ["cat", 7], "label_names"), ("label_names", ["cat", "d\ud800"], "Unicode"),
    ("label_names", None, "label_names"), ("label_names", ["c" * 20_000, "d"], "label_names"),
    ("label_names", DEEP, "deep|label_names"), ("label_names", doubled(), "label_names"),
    ("data", [], "data"), ("data.levels", 2, "levels"), ("data.height", GONE, "height"),
    ("data.height", 10 ** 9, "data.height"), ("data.width", "3", "data.width"),
    ("data.width", 0, "data.width"), ("data.channels", 3, "channels"),
    ("data.binarize", "never", "data.binarize"), ("data.dataset", 3, "data.dataset"),
    ("data", {**IMAGES, "height": 60_000, "width": 60_000}, "pixels"),
    ("data.more", DEEP, "deep"),
    ("weights", [], "weights"), ("weights", {}, "weights"), (WEIGHT, GONE, "hidden.bias"),
    (WEIGHT, 3.0, "weights"), (WEIGHT, torch.ones(3), "hidden.bias"),
    (WEIGHT, torch.ones(5, dtype=torch.int64), "hidden.bias"),
    (WEIGHT, torch.full((5,), NAN), "not finite"), (WEIGHT, torch.ones(5, device="meta"), "tensor"),
    (WEIGHT, torch.ones(5).to_sparse(), "tensor|model file"),
    (WEIGHT, torch.ones(1).expand(5), "larger"),
    (("weights", 3), torch.ones(5), "weights|key"), (("weights", "more\n"), torch.ones(5), "more"),
    ("run", [], "run"), ("run", {}, "run")]
WAVENET = [
    ("config.stacks_num", 10 ** 9, "config.stacks_num"), ("config.stacks_num", 4000, "4096|layers"),
    ("config.layers_num", 25, "config.layers_num"), ("config.layers_num", 24, "layers"),
    ("config.layers_num", HUGE, "config.layers_num"), ("config.hidden_dim", 10 ** 6, "weights"),
    ("config.hop", 0, "hop"), ("config.hop", 10 ** 9, "config.hop"), ("config.hop", 30, "weights"),
    ("config.features", 0, "weights"), ("config.features", 10 ** 5, "config.features"),
    ("data.rate", 0, "data.rate"), ("data.rate", 10 ** 9, "data.rate"),
    ("data.rate", 8000.5, "data.rate"), ("data.rate", NAN, "data.rate"),
    ("data.rate", GONE, "rate"), ("data.rate", "8000", "data.rate"), ("data.rate", 4000, "rate"),
    ("data.features", GONE, "features"), ("data.features", [1], "data.features"),
    ("data.features.kind", "fft", "data.features.kind"), ("data.features.more", 1, "more"),
    ("data.features.hop", 10 ** 9, "data.features.hop"), ("data.features.hop", 21, "hop"),
    ("data.features.width", 6, "features"), ("data.features.window", 10 ** 9, "window"),
    ("data.features.window", 3, "window"), ("data.features.floor", 0.0, "floor"),
    ("data.features.floor", NAN, "floor"), ("data.features.rate", 9, "rate"),
    ("data.levels", 256, "levels"), ("label_names", ["p225", "p226"], "labels")]


@pytest.fixture(scope="module")
def contents():
    """What is in a good file of each network."""
    torch.manual_seed(0)
    image = PixelCNN(PixelCNNConfig(4, 1, 6, 5, 2, labels=2))
    sound = WaveNet(WaveNetConfig(8, 4, 3, 1, 3, features=5, hop=20))
    return {"pixelcnn": model_file.model_content("pixelcnn", image, ["cat", "dog"], IMAGES),
            "wavenet": model_file.model_content("wavenet", sound, [], SOUND)}


def refused(call, script, tmp_path, named):
    """Check that drawing from `tmp_path`/model ends in one line, and leaves nothing."""
    code, out, err = call(script, "-m", "model", "-o", "drawn/")
    line, = err.splitlines()
    assert (code, out) == (2, "") and line.startswith("error: model: "), line
    assert any(word in line for word in named.split("|")) and len(line) < 500, line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("place, value, named", PIXELCNN, ids=range(len(PIXELCNN)))
def test_impossible_pixelcnn_is_refused(call, tmp_path, contents, place, value, named):
    write("model", changed(contents["pixelcnn"], place, value))
    refused(call, infer_pixelcnn, tmp_path, named)


@pytest.mark.parametrize("place, value, named", WAVENET, ids=range(len(WAVENET)))
def test_impossible_wavenet_is_refused(call, tmp_path, contents, place, value, named):
    write("model", changed(contents["wavenet"], place, value))
    refused(call, infer_wavenet, tmp_path, named)


@pytest.mark.parametrize("kind", ["pixelcnn", "wavenet"])
def test_unknown_fields_are_ignored(tmp_path, contents, kind):
    write(tmp_path / "model", {**contents[kind], "note": [1, {"by": None}], "more": doubled()})
    assert model_file.load(tmp_path / "model", kind).label_names == contents[kind]["label_names"]


@pytest.mark.parametrize("part", ["data.pkl", "data/0", "data/7", "version"])
@pytest.mark.parametrize("bit", [1, 128])
def test_one_flipped_bit_is_detected(call, tmp_path, contents, part, bit):
    write("model", contents["pixelcnn"])
    flipped("model", part, bit=bit)
    refused(call, infer_pixelcnn, tmp_path, "damaged")


def test_compressed_file_is_refused_before_it_takes_memory(call, tmp_path, contents):
    write("plain", changed(contents["pixelcnn"], WEIGHT, torch.zeros(10 ** 7)))
    with zipfile.ZipFile("plain") as plain, zipfile.ZipFile(
            "model", "w", zipfile.ZIP_DEFLATED) as model:
        for part in plain.infolist():
            model.writestr(part.filename, plain.read(part))
    (tmp_path / "plain").unlink()
    refused(call, infer_pixelcnn, tmp_path, "compressed")


def test_tensor_larger_than_its_storage_is_refused(call, tmp_path, contents):
    write("model", changed(contents["pixelcnn"], WEIGHT, torch.zeros(1000)))
    number, huge = b"M\xe8\x03", b"J\x00\x00\x00\x10"  # 1000 and 2^28, as pickle writes them
    lying = rewritten("model", lambda pickled: pickled.replace(number, huge)).getvalue()
    assert lying != (tmp_path / "model").read_bytes()
    (tmp_path / "model").write_bytes(lying)
    refused(call, infer_pixelcnn, tmp_path, "model file|larger")


def test_refusals_take_no_memory(tmp_path, contents):
    for place, value in (("config.hidden_dim", 10 ** 6), ("config.blocks_num", 4096),
                         ("config.labels", 10 ** 7), ("config.levels", 65_536)):
        write(tmp_path / "model", changed(contents["pixelcnn"], place, value))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(UserError):
            model_file.load(tmp_path / "model", "pixelcnn")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_receptive_field_too_large_to_sample_is_refused(call, tmp_path):
    long = WaveNet(WaveNetConfig(8, 64, 3, 1, 24))  # 2^24 samples of 64 numbers
    write("model", model_file.model_content("wavenet", long, [], {"levels": 8, "rate": 8000}))
    refused(call, infer_wavenet, tmp_path, "receptive field")


def test_named_pipe_is_refused(call, tmp_path):
    os.mkfifo("model")
    refused(call, infer_pixelcnn, tmp_path, "no file")
