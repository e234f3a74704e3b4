"""Read MNIST, Fashion-MNIST and CIFAR-10 from the files that their authors published.

We have our own readers, because torchvision's accept only complete sets, by their md5 sums, and
unpickle CIFAR's files without restriction. torchvision only downloads missing files.
"""

import gzip
import http.client
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from common.errors import UserError
from common.files import open_regular
from datasets.images.plain_pickle import read_plain_pickle

IDX_FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
             "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
CIFAR_FILES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)),
               "test": ("test_batch",)}
CIFAR_META = "batches.meta"
DIGITS = [str(digit) for digit in range(10)]
CLOTHES = ["t-shirt", "trouser", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "ankle boot"]
MOST_BYTES = 2 ** 30  # of a file that is read or unpacked as a whole; MNIST has 47 million
DEBIAN = "/usr/share/datasets/fashion-mnist"  # of Debian's package dataset-fashion-mnist

PixelsAndLabels = tuple[np.ndarray, np.ndarray]  # uint8 (N, C, H, W) and int64 (N,)

# Name -> torchvision's class, the folder that it makes, other folders to look in, label names.
SETS: dict[str, tuple[str, str, tuple[str, ...], list[str] | None]] = {
    "mnist": ("MNIST", "MNIST/raw", ("raw", "."), DIGITS),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw", ("raw", ".", DEBIAN), CLOTHES),
    "cifar": ("CIFAR10", "cifar-10-batches-py", (".",), None)}


def load_published(name: str, data: str | Path
                   ) -> tuple[PixelsAndLabels, PixelsAndLabels, list[str]]:
    """Load (train, test, label names) of the set `name` from the folder `data`.

    Accepts files with any number of items, and downloads missing files. Raises UserError for
    damaged files, and if a download fails.
    """
    torchvision_class, folder, others, label_names = SETS[name]
    data = Path(data)
    names = cifar_names() if name == "cifar" else [n for pair in IDX_FILES.values() for n in pair]
    files = next(filter(None, (find_set_files(data / place, names)
                               for place in (folder, *others))), None)
    if files is None:
        download_set(name, torchvision_class, data, folder, names)
        files = find_set_files(data / folder, names) or {}
    if label_names is None:
        return read_cifar(files)
    train, test = (read_idx_pair(files[images], files[labels], len(label_names))
                   for images, labels in IDX_FILES.values())
    return train, test, label_names


def cifar_names() -> list[str]:
    """List the names of CIFAR-10's files."""
    return [*CIFAR_FILES["train"], *CIFAR_FILES["test"], CIFAR_META]


def find_set_files(folder: Path, names: list[str]) -> dict[str, Path] | None:
    """Return {name: path} if all `names` lie in `folder`, compressed or not; None if none does.

    Raises UserError if only some do, because a download would overwrite the user's files.
    """
    files = {name: path for name in names for path in (folder / f"{name}.gz", folder / name)
             if os.path.exists(path) and not os.path.isdir(path)}
    if files and len(files) < len(names):
        missing = ", ".join(name for name in names if name not in files)
        raise UserError(f"{folder}: {missing} not found beside {next(iter(files))}; add what is "
                        "missing, or give another --data")
    return files or None


def download_set(name: str, torchvision_class: str, data: Path, folder: str,
                 names: list[str]) -> None:
    """Let torchvision download a set into `data`/`folder`: all of its files, or nothing."""
    import torchvision  # slow to import, and only needed here
    scratch = None
    try:
        data.mkdir(parents=True, exist_ok=True)
        # Not directly into `data`, where the next run would find half a download.
        scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=data))
        getattr(torchvision.datasets, torchvision_class)(root=str(scratch), download_set=True)
        (data / folder).mkdir(parents=True, exist_ok=True)
        for path in (find_set_files(scratch / folder, names) or {}).values():
            os.replace(path, data / folder / path.name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        hint = "; the digits that come with this program: --data assets" if name == "mnist" else ""
        reason = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
        raise UserError(f'{name}: not in {data}, and the download failed ({reason}); put '
                        f'{", ".join(names)} into {data / folder}{hint}',
                        parameter="dataset") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def read_idx_pair(images_path: Path, labels_path: Path, classes: int) -> PixelsAndLabels:
    """Read (pixels (N, 1, H, W), labels (N,)) from two idx files that belong together."""
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise damaged(labels_path, f"{len(labels)} labels for {len(images)} images")
    if labels.max() >= classes:
        raise damaged(labels_path, f"there is a label {labels.max()}")
    return images[:, None], labels.astype(np.int64)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read the bytes of an idx file, gzipped or not, as an array with that many `dimensions`.

    http://yann.lecun.com/exdb/mnist: two zeros, type (8: unsigned byte), dimensions, sizes as
    big-endian 32-bit integers, content. Reads or unpacks no more than the sizes say. Raises
    UserError for a damaged file.
    """
    packed = path.suffix == ".gz"
    try:
        with open_regular(path) as file, (gzip.open(file) if packed else file) as unpacked:
            shape = idx_shape(path, unpacked, dimensions)
            claimed = math.prod(shape)
            if packed and claimed > MOST_BYTES:
                raise UserError(f"{path}: its header says {shape}, {claimed:,} bytes in all; if "
                                "that is so, unpack it with gunzip")
            # Compare sizes before reading: a false size would take memory.
            held = None if packed else os.fstat(file.fileno()).st_size - file.tell()
            content = unpacked.read(claimed) if held in (None, claimed) else b""
            if held is None:
                held = len(content) + len(unpacked.read(1))
    except OSError as error:
        raise unreadable(path, error) from None
    except (EOFError, zlib.error) as error:
        raise damaged(path, error) from None
    if not claimed or held != claimed:
        raise damaged(path, f"its header says {shape}, it holds "
                      f"{'more than' if held > claimed else 'only'} {min(held, claimed):,} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape)


def idx_shape(path: Path, file: IO[bytes] | gzip.GzipFile, dimensions: int) -> list[int]:
    """Read the sizes in the header of an idx file."""
    head = file.read(4 + 4 * dimensions)
    if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) < 4 + 4 * dimensions:
        raise damaged(path, f"no idx header of {dimensions} dimensions")
    return [int(size) for size in np.frombuffer(head[4:], ">u4")]


def read_pickle(path: Path) -> Mapping[str, object]:
    """Read the dictionary in a CIFAR file; keys are str, whichever Python wrote it."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise damaged(path, f"more than {MOST_BYTES:,} bytes")
            return read_plain_pickle(file.read())
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise damaged(path, error) from None


def read_cifar(files: dict[str, Path]) -> tuple[PixelsAndLabels, PixelsAndLabels, list[str]]:
    """Read (train, test, label names) from the CIFAR-10 files {name: path}."""
    label_names = read_pickle(files[CIFAR_META]).get("label_names")
    if not isinstance(label_names, list) or not label_names:
        raise damaged(files[CIFAR_META], "no label_names")
    label_names = [label_name(name, files[CIFAR_META]) for name in label_names]
    if len(set(label_names)) < len(label_names):
        raise damaged(files[CIFAR_META], "two labels have one name")
    splits = []
    for names in CIFAR_FILES.values():
        batches = [read_cifar_batch(files[name], len(label_names)) for name in names]
        pixels, labels = map(np.concatenate, zip(*batches, strict=True))
        splits.append((pixels, labels))
    train, test = splits
    return train, test, label_names


def label_name(name: object, path: Path) -> str:
    """Decode a label's name in the file `path`."""
    try:
        text = name.decode() if isinstance(name, bytes) else name
        if not isinstance(text, str):
            raise damaged(path, "a label's name is no text")
        text.encode()  # nothing can show half a surrogate pair
    except UnicodeError:
        raise damaged(path, "a label's name is no text") from None
    return text


def read_cifar_batch(path: Path, classes: int) -> PixelsAndLabels:
    """Read (pixels (N, 3, 32, 32), labels (N,)); rows hold 1,024 red, green and blue bytes each."""
    content = read_pickle(path)
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, np.ndarray) or data.shape[1:] != (3072,):
        raise damaged(path, "no data of 3,072 bytes an image")
    if (not isinstance(labels, list) or len(labels) != len(data) or not labels
            or not all(type(label) is int and 0 <= label < classes for label in labels)):
        raise damaged(path, f"no labels for its {len(data)} images")
    return data.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the UserError for a file that can't be read."""
    if error.errno is None:  # gzip's own errors are of this kind
        return damaged(path, error)
    reason = (error.strerror or str(error)).lower()
    return UserError(f"{path}: {reason}; make it readable, or give another --data")


def damaged(path: Path, reason: object) -> UserError:
    """Return the UserError for a file that isn't what its name says."""
    reason = " ".join(str(reason).split()) or type(reason).__name__
    return UserError(f"{path}: damaged ({reason}); copy or download it again")
