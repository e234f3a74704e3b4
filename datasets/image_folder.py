"""A folder of one's own pictures: sub-folders are classes, all is brought to one size."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from datasets.errors import UserError
from datasets.files import find_files

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
NAMED = 3  # unreadable pictures in the warning


def load_folder(folder, height, width):
    """(pixels uint8 (N, C, height, width), labels int64 (N,) or None, label names) of a folder.

    C is 1 if every picture is grey, in whatever format, otherwise 3. A picture's class is the
    sub-folder of `folder` that it lies in or below; one in `folder` itself, beside sub-folders, has
    `folder`'s own name.
    Pictures that can't be read are left out, with a warning. Raises UserError if none is left.
    """
    folder = Path(folder)
    paths = find_files(folder, ENDINGS)
    if not paths:
        raise UserError(f"--dataset {folder}: no pictures below it; looked for "
                        + " ".join(ending[1:] for ending in ENDINGS))
    with ThreadPoolExecutor() as pool:  # pillow decodes outside Python's lock
        pictures = list(tqdm(pool.map(lambda path: read_picture(path, height, width), paths),
                             total=len(paths), desc="pictures", unit="", disable=None))
    unread = [path for path, picture in zip(paths, pictures, strict=True) if picture is None]
    if len(unread) == len(paths):
        raise UserError(f"--dataset {folder}: none of its {len(paths)} pictures can be read; "
                        f"replace {paths[0]} and the others")
    if unread:
        named = ", ".join(map(str, unread[:NAMED])) + (", …" if len(unread) > NAMED else "")
        print(f"warning: {len(unread)} of {len(paths)} pictures left out, they cannot be read: "
              + named, file=sys.stderr)
    kept = [(path, picture) for path, picture in zip(paths, pictures, strict=True)
            if picture is not None]
    channels = max(len(picture) for _, picture in kept)
    pixels = np.stack([np.broadcast_to(picture, (channels, height, width)) for _, picture in kept])
    if all(path.parent == folder for path, _ in kept):
        return pixels, None, []
    classes = [folder.resolve().name if path.parent == folder else path.relative_to(folder).parts[0]
               for path, _ in kept]
    label_names, labels = np.unique(classes, return_inverse=True)
    return pixels, labels.astype(np.int64), label_names.tolist()


def read_picture(path, height, width):
    """Pixels uint8 (1 or 3, height, width) of the picture at `path`; None if it can't be read.

    Resized and cut around the centre, so that the aspect is kept.
    """
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)  # a camera held upright says so in EXIF only
            if image.mode.startswith("I"):  # 16 bits, which pillow would clip to 8
                image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
            pixels = fit(image.convert("RGB"), height, width)
            return pixels[:1] if (pixels == pixels[:1]).all() else pixels
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def fit(image, height, width):
    """Pixels uint8 (1 or 3, height, width) of a pillow image in mode L or RGB."""
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
