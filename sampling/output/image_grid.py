"""Grids of images as JPEG or PNG, or as a GIF that shows them while they are drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write

ENDINGS = (".jpg", ".jpeg", ".png", ".gif")
LONGEST_SIDE = 65500  # of a JPEG; a GIF may have 35 more
GREY = 128  # between the images, and where a GIF has not drawn yet
IMAGE_SIDE, GRID_SIDE = 56, 256  # pixels; smaller images and grids are enlarged to these
ROW_MS, LAST_MS = 60, 2000  # milliseconds for which a GIF shows each frame, and the last one


def picture_size(shape: tuple[int, int, int, int, int]) -> tuple[int, int]:
    """Return height and width in pixels of a grid of that shape, (rows, columns, H, W, C)."""
    rows, columns, height, width, _ = shape
    zoom, space = _layout(shape)
    return rows * (height * zoom + space) + space, columns * (width * zoom + space) + space


def save_picture(path: Path | str, images: np.ndarray, given_rows: int = 0,
                 original_columns: int = 0) -> None:
    """Write a grid of `images` to `path`, in the format that its ending says.

    Small images are enlarged by an integer factor. Each frame of a GIF adds a row of pixels to all
    images; the last frame stays for two seconds, then the GIF starts over.

    images: uint8 (rows, columns, H, W, C), C = 1 or 3. given_rows: the pixel rows with which a GIF
    starts, because they were given. original_columns: the first columns, which were given whole.
    Raises UserError if `path` can't be written.
    """
    path = Path(path)
    grid = Image.fromarray(_grid(images))
    with atomic_write(path) as temporary:
        if path.suffix.lower() != ".gif":
            grid.save(temporary, quality=95, subsampling=0)
            return
        frames = [_frame(images, row, original_columns) for row in
                  range(max(given_rows, 1), images.shape[2])] + [grid]
        if grid.mode == "RGB":  # one palette for all frames keeps the colours steady
            palette = grid.quantize(256)
            frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE)
                      for frame in frames]
        durations = [ROW_MS] * (len(frames) - 1) + [LAST_MS]
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=durations,
                       loop=0)


def _frame(images, row, original_columns):
    """Lay out the grid with only the first `row` pixel rows drawn."""
    images = images.copy()
    images[:, original_columns:, row:] = GREY
    return Image.fromarray(_grid(images))


def _layout(shape):
    """Return the factor by which images are enlarged, and the pixels between them."""
    rows, columns, height, width, _ = shape
    wanted = max(IMAGE_SIDE / max(height, width),
                 GRID_SIDE / max(rows * height, columns * width), 1)
    zoom = int(np.ceil(wanted))
    return zoom, max(2, zoom // 2)


def _grid(images):
    """Lay out images (rows, columns, H, W, C) as pixels (height, width) if C is 1, else (…, 3)."""
    zoom, space = _layout(images.shape)
    images = images.repeat(zoom, axis=2).repeat(zoom, axis=3)
    padding = [(0, 0), (0, 0), (space, 0), (space, 0), (0, 0)]
    images = np.pad(images, padding, constant_values=GREY)
    rows, columns, height, width, channels = images.shape
    grid = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    grid = np.pad(grid, [(0, space), (0, space), (0, 0)], constant_values=GREY)
    return grid[..., 0] if channels == 1 else grid
