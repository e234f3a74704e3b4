""".npy files from a stranger, in all places that read them: one line, nothing unpickled."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from test_corpus_features import write
from test_features_from import vocoder, write_tone  # noqa: F401 - a fixture

import infer_wavenet
import preprocess
import train_wavenet
from common.errors import UserError
from datasets.arrays import map_array
from datasets.images.dataset import load_images
from datasets.images.vectors import read_vectors


def saved(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    np.savez(file, x=np.ones(3))
    return file.getvalue()


def header(text, version=1, magic=b"\x93NUMPY", behind=b"\0" * 64):
    """A file with the `text` of a header."""
    text = text.encode("latin-1")
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return magic + bytes([version, 0]) + size + text + behind


def described(descr="'<f4'", order="False", shape="(4, 4)", more="", **how):
    return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}{more}}}", **how)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


GOOD = saved(np.ones((4, 4), np.float32))
DAMAGED = {
    "empty": b"", "text": b"no array at all", "a zip's first bytes": b"PK\3\4", "zip": zipped(),
    "half a zip": zipped()[:70], "an empty zip": b"PK\5\6" + b"\0" * 18,
    "a pickle": b"\x80\4N.", "objects": saved(np.array([[Attack()]]), allow_pickle=True),
    "only magic": GOOD[:6], "no length": GOOD[:9], "half a header": GOOD[:40],
    "no numbers": GOOD[:128], "a byte short": GOOD[:-1], "version 9": described(version=9),
    "version 3": described(version=3), "another magic": described(magic=b"\x93NUMPX"),
    "a header of 4 GB": described(version=2)[:8] + b"\xff" * 4 + described(version=2)[12:],
    "a long header": header(" " * 60_000), "an empty header": header(""),
    "an open text": header("{'descr"), "open brackets": header("(" * 900),
    "indented": header("  x\n y\n"), "a dedent": header("if x:\n  y\n z"), "NUL": header("\0" * 9),
    "deep": header("[" * 1900 + "]" * 1900), "deeper": header("-" * 3900 + "1"),
    "a call": header("__import__('os').mkdir('attacked')"), "a list": header("[]"),
    "an invalid escape": header(r"'\d' is 3"), "no shape": header("{'descr': '<f4'}"),
    "one key more": described(more=", 'x': 1"), "huge": described(shape="(10 ** 9, 4)"),
    "huge in figures": described(shape="(1000000000000, 4)"),
    "larger than integers": described(shape=f"({10 ** 30}, 4)"),
    "a number of 4,000 figures": described(shape=f"({'9' * 3900}, 4)"),
    "negative": described(shape="(-1, 4)"), "twice negative": described(shape="(-4, -4)"),
    "a shape that is none": described(shape="'ab'"), "a broken shape": described(shape="(1.5, 4)"),
    "100 dimensions": described(shape=f"({'1, ' * 100})"), "order": described(order="'x'"),
    "structured": described(descr="[('a', '<f4'), ('b', '<i4')]"), "void": described(descr="'|V4'"),
    "of arrays": described(descr="('<f4', (4,))"), "dates": described(descr="'<M8[s]'"),
    "complex": described(descr="'<c8'"), "characters": described(descr="'<U4'"),
    "no dtype": described(descr="'x9'"), "a dtype of text": described(descr="'f4,' * 9"),
    "three dimensions": saved(np.ones((2, 2, 2), np.float32)), "no dimension": saved(np.float32(1))}
AS_GOOD = {
    "big-endian": saved(np.ones((4, 4), ">f4")),
    "Fortran's order": saved(np.arange(16.0).reshape(4, 4).copy("F")),
    "version 2": described(version=2), "bytes behind": GOOD + b"behind"}


def one_line(ended, name):
    code, out, err = ended
    assert (code, out) == (2, ""), err
    line, = err.splitlines()
    assert line.startswith("error: ") and name in line and len(line) < 500
    assert not os.path.exists("attacked")
    return line


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_features_of_a_stranger(call, vocoder, content):  # noqa: F811
    with open("take.npy", "wb") as file:
        file.write(content)
    one_line(call(infer_wavenet, "-m", vocoder, "--features_from", "take.npy"), "take.npy")
    write_tone("sounds/take.wav")
    os.replace("take.npy", "sounds/take.npy")
    line = one_line(call(preprocess, "--data", "sounds", "--features", "npy"), "take.npy")
    assert "--features npy: there are none that can be used" in line


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_vectors_of_a_stranger(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match="^.*a.npy: [^\n]*; write finite numbers[^\n]*$"):
        read_vectors(tmp_path / "a.npy", (1, 2))
    assert not os.path.exists("attacked")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write(folder)
    return folder


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["vctk_train_00001.npy", "vctk_train_features_00000.npy"])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_shards_of_a_stranger(call, corpus, name, content):
    before = (corpus / name).read_bytes()
    (corpus / name).write_bytes(content)
    try:
        line = one_line(call(train_wavenet, "-d", corpus, "-o", "run"), name)
        assert line.endswith("; run preprocess.py again")
    finally:
        (corpus / name).write_bytes(before)


@pytest.mark.parametrize("content", AS_GOOD.values(), ids=AS_GOOD)
def test_unusual_forms_are_read(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    found = map_array(tmp_path / "a.npy")
    assert isinstance(found, np.memmap) and found.shape == (4, 4) and not found.flags.writeable
    assert np.array_equal(found, np.load(tmp_path / "a.npy"))
    assert read_vectors(tmp_path / "a.npy", (2,)).dtype == np.float32


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_an_empty_array_is_read(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    assert map_array(tmp_path / "a.npy").shape == shape


def test_nothing_is_read_before_it_is_used(tmp_path):
    """A sparse file of a terabyte."""
    (tmp_path / "a.npy").write_bytes(described(shape=f"({2 ** 38},)"))
    os.truncate(tmp_path / "a.npy", 2 ** 40 + 200)
    assert map_array(tmp_path / "a.npy")[2 ** 37] == 0


def test_named_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    for path, reason in ((tmp_path / "a.npy", "named pipe"), ("/dev/zero", "device")):
        with pytest.raises(OSError, match=reason):
            map_array(path)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(OSError):
            map_array(path)


def test_a_picture_with_a_bad_vector_is_left_out(tmp_path, capsys):
    for number, content in enumerate((GOOD, b"PK\3\4", header("  x\n y\n"), DAMAGED["deeper"])):
        Image.new("L", (4, 4)).save(tmp_path / f"{number}.png")
        np.save(tmp_path / f"{number}.npy", np.ones(3))
        if number:
            (tmp_path / f"{number}.npy").write_bytes(content)
    assert len(load_images(str(tmp_path), validation=0, condition="npy").train.pixels) == 1
    assert "3 of 4 pictures left out" in capsys.readouterr().err
