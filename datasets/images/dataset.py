"""Images for the PixelCNN: published sets or a folder of pictures, as codes in batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from common.errors import UserError
from datasets.batches import Batch
from datasets.images.folder import load_folder
from datasets.images.picture import resize_and_crop
from datasets.images.published import SETS, load_published
from datasets.images.vectors import load_published_vectors
from datasets.quantization import IMAGE_LEVELS, check_levels, quantize_pixels

FOLDER_SIZE = 32  # default height and width of a folder's pictures
VALIDATION_SEED = 0  # selects the validation images: the same ones whatever --seed is


class ImageSplit(NamedTuple):
    """One split of an image set.

    pixels: uint8 (N, C, H, W). labels: classes, int64 (N,); or the vectors that replace them,
    float32 (N, width); or None.
    """

    pixels: np.ndarray
    labels: np.ndarray | None

    def take(self, indices: np.ndarray) -> "ImageSplit":
        """Return the images `indices`."""
        labels = None if self.labels is None else self.labels[indices]
        return ImageSplit(self.pixels[indices], labels)


@dataclass(frozen=True)
class Images:
    """The splits of an image set; `test` is None for a folder, `label_names` [] without classes.

    name: of the published set, or of the folder without its parents.
    """

    name: str
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit | None
    label_names: list[str]

    @property
    def vector(self) -> int:
        """The width of the vectors that condition the images; 0 without vectors."""
        labels = self.train.labels
        return labels.shape[1] if labels is not None and labels.ndim == 2 else 0

    @property
    def vector_scale(self) -> float:
        """The factor that gives the training vectors a root mean square of 1."""
        assert self.train.labels is not None
        size = np.sqrt(np.mean(np.square(self.train.labels, dtype=np.float64)))
        return 1 / size if size else 1.0


def load_images(dataset: str, data: str | Path = ".", height: int | None = None,
                width: int | None = None, validation: float = 0.05,
                condition: str = "class") -> Images:
    """Load the images of `dataset`: mnist, fashion-mnist, cifar, or the path of a folder.

    data: the folder that has the published files, or to download them to. height, width: pixels; by
    default those of the published set, 32 for a folder. validation: the fraction of the training
    images held back, always the same ones; at least one of two or more unless it is 0.
    condition: what the `labels` are: "class", "none", or "npy" for vectors, see
    `datasets.images.vectors`.
    Raises UserError for an unknown name, damaged files, or a failed download.
    """
    name = dataset
    splits: list[ImageSplit]
    if dataset in SETS:
        *published, label_names = load_published(dataset, data)
        splits = [ImageSplit(resize(images, height, width), classes)
                  for images, classes in published]
        if condition == "npy":
            train_vectors, test_vectors = load_published_vectors(
                dataset, data, (len(splits[0].pixels), len(splits[1].pixels)))
            splits = [splits[0]._replace(labels=train_vectors),
                      splits[1]._replace(labels=test_vectors)]
    elif Path(dataset).is_dir():
        pixels, labels, label_names = load_folder(
            dataset, height or FOLDER_SIZE, width or FOLDER_SIZE, vectors=condition == "npy")
        splits = [ImageSplit(pixels, labels)]
        name = Path(dataset).resolve().name
    else:
        raise UserError(f'{dataset}: neither a folder nor one of {", ".join(SETS)}',
                        parameter="dataset")
    if condition == "none":
        splits = [split._replace(labels=None) for split in splits]
    if condition != "class":
        label_names = []
    train, test = splits[0], splits[1] if len(splits) > 1 else None
    total = len(train.pixels)
    count = min(max(1, round(total * validation)), total - 1) if validation else 0
    # RandomState, because numpy never changes its stream.
    order = np.random.RandomState(VALIDATION_SEED).permutation(total)
    kept, held_back = np.sort(order[count:]), np.sort(order[:count])
    return Images(name, train.take(kept), train.take(held_back), test, label_names)


def resize(pixels: np.ndarray, height: int | None, width: int | None) -> np.ndarray:
    """Resize `pixels`, uint8 (N, C, H, W); None keeps H or W."""
    size = height or pixels.shape[2], width or pixels.shape[3]
    if size == pixels.shape[2:]:
        return pixels
    grey = pixels.shape[1] == 1
    pictures = (Image.fromarray(image[0] if grey else image.transpose(1, 2, 0))
                for image in pixels)
    return np.stack([resize_and_crop(picture, *size) for picture in pictures])


def check_codes(levels: int, binarize: str) -> None:
    """Raise UserError for levels outside 2..256, or for "sampled" with other than 2 levels."""
    check_levels(levels, IMAGE_LEVELS)
    if binarize == "sampled" and levels != 2:
        raise UserError(f"sampled: only for --levels 2, not {levels}; leave one of them out",
                        parameter="binarize")


class ImageCodes(Dataset):
    """Images as codes in [0, levels), which are also the targets.

    labels: see `ImageSplit`; None conditions on nothing.
    binarize, for two levels: 'threshold' quantises, 1 from pixel 128 up; 'sampled' draws 1 with
    probability pixel/255, as published nats of MNIST do: afresh each `epoch`, depending only on
    (seed, epoch, index). With `fixed` it draws once for all epochs and seeds, so that likelihoods
    of different runs are of the same codes.
    flip: mirror an image left to right with probability 1/2, likewise afresh each epoch.
    Raises UserError for what `check_codes` refuses.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray | None, levels: int,
                 binarize: str = "threshold", seed: int = 0, fixed: bool = False,
                 flip: bool = False):
        check_codes(levels, binarize)
        self.pixels, self.labels, self.levels = pixels, labels, levels
        self.sampled, self.seed, self.fixed = binarize == "sampled", seed, fixed
        self.flip = flip
        self.epoch = 0  # set by the loader

    def __len__(self) -> int:
        return len(self.pixels)

    def label_counts(self, labels: int) -> list[int]:
        """Count the images of each of `labels` labels; without labels, of all."""
        owners = self.labels
        if owners is None or owners.ndim == 2:
            owners = np.zeros(len(self), np.int64)
        return np.bincount(owners, minlength=labels).tolist()

    def __getitem__(self, indices) -> Batch:
        """Return the Batch of the images `indices`: codes (B, C, H, W)."""
        indices = np.asarray(indices, np.int64)
        pixels = self.pixels[indices]
        if self.flip:
            for image, index in zip(pixels, indices, strict=True):
                if self.generator(index, purpose=1).integers(2):
                    image[...] = image[..., ::-1].copy()
        if self.sampled:
            codes = np.empty(pixels.shape, np.bool_)
            for image, index, code in zip(pixels, indices, codes, strict=True):
                code[...] = self.draw(index, image)
        else:
            codes = quantize_pixels(pixels, self.levels)
        tensor = torch.from_numpy(codes.astype(np.int64))
        label = None if self.labels is None else torch.from_numpy(self.labels[indices])
        return Batch(tensor, tensor, label)

    def draw(self, index: int, image: np.ndarray) -> np.ndarray:
        """Draw Bernoulli(pixel/255) for image number `index`: an integer 0..254 is below."""
        generator = self.generator(index, purpose=0)
        return generator.integers(0, 255, image.shape, dtype=np.uint8) < image

    def generator(self, index: int, purpose: int) -> np.random.Generator:
        """The random numbers of image number `index`, in this epoch unless they are fixed.

        purpose: 0 for the binarisation, 1 for mirroring; each has a stream of its own.
        """
        # Streams are set by the key and the upper words of Philox's counter.
        key = [0, 0] if self.fixed else [self.seed, self.epoch + 1]
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, purpose, int(index)]))
