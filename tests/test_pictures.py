"""Grids of images as pictures and GIFs, and pictures read as codes."""

import numpy as np
import pytest
from PIL import Image

from cli.image_request import check_picture
from cli.originals import read_originals
from common.errors import UserError
from sampling.output.image_grid import GREY, save_picture


def images(rows, columns, height, width, channels):
    """Random pixels, none of them grey."""
    values = np.random.default_rng(0).integers(0, 100, (rows, columns, height, width, channels))
    return values.astype(np.uint8)


def opened(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_enlarged_images(tmp_path, channels):
    pixels = images(6, 4, 28, 20, channels)
    save_picture(tmp_path / "a.png", pixels)
    grid = opened(tmp_path / "a.png")
    # 28 rows enlarged twice, with 2 between and around.
    assert grid.shape == (6 * 58 + 2, 4 * 42 + 2, 3)
    top, left = 3 * 58 + 2, 1 * 42 + 2
    cut = grid[top:top + 56:2, left:left + 40:2]
    assert (cut == pixels[3, 1]).all()
    assert (grid[top + 1:top + 57:2, left + 1:left + 41:2] == cut).all()
    assert (grid[:2] == GREY).all() and (grid[:, -2:] == GREY).all()
    assert (grid[top:top + 56, left + 40:left + 42] == GREY).all()


def test_jpeg_is_close_and_large_images_are_not_enlarged(tmp_path):
    for name in ("a.jpg", "b.JPEG"):
        save_picture(tmp_path / name, np.full((1, 1, 300, 280, 3), (200, 30, 90), np.uint8))
        grid = opened(tmp_path / name)
        assert grid.shape == (304, 284, 3)
        assert abs(grid[10:290, 10:270] - (200, 30, 90)).max() < 8
        assert Image.open(tmp_path / name).format == "JPEG"


def test_a_single_small_image_can_be_seen(tmp_path):
    save_picture(tmp_path / "a.png", images(1, 1, 8, 8, 1))
    assert min(opened(tmp_path / "a.png").shape[:2]) >= 256


@pytest.mark.parametrize("channels", [1, 3])
def test_gif_adds_a_row_with_each_frame(tmp_path, channels):
    pixels = images(5, 5, 12, 9, channels) * (2 if channels == 1 else 1)
    save_picture(tmp_path / "a.gif", pixels)
    gif = Image.open(tmp_path / "a.gif")
    assert gif.n_frames == 12 and gif.info["loop"] == 0
    durations = []
    for row in range(1, 13):
        gif.seek(row - 1)
        durations.append(gif.info["duration"])
        frame = np.asarray(gif.convert("RGB")).astype(int)
        zoom = 5
        first = frame[2:2 + 12 * zoom:zoom, 2:2 + 9 * zoom:zoom]
        assert (first[row:] == GREY).all()
        difference = abs(first[:row] - pixels[0, 0, :row])
        assert difference.max() <= (0 if channels == 1 else 30)  # 256 colours
    assert durations == [60] * 11 + [2000]


def test_gif_of_completions_starts_with_the_given_rows(tmp_path):
    save_picture(tmp_path / "a.gif", images(5, 5, 12, 9, 1), given_rows=6, original_columns=1)
    gif = Image.open(tmp_path / "a.gif")
    assert gif.n_frames == 7
    first = np.asarray(gif.convert("L"))[2:62:5]
    assert (first[:, 2:47:5] != GREY).all()
    assert (first[:6, 49:94:5] != GREY).all() and (first[6:, 49:94:5] == GREY).all()


def test_pictures_that_cannot_be_written_are_refused_early(tmp_path):
    shape = (2, 2, 8, 8, 1)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for name, message in [("a.bmp", "must end in .jpg"), ("a", "must end in .jpg"),
                          ("file/a.png", "can't be written"), ("folder.png", "is a folder")]:
        with pytest.raises(UserError, match=message) as error:
            check_picture(tmp_path / name, shape)
        assert "--output" in str(error.value)
    with pytest.raises(UserError, match="--count"):
        check_picture(tmp_path / "a.png", (2000, 2, 32, 32, 3))
    check_picture(tmp_path / "new/folder/a.gif", shape)
    assert (tmp_path / "new/folder").is_dir()


def test_pictures_as_codes(tmp_path):
    grey = np.repeat(np.array([[0, 255], [63, 64]], np.uint8), 4, 0).repeat(4, 1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.new("RGB", (40, 20), (255, 0, 128)).save(tmp_path / "colour.png")
    codes = read_originals([tmp_path / "grey.png", tmp_path / "colour.png"], 3, 8, 8, levels=4)
    assert codes.shape == (2, 3, 8, 8) and codes.dtype == np.int64
    assert (codes[0, :, ::4, ::4] == [[0, 3], [0, 1]]).all()
    assert (codes[1, :, 5, 5] == (3, 0, 2)).all()
    assert read_originals([tmp_path / "colour.png"], 1, 5, 7, levels=256).shape == (1, 1, 5, 7)
    (tmp_path / "no.png").write_text("no picture")
    for name in ("no.png", "missing.png"):
        with pytest.raises(UserError, match=f"--complete .*{name}"):
            read_originals([tmp_path / name], 1, 5, 7, levels=4)
