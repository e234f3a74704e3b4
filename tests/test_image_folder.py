import os
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.errors import UserError
from datasets.images.dataset import load_images


def save(path, size=(40, 40), mode="L", value=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_a_folder_of_grey_pictures_without_classes(tmp_path):
    for name in ("a.png", "b.JPG", "c.bmp", "d.tiff", "e.pgm", "f.webp", "g.gif", ".h.png"):
        save(tmp_path / name.lower())
    (tmp_path / "b.jpg").rename(tmp_path / "b.JPG")
    Image.fromarray(np.full((40, 40), 200 * 256 + 99, np.uint16)).save(tmp_path / "deep.png")
    images = load_images(str(tmp_path), validation=0)
    assert images.train.pixels.shape == (8, 1, 32, 32) and images.train.pixels.dtype == np.uint8
    assert np.abs(images.train.pixels.astype(int) - 200).max() <= 2
    assert images.train.labels is None and images.label_names == [] and images.test is None
    assert len(images.validation.pixels) == 0


def test_a_folder_with_classes_and_colour(tmp_path):
    save(tmp_path / "dogs/a.png", mode="RGB", value=(200, 100, 0))
    save(tmp_path / "dogs/deeper/b.png", mode="L", value=50)
    save(tmp_path / "cats/c.gif", mode="1", value=1)
    (tmp_path / "empty").mkdir()
    images = load_images(str(tmp_path), height=8, width=6, validation=0)
    assert images.train.pixels.shape == (3, 3, 8, 6)
    assert images.label_names == ["cats", "dogs"] and images.train.labels.tolist() == [0, 1, 1]
    assert images.train.pixels[1, :, 0, 0].tolist() == [200, 100, 0]
    assert (images.train.pixels[2] == 50).all()


def test_a_class_whose_name_is_not_utf_8_is_read_as_latin_1(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    except OSError:
        pytest.skip("such names can't be on this disk")
    for name in (os.fsdecode(b"caf\xe9/th\xe9.png"), "caf\u00e8/a.png"):
        save(tmp_path / name)
    assert load_images(str(tmp_path), validation=0).label_names == ["caf\u00e8", "caf\u00e9"]


def test_pictures_keep_their_aspect_and_are_cut_around_the_centre(tmp_path):
    stripes = np.zeros((30, 90), np.uint8)
    stripes[:, 30:60] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    upright = Image.fromarray(np.repeat([0, 255], 16).astype(np.uint8)[:, None].repeat(32, 1))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    upright.save(tmp_path / "b.png", exif=exif)
    first, second = load_images(str(tmp_path), validation=0).train.pixels[:, 0]
    assert (first >= 250).all()
    assert (second[:16] == 255).all() and (second[16:] == 0).all()


def test_a_picture_is_turned_whatever_else_its_exif_says(tmp_path):
    """A resolution that is text, which pillow reads, but does not write again."""
    tags = [(0x112, 3, 1, struct.pack("<HH", 3, 0)), (0x11a, 2, 3, b"72\0\0")]
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHI", *tag) + value for *tag, value in tags) + bytes(4)
    rows = np.repeat([0, 255], 16).astype(np.uint8)[:, None].repeat(32, 1)
    Image.fromarray(rows).save(tmp_path / "a.jpg", exif=exif)
    pixels = load_images(str(tmp_path), validation=0).train.pixels[0, 0]
    assert pixels[:14].min() > 200 and pixels[18:].max() < 50


def test_damaged_pictures_are_left_out_whatever_pillow_raises(tmp_path, monkeypatch, capsys):
    for number in range(3):
        save(tmp_path / f"{number}.png", size=(40 + number, 40))

    def damaged(image, **_):
        if image.width == 41:
            raise struct.error("required argument is not an integer")

    monkeypatch.setattr(ImageOps, "exif_transpose", damaged)
    assert len(load_images(str(tmp_path), validation=0).train.pixels) == 2
    said = capsys.readouterr().err
    assert "1 of 3 pictures left out: 1 damaged" in said
    assert "1.png: damaged (required argument is not an integer)" in said


@pytest.mark.parametrize("mode, value", [
    ("RGBA", (0, 0, 0, 0)), ("LA", (0, 0)), ("P", 0), ("RGB", (0, 0, 0)), ("L", 0)])
def test_transparency_becomes_white(tmp_path, mode, value):
    """A black drawing on a transparent background is not all black."""
    black = (0, 0, 0, 255)[-len(value):] if mode.endswith("A") else {"P": 1, "L": 1}.get(
        mode, (1, 1, 1))
    image = Image.new(mode, (32, 32), value)
    image.paste(black, (0, 0, 32, 16))
    image.save(tmp_path / "a.png", **{} if mode.endswith("A") else {"transparency": value})
    pixels = load_images(str(tmp_path), validation=0).train.pixels
    assert pixels.shape == (1, 1, 32, 32)
    assert pixels[0, 0, :16].max() <= 1 and pixels[0, 0, 16:].min() == 255


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_modes_without_a_known_white_are_refused(tmp_path, kind, capsys):
    Image.fromarray(np.full((32, 32), 200, kind)).save(tmp_path / "a.tiff")
    save(tmp_path / "b.png")
    assert len(load_images(str(tmp_path), validation=0).train.pixels) == 1
    assert "a.tiff" in capsys.readouterr().err


def test_unreadable_pictures_are_left_out_with_their_reasons(tmp_path, capsys):
    for number in range(4):
        save(tmp_path / f"{number}.png")
    content = (tmp_path / "0.png").read_bytes()
    for number in range(12):
        (tmp_path / f"bad{number:02}.png").write_bytes([b"", b"no", content[:60]][number % 3])
    assert len(load_images(str(tmp_path), validation=0).train.pixels) == 4
    lines = capsys.readouterr().err.splitlines()
    warning, = [line for line in lines if "warning" in line]
    assert "12 of 16 pictures left out: 4 is empty, 4 not a picture, 4 truncated" in warning
    told = lines[lines.index(warning) + 1:]
    assert told[0] == f"left out: {tmp_path}/bad00.png: is empty"
    assert told[1].startswith(f"left out: {tmp_path}/bad01.png: not a picture")
    assert len(told) == 11 and told[-1] == "and 2 more left out"
    for number in range(4):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(UserError, match="dataset .*none of its 12 pictures.*bad00.png: is empty"):
        load_images(str(tmp_path))


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="dataset .*no pictures"):
        load_images(str(tmp_path))
