"""Malicious files of published sets: one line, little memory, and no code runs."""

import gzip
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from test_images import IDX, idx, write_cifar, write_idx

from common.errors import UserError
from datasets.images.dataset import load_images
from datasets.images.published import CIFAR_META, read_idx

ROWS = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072)
GOOD = {b"data": ROWS, b"labels": [1, 2]}


HANG_SECONDS = 30
pytestmark = pytest.mark.usefixtures("no_hanging")


@pytest.fixture(autouse=True)
def _little_memory():
    """Check that memory grows by little: no file here holds more than two megabytes."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.fixture
def cifar(tmp_path):
    """A function of a file's content: the line that refuses the set, None if it is read."""
    write_cifar(tmp_path)

    def read(content, name="data_batch_3"):
        (tmp_path / name).write_bytes(content)
        try:
            load_images("cifar", tmp_path)
        except UserError as error:
            assert f"{name}: damaged (" in str(error) and "\n" not in str(error)
            return str(error)

    return read


# ------------------------------------------------------------------------------ CIFAR-10


def batch(data):
    """A pickle of a batch with these instructions as its data."""
    return b"\x80\x02}(U\x04data" + data + b"U\x06labels](K\x01K\x02eu."


def array(shape=b"K\x02M\x00\x0c\x86", dtype=b"U\x02u1", first=b"K\x00\x85"):
    """The instructions that make an array, as numpy wrote them in Python 2."""
    rows = ROWS.tobytes()
    return (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + first + b"U\x01btR("
            b"K\x01" + shape + b"cnumpy\ndtype\n(" + dtype + b"K\x00K\x01tR" + b"\x89T"
            + struct.pack("<i", len(rows)) + rows + b"tb")


def test_a_batch_as_python_2_wrote_it(cifar):
    assert cifar(batch(array())) is None
    assert cifar(pickle.dumps(GOOD, 0)) is None


def test_arrays_in_the_order_of_fortran(cifar, tmp_path):
    turned = {b"data": np.asfortranarray(ROWS), b"labels": [1, 2]}
    for protocol in (2, 4, 5):
        assert cifar(pickle.dumps(turned, protocol), "test_batch") is None
        found = load_images("cifar", tmp_path).test.pixels
        assert (found.reshape(2, 3072) == ROWS).all()


@pytest.mark.parametrize("rows", [
    ROWS.astype(">u2"), ROWS.astype(float), ROWS.astype(object), ROWS.astype("S1"), ROWS[:, :3000],
    ROWS[0], ROWS.reshape(2, 3, 32, 32), ROWS[:0], ROWS.tolist(), ROWS > 9, ROWS.view("V3072"),
    None, ROWS.view(np.int8)])
def test_data_of_another_kind(cifar, rows):
    for protocol in (2, 5):
        labels = [1, 2][:2 if rows is None else len(rows)]
        assert cifar(pickle.dumps({b"data": rows, b"labels": labels}, protocol))


@pytest.mark.parametrize("labels", [
    [1.0, 2], [True, False], [b"1", b"2"], [[1], 2], [1, -1], [1, 10 ** 30], [None, 1], (1, 2),
    {"a": 1, "b": 2}, np.array([1, 2]), [1, 2, 0], "12"])
def test_labels_of_another_kind(cifar, labels):
    assert cifar(pickle.dumps({b"data": ROWS, b"labels": labels}, 2))


@pytest.mark.parametrize("names", [
    ["cat", "cat", "dog"], [["cat"], "dog"], [1, 2, 3], ["cat", "\ud800", "dog"], "cat",
    [b"cat", b"\xff\xfe", b"dog"], [], None])
def test_names_of_another_kind(cifar, names):
    assert cifar(pickle.dumps({b"label_names": names}, 2), CIFAR_META)


@pytest.mark.parametrize("content", [
    b"\x80\x02}(" + b")" + b"\x85" * 200_000 + b"K\x01u.",  # is hashed by recursion: a crash
    b"\x80\x02}(" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01u.",  # is hashed 2^60 times
    b"\x80\x02}(U\x04data" + b"]" * 5_000_000 + b"u.",  # lists, of 56 bytes each
    b"\x80\x02}(U\x04data" + b"(" * 5_000_000 + b"u.",
    batch(array(first=b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", dtype=b"U\x01O")),
    batch(array(shape=b"\x8a\x06\0\0\0\0\0\x01M\x00\x0c\x86")),
    batch(array(shape=b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86")),
    batch(array(dtype=b"T\xff\xff\xff\x7f")), batch(array(dtype=b"U\x05V9999")),
    batch(array(dtype=b"(" + b"t" * 9)), batch(b"cnumpy\nzeros\n\x8a\x06\0\0\0\0\0\x01\x85R"),
    batch(b"cos\nsystem\nU\x02ls\x85R"), batch(b"c\n\n)R"), batch(b"cnumpy\nndarray\nb"),
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"Pid\n.", b"h\x09.", b"\x82\x01.", b"(i__builtin__\nint\n.", b"L" + b"9" * 100_000 + b"L\n.",
    b"}.}.", b"", b".", b"0.", b"e.", b"(.", b"\x80\x63."])
def test_malicious_pickles(cifar, content):
    assert cifar(content)


def test_a_huge_memo_index_takes_no_memory(cifar):
    assert cifar(batch(b"r\xff\xff\xff\x0f".join((array(), b"")))) is None


def test_lists_in_lists_in_lists(cifar):
    nested = b"]" * 4000 + b"a" * 3999
    assert cifar(batch(array())[:-1] + b"U\x04more" + nested + b"s.") is None  # of no concern
    assert cifar(batch(nested))


# ------------------------------------------------------------------------------ idx


def test_named_pipes_in_place_of_files(tmp_path):
    write_idx(tmp_path, compressed=False)
    write_cifar(tmp_path / "cifar")
    for folder, name, dataset in ((tmp_path, IDX[1], "mnist"),
                                  (tmp_path / "cifar", "test_batch", "cifar")):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(UserError, match=f"{name}: is a named pipe"):
            load_images(dataset, folder)


def test_a_folder_next_to_the_archive_it_was_unpacked_from(tmp_path):
    write_idx(tmp_path)
    (tmp_path / IDX[0]).mkdir()
    assert len(load_images("mnist", tmp_path, validation=0).train.pixels) == 40


def test_no_more_is_unpacked_than_the_header_says(tmp_path):
    content = idx(np.ones((4, 28, 28), np.uint8))
    path = tmp_path / "a.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(content)
        for _ in range(60):
            file.write(bytes(1_000_000))
    with pytest.raises(UserError, match="a.gz: damaged .*holds more than 3,136 bytes"):
        read_idx(path, 3)


def test_impossible_sizes(tmp_path):
    claims = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2 ** 32 - 1, 2 ** 32 - 1, 2 ** 32 - 1)
    (tmp_path / "a").write_bytes(claims + bytes(1000))
    with pytest.raises(UserError, match="a: damaged .*holds only 1,000 bytes"):
        read_idx(tmp_path / "a", 3)
    (tmp_path / "a.gz").write_bytes(gzip.compress(claims + bytes(1000)))
    with pytest.raises(UserError, match="a.gz: its header says .*gunzip"):
        read_idx(tmp_path / "a.gz", 3)
    with open(tmp_path / "a", "rb+") as file:
        file.truncate(2 ** 36)  # takes no room on the disk
    with pytest.raises(UserError, match="a: damaged"):
        read_idx(tmp_path / "a", 3)
