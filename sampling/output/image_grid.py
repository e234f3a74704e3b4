"""Images for people: grids of samples as JPEG or PNG, or as a GIF that shows them being drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import atomic_write, make_folder
from common.quiet import silent_library
from datasets.images.picture import UnusablePictureError, read_picture
from datasets.quantization import quantize_pixels

ENDINGS = (".jpg", ".jpeg", ".png", ".gif")
LONGEST_SIDE = 65500  # of a JPEG; a GIF may have 35 more
GREY = 128  # between the images, and what is not drawn yet
IMAGE_SIDE, GRID_SIDE = 56, 256  # pixels on the screen below which images are enlarged
ROW_MS, LAST_MS = 60, 2000  # milliseconds that a GIF shows each row of pixels, and the end


def check_picture(path, shape):
    """Make the folder of the picture `path` if need be.

    shape: of the grid that is to be, (rows, columns, H, W, C).
    Raises UserError for what `save_picture` could not write: an ending other than .jpg, .jpeg,
    .png and .gif, a folder that can't be written to, or a grid that is too large.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--output {path}: the name must end in {', '.join(ENDINGS[:-1])} or .gif, "
                        "or in / for a folder")
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder, where the picture is to be; name another")
    rows, columns, height, width, _ = shape
    zoom, space = _layout(shape)
    for count, side in ((rows, height), (columns, width)):
        if count * (side * zoom + space) + space > LONGEST_SIDE:
            raise UserError(f"--output {path}: {rows} x {columns} images of {height} x {width} "
                            f"are too many for one picture; give a smaller --count")
    make_folder(path.parent, "--output")


def save_picture(path, images, given_rows=0, originals=0):
    """Write a grid of `images` to `path`, in the format that its ending says.

    The images are enlarged by a whole factor where they are small. A GIF adds a row of pixels to
    all of them with each frame, holds the last for two seconds, and begins again.

    images: uint8 (rows, columns, H, W, C), C = 1 or 3. given_rows: pixel rows that were not drawn
    but given, so that a GIF begins with them. originals: columns that were given whole.
    """
    path = Path(path)
    grid = Image.fromarray(_grid(images))
    with atomic_write(path) as temporary:
        if path.suffix.lower() != ".gif":
            grid.save(temporary, quality=95, subsampling=0)
            return
        frames = [_frame(images, row, originals) for row in
                  range(max(given_rows, 1), images.shape[2])] + [grid]
        if grid.mode == "RGB":  # one palette for all, lest the colours flicker
            palette = grid.quantize(256)
            frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE)
                      for frame in frames]
        durations = [ROW_MS] * (len(frames) - 1) + [LAST_MS]
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=durations,
                       loop=0)


def read_codes(paths, channels, height, width, levels):
    """The pictures at `paths` as codes of a network: int64 (N, channels, height, width).

    They are resized and cut around the centre; colours become grey where the network knows none.
    Raises UserError for a file that is no picture, or none that can be read.
    """
    codes = np.empty((len(paths), channels, height, width), np.int64)
    for number, path in enumerate(paths):
        try:
            with silent_library("PIL"):
                pixels = read_picture(path, height, width)
        except UnusablePictureError as error:
            raise UserError(f"--complete {path}: {error}; name a PNG or JPEG file") from None
        if len(pixels) > channels:
            pixels = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]
        codes[number] = quantize_pixels(pixels, levels)  # of grey all channels are the same
    return codes


def _frame(images, row, originals):
    """The grid when `row` rows of pixels are drawn."""
    images = images.copy()
    images[:, originals:, row:] = GREY
    return Image.fromarray(_grid(images))


def _layout(shape):
    """By how much a grid's images are enlarged, and the space between them in pixels."""
    rows, columns, height, width, _ = shape
    wanted = max(IMAGE_SIDE / max(height, width),
                 GRID_SIDE / max(rows * height, columns * width), 1)
    zoom = int(np.ceil(wanted))
    return zoom, max(2, zoom // 2)


def _grid(images):
    """images: (rows, columns, H, W, C) -> pixels (height, width) if C is 1, else (…, 3)."""
    zoom, space = _layout(images.shape)
    images = images.repeat(zoom, axis=2).repeat(zoom, axis=3)
    padding = [(0, 0), (0, 0), (space, 0), (space, 0), (0, 0)]
    images = np.pad(images, padding, constant_values=GREY)
    rows, columns, height, width, channels = images.shape
    grid = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    grid = np.pad(grid, [(0, space), (0, space), (0, 0)], constant_values=GREY)
    return grid[..., 0] if channels == 1 else grid
