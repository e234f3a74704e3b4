"""Vectors in .npy files, such as embeddings, that condition images in place of classes."""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import find_files
from datasets.arrays import InvalidArrayError, map_array

SHAPES = {1: "(width,)", 2: "(N, width)"}
SPLITS = ("train", "test")  # of a published set


def load_vectors(path: str | PathLike[str], dimensions: tuple[int, ...]) -> np.ndarray:
    """Load the numbers of a .npy file, float32. dimensions: those allowed, keys of SHAPES.

    Raises ValueError, which says why, if the file holds no such numbers, or some are not finite.
    """
    try:
        found = map_array(path)
    except OSError as error:
        raise ValueError(error.strerror or error) from None
    except InvalidArrayError as error:
        raise ValueError(f"no .npy file of numbers: {error}") from None
    if found.ndim not in dimensions or not found.size:
        raise ValueError(f"its shape is {found.shape}, not "
                         + " or ".join(SHAPES[n] for n in dimensions))
    with np.errstate(over="ignore"):
        found = np.array(found, np.float32)
    if not np.isfinite(found).all():
        raise ValueError("not all of its numbers are finite")
    return found


def read_vectors(path: str | PathLike[str], dimensions: tuple[int, ...]) -> np.ndarray:
    """Load vectors like `load_vectors` from a file that must exist; raises UserError."""
    try:
        return load_vectors(path, dimensions)
    except ValueError as error:
        shapes = " or ".join(SHAPES[n] for n in dimensions)
        raise UserError(f"{path}: {error}; write finite numbers of shape {shapes} there with "
                        f"numpy.save") from None


def vector_path(picture: str | PathLike[str]) -> Path:
    """Return where the vector of a picture NAME.png lies: NAME.npy."""
    return Path(picture).with_suffix(".npy")


def load_picture_vectors(pictures: Iterable[Path]
                         ) -> tuple[dict[Path, np.ndarray], dict[Path, str]]:
    """Return ({picture: its vector (width,)}, {path of a vector: why it can't be used}).

    Raises UserError unless all have the same width.
    """
    found: dict[Path, np.ndarray] = {}
    missing: dict[Path, str] = {}
    for picture in pictures:
        try:
            found[picture] = load_vectors(vector_path(picture), (1,))
        except ValueError as error:
            missing[vector_path(picture)] = str(error)
    check_widths({vector_path(picture): vector for picture, vector in found.items()})
    return found, missing


def load_published_vectors(dataset: str, data: str | Path,
                           counts: tuple[int, int]) -> list[np.ndarray]:
    """Load the vectors of a published set's training and test images: (N, width) each, in order.

    They lie in DATASET_train_vectors.npy and DATASET_test_vectors.npy in the folder `data`. counts:
    of images. Raises UserError for other counts, or different widths.
    """
    found: dict[Path, np.ndarray] = {}
    for split, count in zip(SPLITS, counts, strict=True):
        path = Path(data, f"{dataset}_{split}_vectors.npy")
        found[path] = read_vectors(path, (2,))
        if len(found[path]) != count:
            raise UserError(f"{path}: has {len(found[path])} vectors for {count} images; give one "
                            f"for each, in the order of the set")
    check_widths(found)
    return list(found.values())


def load_named_vectors(path: str | PathLike[str]) -> tuple[list[str], np.ndarray]:
    """Return ([name, …], vectors (N, width)) of a .npy file, or of all of them below a folder.

    A single vector has its file's name, without the ending; several also have a number. Raises
    UserError if there is none, or if their widths differ.
    """
    path = Path(path)
    names: list[str] = []
    files = find_files(path, (".npy",)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .npy file below it; name a file, or a folder of such")
    arrays = {file: read_vectors(file, (1, 2)) for file in files}
    check_widths(arrays)
    for file, array in arrays.items():
        name = file.relative_to(path).with_suffix("").as_posix() if path.is_dir() else file.stem
        names += ([name] if array.ndim == 1 else
                  [f"{name} {number}" for number in range(len(array))])
    return names, np.concatenate([np.atleast_2d(array) for array in arrays.values()])


def check_widths(arrays: Mapping[Path, np.ndarray]) -> None:
    """Raise UserError unless the vectors {path: array} all have the same width."""
    widths = {path: array.shape[-1] for path, array in arrays.items()}
    for path, width in widths.items():
        first = next(iter(widths))
        if width != widths[first]:
            raise UserError(f"{path}: has {width} numbers a vector, {first} {widths[first]}; give "
                            f"all vectors the same width")
