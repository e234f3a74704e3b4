"""A folder of one's own pictures: sub-folders are classes, all is brought to one size."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from datasets.errors import UserError
from datasets.files import find_files, readable
from datasets.image_vectors import vectors_beside

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
NAMED = 3  # pictures in the warning of those left out


def load_folder(folder, height, width, vectors=False):
    """(pixels uint8 (N, C, height, width), labels int64 (N,) or None, label names) of a folder.

    C is 1 if every picture is grey, in whatever format, otherwise 3. A picture's class is the
    sub-folder of `folder` that it lies in or below; one in `folder` itself, beside sub-folders, has
    `folder`'s own name. With `vectors` the vectors beside the pictures, float32 (N, width), take
    the labels' place, and there are no names.
    Pictures that can't be read, or have no vector, are left out, with a warning. Raises UserError
    if none is left.
    """
    folder = Path(folder)
    paths = find_files(folder, ENDINGS)
    if not paths:
        raise UserError(f"--dataset {folder}: no pictures below it; looked for "
                        + " ".join(ending[1:] for ending in ENDINGS))
    with ThreadPoolExecutor() as pool:  # pillow decodes outside Python's lock
        pictures = list(tqdm(pool.map(lambda path: read_picture(path, height, width), paths),
                             total=len(paths), desc="pictures", unit="", disable=None))
    pictures = dict(zip(paths, pictures, strict=True))
    leave_out(folder, [path for path in paths if pictures[path] is None], len(paths),
              "they cannot be read", "replace them")
    paths = [path for path in paths if pictures[path] is not None]
    if vectors:
        found, missing = vectors_beside(paths)
        leave_out(folder, missing, len(paths), "they have no vector beside them",
                  "write NAME.npy beside NAME.png with numpy.save")
        paths = list(found)
    channels = max(len(pictures[path]) for path in paths)
    pixels = np.stack([np.broadcast_to(pictures[path], (channels, height, width))
                       for path in paths])
    if vectors:
        return pixels, np.stack(list(found.values())), []
    if all(path.parent == folder for path in paths):
        return pixels, None, []
    classes = [readable(folder.resolve().name if path.parent == folder
                        else path.relative_to(folder).parts[0]) for path in paths]
    label_names, labels = np.unique(classes, return_inverse=True)
    return pixels, labels.astype(np.int64), label_names.tolist()


def leave_out(folder, left_out, total, why, remedy):
    """Warn of the pictures that are left out, of so many; raises UserError if that is all."""
    if not left_out:
        return
    named = ", ".join(map(str, left_out[:NAMED])) + (", …" if len(left_out) > NAMED else "")
    if len(left_out) == total:
        raise UserError(f"--dataset {folder}: none of its {total} pictures can be used, {why}: "
                        f"{named}; {remedy}")
    print(f"warning: {len(left_out)} of {total} pictures left out, {why}: {named}",
          file=sys.stderr)


def read_picture(path, height, width):
    """Pixels uint8 (1 or 3, height, width) of the picture at `path`; None if it can't be read.

    Resized and cut around the centre, so that the aspect is kept. What is transparent is white.
    """
    try:
        with Image.open(path) as image:
            pixels = fit(in_rgb(upright(image), image.format), height, width)
            return pixels[:1] if (pixels == pixels[:1]).all() else pixels
    except MemoryError:
        raise
    except Exception:  # what pillow raises at a damaged file is of many kinds
        return None


def upright(image):
    """The picture as the camera was held, which only its EXIF data says."""
    image.getexif()  # is parsed here, and without the bytes nothing tries to write them anew,
    image.info.pop("exif", None)  # which fails where a value is of another type than it should be
    return ImageOps.exif_transpose(image)


def in_rgb(image, kind):
    """A pillow image of any mode in RGB, from a file of this kind.

    Raises ValueError for numbers of which none is known to be white.
    """
    if image.mode == "F" or image.mode == "I" and kind == "TIFF":
        raise ValueError(f"mode {image.mode}")
    if image.mode.startswith("I"):  # 16 bits, which pillow would clip to 8
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def fit(image, height, width):
    """Pixels uint8 (1 or 3, height, width) of a pillow image in mode L or RGB."""
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
