"""A folder of one's own pictures: sub-folders are classes, all is brought to one size."""

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.files import find_files, readable
from common.quiet import silent_library
from datasets.images.picture import UnusablePictureError, read_picture
from datasets.images.vectors import vectors_beside

ENDINGS = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif",
           ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
# Pictures as well, but not every installation of pillow decodes them, or none does.
PASSED_OVER = (".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".psd", ".xcf",
               ".ico", ".tga", ".pcx", ".exr", ".hdr", ".eps", ".raw", ".dng", ".cr2", ".cr3",
               ".nef", ".arw", ".orf", ".rw2", ".raf")
LISTED = 10  # of the pictures that are left out


def load_folder(folder, height, width, vectors=False):
    """(pixels uint8 (N, C, height, width), labels int64 (N,) or None, label names) of a folder.

    C is 1 if every picture is grey, in whatever format, otherwise 3. A picture's class is the
    sub-folder of `folder` that it lies in or below; one in `folder` itself, beside sub-folders, has
    `folder`'s own name. With `vectors` the vectors beside the pictures, float32 (N, width), take
    the labels' place, and there are no names.
    Pictures that can't be read, or have no vector, are left out, and the reasons printed. Raises
    UserError if none is left.
    """
    folder = Path(folder)
    paths = pictures_below(folder)
    pictures, unusable = read_pictures(paths, height, width)
    leave_out(folder, unusable, len(paths), "replace them")
    paths = list(pictures)
    if vectors:
        found, missing = vectors_beside(paths)
        leave_out(folder, missing, len(paths), "write NAME.npy beside NAME.png with numpy.save",
                  "for want of a vector beside them")
        paths = list(found)
    channels = max(len(pictures[path]) for path in paths)
    pixels = np.stack([np.broadcast_to(pictures[path], (channels, height, width))
                       for path in paths])
    if vectors:
        return pixels, np.stack(list(found.values())), []
    if all(path.parent == folder for path in paths):
        return pixels, None, []
    label_names, labels = np.unique(classes_of(paths, folder), return_inverse=True)
    return pixels, labels.astype(np.int64), label_names.tolist()


def pictures_below(folder: Path) -> list[Path]:
    """The paths of the pictures below `folder`; a line says how many are of kinds not read.

    Raises UserError if there is none.
    """
    found = find_files(folder, ENDINGS + PASSED_OVER)
    paths = [path for path in found if path.suffix.lower() in ENDINGS]
    others = Counter(path.suffix.lower() for path in found if path.suffix.lower() not in ENDINGS)
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common())
    if not paths:
        raise UserError(f"--dataset {folder}: no pictures below it; looked for "
                        + " ".join(ending[1:] for ending in ENDINGS)
                        + f", and there are {kinds}; convert them to PNG" * bool(others))
    if others:
        print(f"warning: {folder}: passed over are {kinds}, which can't be read everywhere; "
              "convert them to PNG to learn from them too", file=sys.stderr)
    return paths


def read_pictures(paths: list[Path], height: int, width: int) -> tuple[dict, dict]:
    """({path: pixels uint8 (1 or 3, height, width)}, {path: why it is left out}), both in order."""
    def read(path):
        try:
            return read_picture(path, height, width)
        except UnusablePictureError as error:
            return error

    results = {}
    with (silent_library("PIL") as stderr,
          ThreadPoolExecutor() as pool,  # pillow decodes outside Python's lock
          tqdm(total=len(paths), desc="pictures", unit="", disable=None, file=stderr) as bar):
        for path, result in zip(paths, pool.map(read, paths), strict=True):
            results[path] = result
            bar.update()
    unusable = {path: str(result) for path, result in results.items()
                if isinstance(result, UnusablePictureError)}
    return {path: results[path] for path in paths if path not in unusable}, unusable


def classes_of(paths: list[Path], folder: Path) -> list[str]:
    """The name of each picture's class; a line says where two folders come to have one name."""
    own = folder.resolve().name
    parts = [None if path.parent == folder else path.relative_to(folder).parts[0] for path in paths]
    names = {part: readable(own if part is None else part) for part in parts}
    for name, count in Counter(names.values()).items():
        if count > 1:
            places = " and ".join(
                f"{folder} itself" if part is None else ascii(part)
                for part in names if names[part] == name)
            print(f"warning: {folder}: {places} are one class, {name}; rename one of them if they "
                  "are not", file=sys.stderr)
    return [names[part] for part in parts]


def leave_out(folder: Path, reasons: dict[Path, str], total: int, remedy: str,
              lacking: str = "") -> None:
    """Print what is left out of so many pictures and why; raises UserError if that is all.

    reasons: of a picture, or of what it lacks. lacking: in words what that is.
    """
    if not reasons:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in
                       Counter(reason.partition(" (")[0] for reason in reasons.values()
                               ).most_common())
    path, reason = next(iter(reasons.items()))
    if len(reasons) == total:
        raise UserError(f"--dataset {folder}: none of its {total} pictures can be used, the first: "
                        f"{path}: {reason}; {remedy}")
    left_out = f"left out {lacking}".strip()
    print(f"warning: {len(reasons)} of {total} pictures {left_out}: {counts}", file=sys.stderr)
    for path, reason in list(reasons.items())[:LISTED]:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    if len(reasons) > LISTED:
        print(f"and {len(reasons) - LISTED} more left out", file=sys.stderr)
