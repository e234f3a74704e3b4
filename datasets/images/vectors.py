"""Vectors that images are conditioned on in place of classes, such as embeddings: .npy files."""

from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import find_files
from datasets.arrays import NoArrayError, map_array

SHAPES = {1: "(width,)", 2: "(N, width)"}
PARTS = ("train", "test")  # of a published set


def load_vectors(path, dimensions):
    """The numbers of a .npy file, float32, its shape one of SHAPES: `dimensions` are those allowed.

    Raises ValueError, which says why, for a file that has no such numbers, or some not finite.
    """
    try:
        found = map_array(path)
    except OSError as error:
        raise ValueError(error.strerror or error) from None
    except NoArrayError as error:
        raise ValueError(f"no .npy file of numbers: {error}") from None
    if found.ndim not in dimensions or not found.size:
        raise ValueError(f"its shape is {found.shape}, not "
                         + " or ".join(SHAPES[n] for n in dimensions))
    with np.errstate(over="ignore"):
        found = np.array(found, np.float32)
    if not np.isfinite(found).all():
        raise ValueError("not all of its numbers are finite")
    return found


def read_vectors(path, dimensions):
    """The same, of a file that there is to be: raises UserError."""
    try:
        return load_vectors(path, dimensions)
    except ValueError as error:
        shapes = " or ".join(SHAPES[n] for n in dimensions)
        raise UserError(f"{path}: {error}; write finite numbers of shape {shapes} there with "
                        f"numpy.save") from None


def beside(picture):
    """Where the vector of a picture NAME.png lies: NAME.npy."""
    return Path(picture).with_suffix(".npy")


def vectors_beside(pictures):
    """Those that there are: ({picture: its vector (width,)}, {path of a vector: why it is none}).

    Raises UserError where they are not all of one width.
    """
    found, missing = {}, {}
    for picture in pictures:
        try:
            found[picture] = load_vectors(beside(picture), (1,))
        except ValueError as error:
            missing[beside(picture)] = str(error)
    check_widths({beside(picture): vector for picture, vector in found.items()})
    return found, missing


def vectors_of_published(dataset, data, counts):
    """Those of a published set's training and test images, in its order: [(N, width), …].

    They are DATASET_train_vectors.npy and DATASET_test_vectors.npy in `data`. counts: of images.
    Raises UserError for other counts, or two widths.
    """
    found = {Path(data, f"{dataset}_{part}_vectors.npy"): None for part in PARTS}
    for path, count in zip(found, counts, strict=True):
        found[path] = read_vectors(path, (2,))
        if len(found[path]) != count:
            raise UserError(f"{path}: has {len(found[path])} vectors for {count} images; give one "
                            f"for each, in the order of the set")
    check_widths(found)
    return list(found.values())


def named_vectors(path):
    """([name, …], vectors (N, width)) of a .npy file, or of all of them below a folder.

    A file's one vector has the file's name, without its ending; one of several a number as well.
    Raises UserError where there is none, or they are not all of one width.
    """
    path, names = Path(path), []
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


def check_widths(arrays):
    """Raises UserError unless the vectors {path: array} are all of one width."""
    widths = {path: array.shape[-1] for path, array in arrays.items()}
    first = next(iter(widths), None)
    for path, width in widths.items():
        if width != widths[first]:
            raise UserError(f"{path}: has {width} numbers a vector, {first} {widths[first]}; give "
                            f"all vectors the same width")
