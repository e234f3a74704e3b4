"""One picture read from a file that anyone may have made: in bounded memory, or with a reason."""

import io
import os
import threading
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common.files import open_regular

# What pillow may take a file for, whatever its ending says. Not all that it knows: for EPS it would
# run Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "DIB", "ICO", "AVIF", "JPEG2000")

# Pillow's own limit, beyond which it takes a picture for an attack: 13,377 pixels squared.
MOST_PIXELS = 178_956_970
# Pillow's first limit, where it begins to warn. Above it, pictures are reduced before anything else
# is done with them. No ordinary photo is that large, and those up to here keep every byte.
LARGE = 89_478_485
# For all pictures that are decoded at the same time; one that needs more is left out.
MOST_MEMORY = 3 * 2 ** 29
# Bytes a pixel: 4 of pillow's image, 4 of what it is turned or converted into; where a decoder has
# buffers of its own, as measured with pillow 13.
BYTES = {"WEBP": 17, "AVIF": 10, "JPEG2000": 20}
USUAL_BYTES = 8
LONGEST_READ = 2 ** 28  # bytes that a decoder may ask for at once
# Of a JPEG, scans times pixels: each scan goes over all of the picture, and may be of 20 bytes.
MOST_SCANNED = 16 * MOST_PIXELS
SCANS = [b"\xff\xda\x00" + bytes([6 + 2 * components]) for components in (1, 2, 3, 4)]
STRIP = 2 ** 22  # pixels that are converted at once


class UnusablePictureError(Exception):
    """A picture that can't be used. Its text is the reason, such as "truncated"."""


class Budget:
    """So many bytes, which threads take from and give back."""

    def __init__(self, total: int):
        self.left = total
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int):
        """In its context `amount` bytes are taken. Waits for them; they must be in the total."""
        with self._changed:
            self._changed.wait_for(lambda: self.left >= amount)
            self.left -= amount
        try:
            yield
        finally:
            with self._changed:
                self.left += amount
                self._changed.notify_all()


BUDGET = Budget(MOST_MEMORY)


class PictureFile(io.BufferedReader):
    """A file whose length and chunks' lengths are not believed: no read is of more than 256 MiB."""

    def read(self, size: int | None = -1) -> bytes:
        """As of any file; raises UnusablePictureError where the read would be too long."""
        if size is None or size < 0 or size > LONGEST_READ:
            size = os.fstat(self.fileno()).st_size - self.tell()
            if size > LONGEST_READ:
                raise UnusablePictureError(f"holds more than {LONGEST_READ:,} bytes in one piece")
        return super().read(max(size, 0))


def read_picture(path, height: int, width: int) -> np.ndarray:
    """Pixels uint8 (1 or 3, height, width) of the picture at `path`: 1 if it is grey.

    Resized and cut around the centre, so that the aspect is kept. What is transparent is white. Of
    animations and documents the first picture.
    Pillow's own notes are for the caller to silence, once for all threads: `silent_library`.
    Raises UnusablePictureError. Waits while other threads' pictures take all of MOST_MEMORY.
    """
    try:
        with open_regular(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise UnusablePictureError("is empty")
            pixels = _decoded(PictureFile(file.raw), height, width)
    except OSError as error:
        if error.errno is None:
            raise UnusablePictureError(_reason(error)) from None
        raise UnusablePictureError(error.strerror.lower()) from None
    return pixels[:1] if (pixels == pixels[:1]).all() else pixels


def _decoded(file, height, width):
    """Pixels uint8 (1 or 3, height, width) of an open file."""
    try:
        with Image.open(file, formats=_formats()) as image:
            pixels = image.width * image.height
            if not pixels:
                raise UnusablePictureError("has no pixels")
            kind = image.format
            memory = pixels * BYTES.get(kind, USUAL_BYTES)
            if pixels > MOST_PIXELS or memory > MOST_MEMORY:
                raise Image.DecompressionBombError
            if kind in ("JPEG", "MPO") and pixels * _scans(file) > MOST_SCANNED:
                raise UnusablePictureError("too many scans")
            with BUDGET.taken(memory):
                side = 2 * max(height, width)  # what is reduced is still twice the size
                if pixels > LARGE:
                    image.draft(None, (side, side))  # JPEG alone can; others ignore it
                turn_upright(image)
                times = 1
                if image.width * image.height > LARGE:
                    times = max(1, min(image.size) // side)
                return fit(in_rgb(image, kind, times), height, width)
    except (MemoryError, UnusablePictureError):
        raise
    except Exception as error:  # what pillow raises at a damaged file is of many kinds
        raise UnusablePictureError(_reason(error)) from None


def _scans(file):
    """How many scans a JPEG file has; those of a preview within it are counted too."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return sum(map(content.count, SCANS))


@cache
def _formats():
    """Those of FORMATS that this pillow knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _reason(error):
    """Why a picture can't be used, in words, from what pillow has raised."""
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture (or its first bytes are damaged)"
    text = " ".join(str(error).split())
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "truncated"
    return f"damaged ({ascii(text)[1:-1][:100] or type(error).__name__})"


def turn_upright(image: Image.Image) -> None:
    """Turn a picture as the camera was held, which only its EXIF data says."""
    # The data are parsed here, and without the bytes nothing tries to write them again, which fails
    # where a value is of another type than it should be.
    image.getexif()
    image.info.pop("exif", None)
    ImageOps.exif_transpose(image, in_place=True)


def in_rgb(image: Image.Image, kind: str, times: int = 1) -> Image.Image:
    """A pillow image of any mode, from a file of this kind, in RGB and so many `times` smaller.

    Raises UnusablePictureError for numbers of which none is known to be white.
    """
    if image.mode == "F" or image.mode == "I" and kind == "TIFF":
        raise UnusablePictureError(f"holds numbers of which none is white (mode {image.mode})")
    if image.mode == "RGB" and "transparency" not in image.info and times == 1:
        return image
    rows = max(1, STRIP // (image.width * times)) * times
    if rows >= image.height and times == 1:
        return _strip_in_rgb(image)
    # In strips, so that no more than the result is in memory besides.
    small = Image.new("RGB", (-(-image.width // times), -(-image.height // times)))
    for top in range(0, image.height, rows):
        strip = _strip_in_rgb(image.crop(
            (0, top, image.width, min(top + rows, image.height))))
        small.paste(strip.reduce(times), (0, top // times))
    return small


def _strip_in_rgb(image):
    """All or a part of a picture in RGB, what is transparent white."""
    if image.mode.startswith("I"):  # 16 bits, which pillow would clip to 8
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def fit(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Pixels uint8 (1 or 3, height, width) of a pillow image in mode L or RGB."""
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
