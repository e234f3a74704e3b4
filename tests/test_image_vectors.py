"""Vectors of images are found, checked, and trained on."""

import os

import numpy as np
import pytest
from PIL import Image
from test_images import write_cifar, write_idx

from common.errors import UserError
from datasets.images.dataset import ImageCodes, load_images
from datasets.images.vectors import load_named_vectors, read_vectors

GENERATOR = np.random.default_rng(0)


def write_pictures(folder, count, width=3):
    """Pictures of one grey each, with vectors that begin with that grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("L", (8, 8), number).save(folder / f"{number}.png")
        vector = np.append(float(number), GENERATOR.normal(size=width - 1))
        np.save(folder / f"{number}.npy", vector)


def test_each_picture_of_a_folder_has_its_vector(tmp_path):
    write_pictures(tmp_path, 9)
    write_pictures(tmp_path / "deeper", 1)
    images = load_images(str(tmp_path), validation=0.4, condition="npy")
    assert images.label_names == [] and images.vector == 3
    for part, count in ((images.train, 6), (images.validation, 4)):
        assert part.labels.dtype == np.float32 and part.labels.shape == (count, 3)
        assert np.array_equal(part.labels[:, 0], part.pixels[:, 0, 0, 0])
    dataset = ImageCodes(*images.train, 2)
    assert dataset[[4, 1]].label.tolist() == images.train.labels[[4, 1]].tolist()
    assert dataset.label_counts(1) == [6]


@pytest.mark.parametrize("dataset", ["mnist", "cifar"])
def test_published_images_have_the_vectors_in_their_order(tmp_path, dataset):
    if dataset == "mnist":
        train, _, test, _ = write_idx(tmp_path)
    else:
        rows = write_cifar(tmp_path)
        train, test = np.concatenate(rows[:5]), rows[5]
    for part, pixels in (("train", train), ("test", test)):
        means = pixels.reshape(len(pixels), -1).mean(1)
        np.save(tmp_path / f"{dataset}_{part}_vectors.npy", np.stack((means, -means), 1))
    images = load_images(dataset, tmp_path, validation=0.3, condition="npy")
    assert images.vector == 2 and images.label_names == []
    for part in (images.train, images.validation, images.test):
        means = part.pixels.reshape(len(part.pixels), -1).mean(1)
        np.testing.assert_allclose(part.labels, np.stack((means, -means), 1), rtol=1e-6)


def test_without_conditioning_there_are_no_labels(tmp_path):
    write_idx(tmp_path)
    images = load_images("mnist", tmp_path, condition="none")
    assert images.label_names == [] and images.vector == 0
    assert images.train.labels is images.validation.labels is images.test.labels is None


BAD = {  # what is written, and what is said of it
    "empty file": (b"", "no .npy file of numbers: [^;]*"),
    "no npy": (b"no numbers", "no .npy file of numbers: [^;]*"),
    "objects": (np.array([1.0, None, "a"], object), "no .npy file of numbers: [^;]*"),
    "text": (np.array(["1", "2"]), "no .npy file of numbers: [^;]*"),
    "complex": (np.ones(3, complex), "no .npy file of numbers: [^;]*"),
    "a table": (np.ones((3, 3)), r"its shape is \(3, 3\), not \(width,\)"),
    "one number": (np.float32(3), r"its shape is \(\), not \(width,\)"),
    "none": (np.ones(0), r"its shape is \(0,\), not \(width,\)"),
    "NaN": (np.array([1, np.nan, 2]), "not all of its numbers are finite"),
    "too large": (np.array([1, 1e300, 2]), "not all of its numbers are finite")}


@pytest.mark.parametrize("content, reason", BAD.values(), ids=BAD)
def test_files_that_hold_no_vector(tmp_path, capsys, content, reason):
    write_pictures(tmp_path, 5)
    if isinstance(content, bytes):
        (tmp_path / "2.npy").write_bytes(content)
    else:
        np.save(tmp_path / "2.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match=f"2.npy: {reason}; write .*numpy.save") as error:
        read_vectors(tmp_path / "2.npy", (1,))
    assert "\n" not in str(error.value)
    images = load_images(str(tmp_path), validation=0, condition="npy")
    assert images.train.labels[:, 0].tolist() == [0, 1, 3, 4]
    warning, told = (line for line in capsys.readouterr().err.splitlines() if "left out" in line)
    assert "1 of 5 pictures left out for want of a vector beside them: 1 " in warning
    assert f"2.npy: {reason[:12]}" in told


def test_a_truncated_file_holds_no_vector(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(100))
    content = (tmp_path / "a.npy").read_bytes()
    for length in (1, 7, 60, 200, len(content) - 1):
        (tmp_path / "a.npy").write_bytes(content[:length])
        with pytest.raises(UserError, match="a.npy: "):
            read_vectors(tmp_path / "a.npy", (1,))


def test_a_pickle_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    np.save(tmp_path / "a.npy", np.array([Attack()], object), allow_pickle=True)
    with pytest.raises(UserError, match="a.npy: no .npy file of numbers: it holds object"):
        read_vectors(tmp_path / "a.npy", (1, 2))
    assert not (tmp_path / "attacked").exists()


def test_pictures_without_a_vector(tmp_path, capsys):
    write_pictures(tmp_path, 6)
    for number in range(4):
        (tmp_path / f"{number}.npy").unlink()
    assert len(load_images(str(tmp_path), validation=0, condition="npy").train.pixels) == 2
    warning, *told = (line for line in capsys.readouterr().err.splitlines() if "left out" in line)
    assert "4 of 6 pictures left out for want of a vector beside them: 4 No such file" in warning
    assert len(told) == 4 and "0.npy: No such file" in told[0]
    for number in (4, 5):
        (tmp_path / f"{number}.npy").unlink()
    with pytest.raises(UserError, match="dataset .*none of its 6 pictures.*numpy.save"):
        load_images(str(tmp_path), condition="npy")


def test_vectors_of_two_widths(tmp_path):
    write_pictures(tmp_path, 3)
    np.save(tmp_path / "1.npy", np.ones(4))
    with pytest.raises(UserError, match="1.npy: has 4 numbers a vector, .*0.npy 3; give"):
        load_images(str(tmp_path), condition="npy")


def test_vectors_that_do_not_belong_to_the_published_images(tmp_path):
    write_idx(tmp_path)
    counts = {"train": 40, "test": 7}
    for part, count, width, message in (
            ("train", 39, 3, "train_vectors.npy: has 39 vectors for 40 images"),
            ("test", 8, 3, "test_vectors.npy: has 8 vectors for 7 images"),
            ("test", 7, 4, "test_vectors.npy: has 4 numbers a vector, .*train_vectors.npy 3")):
        for name in counts:
            shape = (count, width) if name == part else (counts[name], 3)
            np.save(tmp_path / f"mnist_{name}_vectors.npy", np.ones(shape))
        with pytest.raises(UserError, match=message):
            load_images("mnist", tmp_path, condition="npy")
    (tmp_path / "mnist_test_vectors.npy").unlink()
    with pytest.raises(UserError, match="mnist_test_vectors.npy: No such file"):
        load_images("mnist", tmp_path, condition="npy")


def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(UserError, match="a.npy: is a named pipe"):
        load_named_vectors(tmp_path / "a.npy")


def test_names_of_vectors(tmp_path):
    np.save(tmp_path / "b.npy", np.ones(2))
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a/c.npy", np.arange(6).reshape(3, 2))
    assert load_named_vectors(tmp_path / "b.npy")[0] == ["b"]
    assert load_named_vectors(tmp_path / "a/c.npy")[0] == ["c 0", "c 1", "c 2"]
    names, vectors = load_named_vectors(tmp_path)
    assert names == ["a/c 0", "a/c 1", "a/c 2", "b"]
    assert vectors.tolist() == [[0, 1], [2, 3], [4, 5], [1, 1]]
    np.save(tmp_path / "d.npy", np.ones(3))
    with pytest.raises(UserError, match="d.npy: has 3 numbers a vector, .*c.npy 2"):
        load_named_vectors(tmp_path)
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "missing.npy"):
        with pytest.raises(UserError, match=wrong):
            load_named_vectors(tmp_path / wrong)
