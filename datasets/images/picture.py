"""Read one picture, from a file that may come from anyone: in bounded memory, or with a reason."""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common.files import open_regular

# Formats that pillow may recognise, whatever a file's ending says. Not all that it knows: it would
# run Ghostscript for EPS.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "DIB", "ICO", "AVIF", "JPEG2000")

# Pillow's own limit, above which it assumes an attack: 13,377 pixels squared.
MOST_PIXELS = 178_956_970
# Pillow's first limit, where it begins to warn. Larger pictures are reduced before anything else.
# No ordinary photo is that large, and up to this size every byte counts.
LARGE = 89_478_485
# Bytes for all pictures decoded at the same time; a picture that needs more is left out.
MOST_MEMORY = 3 * 2 ** 29
# Bytes per pixel: 4 for pillow's image, 4 for the converted one; more if a decoder has its own
# buffers, as measured with pillow 13.
DECODER_BYTES = {"WEBP": 17, "AVIF": 10, "JPEG2000": 20}
USUAL_BYTES = 8
LONGEST_READ = 2 ** 28  # bytes that a decoder may read at once
# Scans times pixels of a JPEG: each scan covers the whole picture, and may take only 20 bytes.
MOST_SCANNED = 16 * MOST_PIXELS
SCANS = [b"\xff\xda\x00" + bytes([6 + 2 * components]) for components in (1, 2, 3, 4)]
STRIP = 2 ** 22  # pixels converted at once


class UnusablePictureError(Exception):
    """A picture can't be used. The text is the reason, such as "truncated"."""


class Budget:
    """A number of bytes that threads take from and give back."""

    def __init__(self, total: int):
        self.left = total
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Take `amount` bytes, at most the total, for the context. Waits until they are free."""
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
    """A file whose headers are not trusted: no read is longer than LONGEST_READ."""

    def read(self, size: int | None = -1) -> bytes:
        """Read like any file; raise UnusablePictureError if the read would be too long."""
        if size is None or size < 0 or size > LONGEST_READ:
            size = os.fstat(self.fileno()).st_size - self.tell()
            if size > LONGEST_READ:
                raise UnusablePictureError(f"holds more than {LONGEST_READ:,} bytes in one piece")
        return super().read(max(size, 0))


def read_picture(path: str | PathLike[str], height: int, width: int) -> np.ndarray:
    """Read the picture at `path` as pixels, uint8 (1 or 3, height, width): 1 if it is grey.

    Resizes it and crops around the centre, which keeps the aspect. Transparency becomes white. Of
    animations and documents it takes the first picture.
    The caller silences pillow's notes, once for all threads: `silent_library`. Waits while other
    threads' pictures take all of MOST_MEMORY. Raises UnusablePictureError.
    """
    try:
        with open_regular(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise UnusablePictureError("is empty")
            pixels = _decode(PictureFile(file.raw), height, width)
    except OSError as error:
        if error.errno is None:
            raise UnusablePictureError(_reason(error)) from None
        raise UnusablePictureError((error.strerror or str(error)).lower()) from None
    return pixels[:1] if (pixels == pixels[:1]).all() else pixels


def _decode(file, height, width):
    """Decode an open file to pixels, uint8 (1 or 3, height, width)."""
    try:
        with Image.open(file, formats=_formats()) as image:
            pixels = image.width * image.height
            if not pixels:
                raise UnusablePictureError("has no pixels")
            kind = image.format
            memory = pixels * DECODER_BYTES.get(kind, USUAL_BYTES)
            if pixels > MOST_PIXELS or memory > MOST_MEMORY:
                raise Image.DecompressionBombError
            if kind in ("JPEG", "MPO") and pixels * _scans(file) > MOST_SCANNED:
                raise UnusablePictureError("too many scans")
            with BUDGET.taken(memory):
                side = 2 * max(height, width)  # a reduced picture still has twice the size
                if pixels > LARGE:
                    image.draft(None, (side, side))  # only JPEG can; others ignore it
                apply_exif_orientation(image)
                times = 1
                if image.width * image.height > LARGE:
                    times = max(1, min(image.size) // side)
                return resize_and_crop(to_rgb(image, kind, times), height, width)
    except (MemoryError, UnusablePictureError):
        raise
    except Exception as error:  # damaged files make pillow raise many kinds
        raise UnusablePictureError(_reason(error)) from None


def _scans(file):
    """Count the scans in a JPEG file, including those of a preview."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return sum(map(content.count, SCANS))


@cache
def _formats():
    """List the FORMATS that this pillow knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _reason(error):
    """Turn what pillow raised into the reason why a picture can't be used."""
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture (or its first bytes are damaged)"
    text = " ".join(str(error).split())
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "truncated"
    return f"damaged ({ascii(text)[1:-1][:100] or type(error).__name__})"


def apply_exif_orientation(image: Image.Image) -> None:
    """Rotate and flip a picture as its EXIF data say, in place."""
    # Parse the data now and drop their bytes. Otherwise pillow writes them again, which fails if a
    # value has a wrong type.
    image.getexif()
    image.info.pop("exif", None)
    ImageOps.exif_transpose(image, in_place=True)


def to_rgb(image: Image.Image, kind: str, times: int = 1) -> Image.Image:
    """Convert a pillow image of any mode to RGB, and reduce it `times` times in height and width.

    kind: the file's format. Raises UnusablePictureError for modes without a known value of white.
    """
    if image.mode == "F" or image.mode == "I" and kind == "TIFF":
        raise UnusablePictureError(f"has a mode without a known white ({image.mode})")
    if image.mode == "RGB" and "transparency" not in image.info and times == 1:
        return image
    rows = max(1, STRIP // (image.width * times)) * times
    if rows >= image.height and times == 1:
        return _strip_to_rgb(image)
    # In strips, so that memory holds only the result besides.
    small = Image.new("RGB", (-(-image.width // times), -(-image.height // times)))
    for top in range(0, image.height, rows):
        strip = _strip_to_rgb(image.crop(
            (0, top, image.width, min(top + rows, image.height))))
        small.paste(strip.reduce(times), (0, top // times))
    return small


def _strip_to_rgb(image):
    """Convert a picture or a strip of it to RGB; transparency becomes white."""
    if image.mode.startswith("I"):  # 16 bits, which pillow would clip to 8
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Return pixels uint8 (1 or 3, height, width) of a pillow image in mode L or RGB."""
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
