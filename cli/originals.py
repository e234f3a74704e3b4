"""The pictures that --complete names, as codes of a network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from common.quiet import silent_library
from datasets.images.picture import UnusablePictureError, read_picture
from datasets.quantization import quantize_pixels


def read_originals(paths: Sequence[Path | str], channels: int, height: int, width: int,
                   levels: int) -> np.ndarray:
    """Read pictures as codes, int64 (N, channels, height, width).

    They are resized and cropped around the centre. Colours become grey for a network of one
    channel, grey becomes equal channels for one of three.
    Raises UserError for a file that is no picture or cannot be read.
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
        codes[number] = quantize_pixels(pixels, levels)  # broadcasts grey to all channels
    return codes
