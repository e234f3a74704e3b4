import gzip
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch

from common.errors import UserError
from datasets.images.dataset import ImageCodes, load_images
from datasets.images.published import CIFAR_META, cifar_names

GENERATOR = np.random.default_rng(0)
IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
       "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    return (bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            + array.tobytes())


def write_idx(folder, compressed=True, train=40, test=7):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for name, count in zip(IDX, (train, train, test, test), strict=True):
        if "images" in name:
            array = GENERATOR.integers(0, 256, (count, 28, 28), np.uint8)
        else:
            array = GENERATOR.integers(0, 10, count, np.uint8)
        content = gzip.compress(idx(array)) if compressed else idx(array)
        (folder / (name + ".gz" * compressed)).write_bytes(content)
        arrays.append(array)
    return arrays


def write_cifar(folder, protocol=2, key=str.encode, count=6):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in cifar_names()[:-1]:
        rows.append(GENERATOR.integers(0, 256, (count, 3072), np.uint8))
        content = {key("data"): rows[-1], key("labels"): [i % 3 for i in range(count)],
                   key("filenames"): [key("x.png")] * count}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    names = {key("label_names"): [key(name) for name in ("cat", "dog", "ship")]}
    (folder / CIFAR_META).write_bytes(pickle.dumps(names, protocol))
    return rows


def same_images(part, pixels):
    wanted = {image.tobytes() for image in pixels}
    return {image.tobytes() for image in part.pixels} == wanted


@pytest.mark.parametrize("dataset, place", [
    ("mnist", "MNIST/raw"), ("mnist", "raw"), ("mnist", "."),
    ("fashion-mnist", "FashionMNIST/raw"), ("fashion-mnist", ".")])
@pytest.mark.parametrize("compressed", [True, False])
def test_idx_files_are_found_and_read(tmp_path, dataset, place, compressed):
    train, labels, test, test_labels = write_idx(tmp_path / place, compressed)
    images = load_images(dataset, tmp_path, validation=0.1)
    assert images.train.pixels.shape == (36, 1, 28, 28)
    assert images.validation.pixels.shape == (4, 1, 28, 28)
    assert (images.test.pixels[:, 0] == test).all() and (images.test.labels == test_labels).all()
    assert images.test.labels.dtype == np.int64 and len(images.label_names) == 10
    both = [np.concatenate(pair) for pair in zip(images.train, images.validation, strict=True)]
    label = {image.tobytes(): number for image, number in zip(train, labels, strict=True)}
    assert len(label) == 40
    assert {image.tobytes(): number for image, number in zip(*both, strict=True)} == label


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("key", [str.encode, str])
def test_cifar_batches_are_read(tmp_path, protocol, key):
    rows = write_cifar(tmp_path / "cifar-10-batches-py", protocol, key)
    images = load_images("cifar", tmp_path)
    assert images.train.pixels.shape == (28, 3, 32, 32) and len(images.validation.pixels) == 2
    assert (images.test.pixels.reshape(6, 3072) == rows[5]).all()
    assert images.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert images.label_names == ["cat", "dog", "ship"]


def test_published_images_at_another_size(tmp_path):
    write_idx(tmp_path)
    images = load_images("mnist", tmp_path, height=14)
    assert images.train.pixels.shape[1:] == images.test.pixels.shape[1:] == (1, 14, 28)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    write_cifar(tmp_path)

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    for content in (Attack(), {b"data": Attack()}):
        (tmp_path / "data_batch_2").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match="data_batch_2: damaged"):
            load_images("cifar", tmp_path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [
    b"", b"garbage", pickle.dumps([1]), pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}),
    pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}),
    pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 3]}),
    pickle.dumps({b"data": np.zeros((2, 9), np.uint8), b"labels": [1, 2]}),
    pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]})])
def test_damaged_cifar_is_named(tmp_path, content):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match="data_batch_3: damaged") as error:
        load_images("cifar", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [
    lambda b: b[:-9], lambda b: b + b"x", lambda b: b[:10], lambda b: b"", lambda b: b"no" + b[2:],
    lambda b: b[:4] + b"\xff" * 12 + b[16:], lambda b: b[:4] + bytes(12)])
def test_damaged_idx_is_named(tmp_path, damage):
    write_idx(tmp_path, compressed=False)
    path = tmp_path / IDX[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{IDX[0]}: damaged"):
        load_images("mnist", tmp_path)


def test_damaged_gzip_is_named(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / f"{IDX[2]}.gz"
    content = path.read_bytes()
    for damage in (content[:500], content[:500] + bytes(500) + content[1000:], b"garbage", b""):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=f"{IDX[2]}.gz: damaged") as error:
            load_images("mnist", tmp_path)
        assert "\n" not in str(error.value)


def test_labels_that_do_not_belong_to_the_images(tmp_path):
    write_idx(tmp_path, compressed=False)
    for labels in (np.zeros(39, np.uint8), np.full(40, 10, np.uint8)):
        (tmp_path / IDX[1]).write_bytes(idx(labels))
        with pytest.raises(UserError, match=f"{IDX[1]}: damaged"):
            load_images("mnist", tmp_path)


def test_a_set_with_a_file_missing_is_not_downloaded_over(tmp_path):
    write_idx(tmp_path / "MNIST/raw")
    (tmp_path / "MNIST/raw" / f"{IDX[3]}.gz").unlink()
    with pytest.raises(UserError, match=f"MNIST.raw: {IDX[3]} not found"):
        load_images("mnist", tmp_path)


def pretend_torchvision(monkeypatch, download):
    module = types.SimpleNamespace(datasets=types.SimpleNamespace(MNIST=download, CIFAR10=download))
    monkeypatch.setitem(sys.modules, "torchvision", module)


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("Error downloading"),
                                   RuntimeError()])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch, error):
    def download(root, download):
        (tmp_path / root / "MNIST/raw").mkdir(parents=True)
        for name in IDX:
            (tmp_path / root / "MNIST/raw" / f"{name}.gz").write_bytes(b"half a f")
        raise error

    pretend_torchvision(monkeypatch, download)
    with pytest.raises(UserError, match=f"dataset mnist.*{IDX[3]}.*--data assets") as raised:
        load_images("mnist", tmp_path / "new")
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_download_is_found_by_the_next_run(tmp_path, monkeypatch):
    calls = []

    def download(root, download):
        calls.append(root)
        write_idx(tmp_path / root / "MNIST/raw")

    pretend_torchvision(monkeypatch, download)
    first = load_images("mnist", tmp_path / "new")
    again = load_images("mnist", tmp_path / "new")
    assert len(calls) == 1 and (first.train.pixels == again.train.pixels).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["MNIST"]


def test_unknown_dataset_lists_the_choices(tmp_path):
    with pytest.raises(UserError, match="dataset minst: .*mnist, fashion-mnist, cifar"):
        load_images("minst", tmp_path)


def test_the_validation_images_are_always_the_same(tmp_path):
    write_idx(tmp_path, train=100)
    first, again = (load_images("mnist", tmp_path) for _ in range(2))
    assert same_images(first.validation, again.validation.pixels)
    assert len(first.validation.pixels) == 5
    assert len(load_images("mnist", tmp_path, validation=0).train.pixels) == 100
    for count, held_back in ((1, 0), (2, 1)):
        write_idx(tmp_path, train=count)
        assert len(load_images("mnist", tmp_path, validation=0.01).validation.pixels) == held_back


def test_codes_and_their_targets():
    pixels = GENERATOR.integers(0, 256, (10, 3, 5, 4), np.uint8)
    images = ImageCodes(pixels, np.arange(10), 4)
    batch = images[np.array([7, 2])]
    assert len(images) == 10 and batch.codes.dtype == torch.int64
    assert (batch.codes.numpy() == pixels[[7, 2]] // 64).all()
    assert batch.targets is batch.codes
    assert batch.label.tolist() == [7, 2] and batch.label.dtype == torch.int64
    assert ImageCodes(pixels, None, 4)[[0]].label is None
    assert (ImageCodes(pixels, None, 2)[[0]].codes.numpy() == (pixels[:1] >= 128)).all()


def test_sampled_binarisation_is_a_function_of_seed_epoch_and_index():
    pixels = GENERATOR.integers(1, 255, (6, 1, 28, 28), np.uint8)
    images = ImageCodes(pixels, None, 2, "sampled", seed=3)
    first = images[np.arange(6)].codes
    images[np.arange(3)]  # what was drawn before does not matter, nor in which batch
    assert (images[[4, 1]].codes == first[[4, 1]]).all()
    images.epoch = 1
    assert (images[np.arange(6)].codes != first).any(dim=(1, 2, 3)).all()
    other = ImageCodes(pixels, None, 2, "sampled", seed=4)
    assert (other[np.arange(6)].codes != first).any(dim=(1, 2, 3)).all()
    same = ImageCodes(np.repeat(pixels[:1], 6, 0), None, 2, "sampled")[np.arange(6)].codes
    assert len(torch.unique(same.flatten(1), dim=0)) == 6


def test_fixed_binarisation_is_the_same_in_all_epochs():
    pixels = GENERATOR.integers(1, 255, (6, 1, 28, 28), np.uint8)
    images = ImageCodes(pixels, None, 2, "sampled", fixed=True)
    first = images[np.arange(6)].codes
    images.epoch = 9
    assert (images[np.arange(6)].codes == first).all()


@pytest.mark.parametrize("pixel", [0, 1, 64, 200, 254, 255])
def test_sampled_binarisation_has_the_probability_of_the_pixel(pixel):
    images = ImageCodes(np.full((100, 1, 40, 40), pixel, np.uint8), None, 2, "sampled")
    drawn = images[np.arange(100)].codes.double()
    probability = pixel / 255
    deviation = (probability * (1 - probability) / drawn.numel()) ** 0.5
    assert abs(drawn.mean() - probability) <= 4 * deviation  # exactly equal at both ends


def test_mirroring_is_a_function_of_seed_epoch_and_index():
    pixels = GENERATOR.integers(0, 256, (60, 3, 4, 5), np.uint8)
    before = pixels.copy()
    plain = ImageCodes(pixels, None, 256)[np.arange(60)].codes

    def mirrored(images):
        codes = images[np.arange(60)].codes
        is_mirrored = (codes == plain.flip(3)).all(dim=(1, 2, 3))
        assert ((codes == plain).all(dim=(1, 2, 3)) != is_mirrored).all()
        return is_mirrored

    images = ImageCodes(pixels, None, 256, seed=3, flip=True)
    first = mirrored(images)
    assert 15 < first.sum() < 45
    assert torch.equal(images[[41, 7]].codes, images[np.arange(60)].codes[[41, 7]])
    images.epoch = 1
    assert not torch.equal(mirrored(images), first)
    assert not torch.equal(mirrored(ImageCodes(pixels, None, 256, seed=4, flip=True)), first)
    assert (pixels == before).all()


def test_a_mirrored_image_is_binarised_as_it_stands():
    pixels = np.repeat(np.array([[[[0, 0, 255, 255]]]], np.uint8), 20, 0)
    codes = ImageCodes(pixels, None, 2, "sampled", flip=True)[np.arange(20)].codes[:, 0, 0]
    assert sorted(map(tuple, torch.unique(codes, dim=0).tolist())) == [(0, 0, 1, 1), (1, 1, 0, 0)]


def test_impossible_codes():
    pixels = np.zeros((2, 1, 4, 4), np.uint8)
    with pytest.raises(UserError, match="binarize.*--levels"):
        ImageCodes(pixels, None, 4, "sampled")
    with pytest.raises(UserError, match="levels 257"):
        ImageCodes(pixels, None, 257)


def test_evaluation_draws_do_not_depend_on_the_seed():
    pixels = np.full((3, 1, 8, 8), 128, np.uint8)
    draws = [ImageCodes(pixels, None, 2, "sampled", seed=seed, fixed=True)[[0, 1, 2]].codes
             for seed in (0, 7)]
    assert torch.equal(*draws) and 0 < draws[0].double().mean() < 1
