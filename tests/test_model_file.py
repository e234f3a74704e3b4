"""Model files: written atomically, and checked when they are read."""

import errno
import os
import pickle

import pytest
import torch

from cli.model_flags import check_flags
from common.errors import UserError
from common.files import atomic_write
from models import model_file
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig

DATA = {"dataset": "mnist", "levels": 4, "channels": 1, "height": 5, "width": 6,
        "binarize": "threshold"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PixelCNN(PixelCNNConfig(4, 1, 6, 5, 2, labels=2))


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "pixelcnn_7"
    model_file.save(path, model_file.model_content("pixelcnn", model, ["cat", "dog"], DATA))
    return path


def test_save_and_load_a_pixelcnn(model, saved):
    loaded = model_file.load(saved, "pixelcnn")
    codes, label = torch.randint(0, 4, (2, 1, 5, 6)), torch.tensor([0, 1])
    assert torch.equal(loaded.model(codes, label), model(codes, label))
    assert (loaded.label_names, loaded.data) == (["cat", "dog"], DATA)
    assert loaded.model.config == model.config and not loaded.model.training


def test_file_without_the_position_field_loads(model, saved):
    content = torch.load(saved, weights_only=True)
    del content["config"]["position"]
    torch.save(content, saved)
    loaded, codes = model_file.load(saved, "pixelcnn").model, torch.zeros(1, 1, 9, 9).long()
    assert torch.equal(loaded(codes, torch.tensor([1])), model(codes, torch.tensor([1])))


def test_atomic_write_replaces_all_or_nothing(tmp_path):
    path = tmp_path / "log"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["log"]
    with atomic_write(path) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert os.listdir(tmp_path) == ["log"]


def test_full_disk_is_reported_and_the_old_file_stays(model, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device.*make room"):
        model_file.save(saved, model_file.model_content("pixelcnn", model, [], DATA))
    assert saved.read_bytes() == before and os.listdir(saved.parent) == ["pixelcnn_7"]


def refusal(path, kind="pixelcnn"):
    with pytest.raises(UserError) as caught:
        model_file.load(path, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_kind_of_model_is_refused(saved):
    assert f"{saved}: is a pixelcnn model" in refusal(saved, "wavenet")


@pytest.mark.parametrize("size", [0, 1, 100, 0.5, 0.99])
def test_truncated_model_file_is_refused(saved, size):
    content = saved.read_bytes()
    saved.write_bytes(content[:int(size * len(content)) if size < 1 else size])
    assert str(saved) in refusal(saved)


class Evil:
    """Would make a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_pickled_code_is_refused_and_not_run(model, tmp_path):
    path, folder = tmp_path / "model", tmp_path / "made"
    content = {**model_file.model_content("pixelcnn", model, [], DATA), "evil": Evil(str(folder))}
    torch.save(content, path)
    assert "something other than tensors and plain values" in refusal(path)
    path.write_bytes(pickle.dumps(content))
    assert "no model file" in refusal(path)
    assert not folder.exists()


@pytest.mark.parametrize("content", [
    b"text", b"\x80\x02}", [1, 2], {"kind": "resnet"}, {"kind": "pixelcnn", "format": 99},
    {"kind": "pixelcnn", "format": 1}])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert str(path) in refusal(path)


def test_weights_that_do_not_fit_the_description_are_refused(model, tmp_path):
    content = model_file.model_content("pixelcnn", model, [], DATA)
    content["config"]["hidden_dim"] = 7
    model_file.save(tmp_path / "model", content)
    assert "don't fit" in refusal(tmp_path / "model")


@pytest.mark.parametrize("part", ["config", "label_names", "data", "weights"])
def test_file_without_a_part_is_refused(saved, part):
    content = torch.load(saved, weights_only=True)
    del content[part]
    torch.save(content, saved)
    assert f"{saved}: lacks {part}" in refusal(saved)


def test_weights_that_are_not_finite_are_refused(model, tmp_path):
    with torch.no_grad():
        model.hidden.bias[0] = float("nan")
    model_file.save(tmp_path / "model",
                    model_file.model_content("pixelcnn", model, ["a", "b"], DATA))
    assert "not finite" in refusal(tmp_path / "model")


def test_missing_file_and_empty_folder_are_refused(tmp_path):
    assert "no such model file" in refusal(tmp_path / "none")
    assert "holds no pixelcnn_N" in refusal(tmp_path)


def test_best_model_of_a_run_else_its_newest_snapshot(model, tmp_path):
    content = model_file.model_content("pixelcnn", model, [], DATA)
    for number in (9, 10):
        model_file.save(tmp_path / f"snapshot_iter_{number}", content)
    assert model_file.find_best_model(tmp_path, "pixelcnn") == tmp_path / "snapshot_iter_10"
    model_file.save(tmp_path / "pixelcnn_3", content)
    (tmp_path / "pixelcnn_30.png").touch()
    assert model_file.find_best_model(tmp_path, "pixelcnn") == tmp_path / "pixelcnn_3"


def test_flags_that_contradict_the_file_are_refused():
    check_flags("file", {"levels": 4}, {"levels": None})
    check_flags("file", {"levels": 4}, {"levels": 4})
    with pytest.raises(UserError, match="--levels 8 contradicts file, which has levels 4"):
        check_flags("file", {"levels": 4}, {"levels": 8})


def test_save_and_load_a_wavenet(tmp_path):
    model = WaveNet(WaveNetConfig(16, 4, 3, 1, 3))
    model_file.save(tmp_path / "wavenet_1",
                  model_file.model_content("wavenet", model, [], {"levels": 16, "rate": 8000}))
    codes = torch.randint(0, 16, (2, 12))
    assert torch.equal(model_file.load(tmp_path, "wavenet").model(codes), model(codes))
