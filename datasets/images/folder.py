"""Load a folder of pictures: its sub-folders are classes, and all pictures get one size."""

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.quiet import silent_library
from common.text import decode_filename
from datasets.endings import IMAGES, find_by_ending
from datasets.images.picture import UnusablePictureError, read_picture
from datasets.images.vectors import load_picture_vectors

LISTED = 10  # pictures left out that are named


def load_folder(folder: str | Path, height: int, width: int, vectors: bool = False
                ) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Load (pixels uint8 (N, C, height, width), labels int64 (N,) or None, label names).

    C is 1 if every picture is grey, in whatever format, otherwise 3. A picture's class is the
    sub-folder of `folder` that contains it; a picture in `folder` itself, next to sub-folders, has
    the name of `folder`. With `vectors`, the pictures' vectors, float32 (N, width), replace the
    labels, and there are no names.
    Leaves out pictures that can't be read, or have no vector, and prints why. Raises UserError if
    none is left.
    """
    folder = Path(folder)
    paths = find_pictures(folder)
    pictures, unusable = read_pictures(paths, height, width)
    report_left_out(folder, unusable, len(paths), "replace them")
    paths = list(pictures)
    if vectors:
        found, missing = load_picture_vectors(paths)
        report_left_out(folder, missing, len(paths),
                        "write NAME.npy beside NAME.png with numpy.save",
                        "for want of a vector beside them")
        paths = list(found)
    channels = max(len(pictures[path]) for path in paths)
    pixels = np.stack([np.broadcast_to(pictures[path], (channels, height, width))
                       for path in paths])
    if vectors:
        return pixels, np.stack(list(found.values())), []
    if all(path.parent == folder for path in paths):
        return pixels, None, []
    label_names, labels = np.unique(class_names(paths, folder), return_inverse=True)
    return pixels, labels.astype(np.int64), label_names.tolist()


def find_pictures(folder: Path) -> list[Path]:
    """List the pictures below `folder`; print how many have kinds that are not read.

    Raises UserError if there is none.
    """
    paths, skipped = find_by_ending(folder, IMAGES)
    others = Counter(path.suffix.lower() for path in skipped)
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common())
    if not paths:
        wanted = " ".join(ending[1:] for ending in IMAGES.read)
        advice = f", and there are {kinds}; convert them to PNG" if others else ""
        raise UserError(f"{folder}: no pictures below it; looked for {wanted}{advice}",
                        parameter="dataset")
    if others:
        print(f"warning: {folder}: passed over are {kinds}, which can't be read everywhere; "
              "convert them to PNG to learn from them too", file=sys.stderr)
    return paths


def read_pictures(paths: list[Path], height: int, width: int) -> tuple[dict, dict]:
    """Return ({path: pixels uint8 (1 or 3, height, width)}, {path: why it is left out})."""
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


def class_names(paths: list[Path], folder: Path) -> list[str]:
    """Return the name of each picture's class; warn if two folders give the same name."""
    own = folder.resolve().name
    parts = [None if path.parent == folder else path.relative_to(folder).parts[0] for path in paths]
    names = {part: decode_filename(own if part is None else part) for part in parts}
    for name, count in Counter(names.values()).items():
        if count > 1:
            places = " and ".join(
                f"{folder} itself" if part is None else ascii(part)
                for part in names if names[part] == name)
            print(f"warning: {folder}: {places} are one class, {name}; rename one of them if they "
                  "are not", file=sys.stderr)
    return [names[part] for part in parts]


def report_left_out(folder: Path, reasons: dict[Path, str], total: int, remedy: str,
              lacking: str = "") -> None:
    """Print which of the `total` pictures are left out and why; raise UserError if all are.

    reasons: {picture, or the file that it lacks: why}. lacking: what pictures lack, in words.
    """
    if not reasons:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in
                       Counter(reason.partition(" (")[0] for reason in reasons.values()
                               ).most_common())
    path, reason = next(iter(reasons.items()))
    if len(reasons) == total:
        raise UserError(f"{folder}: none of its {total} pictures can be used, the first: {path}: "
                        f"{reason}; {remedy}", parameter="dataset")
    left_out = f"left out {lacking}".strip()
    print(f"warning: {len(reasons)} of {total} pictures {left_out}: {counts}", file=sys.stderr)
    for path, reason in list(reasons.items())[:LISTED]:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    if len(reasons) > LISTED:
        print(f"and {len(reasons) - LISTED} more left out", file=sys.stderr)
