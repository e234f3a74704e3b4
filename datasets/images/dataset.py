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
from datasets.images.picture import fit
from datasets.images.published import SETS, load_published
from datasets.images.vectors import vectors_of_published
from datasets.quantization import IMAGE_LEVELS, check_levels, quantize_pixels

FOLDER_SIZE = 32  # height and width of a folder's pictures, where not given
SPLIT = 0  # the seed that holds back the validation images: never another, whatever --seed says


class ImageSplit(NamedTuple):
    """pixels: uint8 (N, C, H, W); labels: int64 (N,), or None without classes.

    Or labels are the vectors, float32 (N, width), that take the place of classes.
    """

    pixels: np.ndarray
    labels: np.ndarray | None

    def take(self, indices):
        """The images `indices`."""
        labels = None if self.labels is None else self.labels[indices]
        return ImageSplit(self.pixels[indices], labels)


@dataclass(frozen=True)
class Images:
    """The parts of an image set; `test` is None for a folder, `label_names` [] without classes.

    name: of the published set, or of the folder, without the way to it.
    """

    name: str
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit | None
    label_names: list

    @property
    def vector(self):
        """The width of the vectors that the images are conditioned on, 0 if on none."""
        labels = self.train.labels
        return labels.shape[1] if labels is not None and labels.ndim == 2 else 0

    @property
    def vector_scale(self):
        """What makes the root of the mean square of the training vectors' numbers 1."""
        size = np.sqrt(np.mean(np.square(self.train.labels, dtype=np.float64)))
        return 1 / size if size else 1.0


def load_images(dataset, data=".", height=None, width=None, validation=0.05, condition="class"):
    """The images of `dataset`: mnist, fashion-mnist, cifar, or the path of a folder of pictures.

    data: the folder with the published files, or to download them to. height, width: pixels; by
    default those of the published set, 32 for a folder. validation: the fraction of the training
    images held back, always the same ones; at least one of two or more unless it is 0.
    condition: what `labels` are: "class", "none", or "npy" for vectors, see
    `datasets.images.vectors`.
    Raises UserError for an unknown name, damaged files, or a download that fails.
    """
    name = dataset
    if dataset in SETS:
        train, test, label_names = load_published(dataset, data)
        train, test = (ImageSplit(resize(pixels, height, width), labels)
                       for pixels, labels in (train, test))
        if condition == "npy":
            counts = len(train.pixels), len(test.pixels)
            train, test = (part._replace(labels=vectors) for part, vectors in zip(
                (train, test), vectors_of_published(dataset, data, counts), strict=True))
    elif Path(dataset).is_dir():
        *train, label_names = load_folder(dataset, height or FOLDER_SIZE, width or FOLDER_SIZE,
                                          vectors=condition == "npy")
        train, test = ImageSplit(*train), None
        name = Path(dataset).resolve().name
    else:
        raise UserError(f'--dataset {dataset}: neither a folder nor one of {", ".join(SETS)}')
    if condition == "none":
        train, test = (part and part._replace(labels=None) for part in (train, test))
    if condition != "class":
        label_names = []
    total = len(train.pixels)
    held_back = min(max(1, round(total * validation)), total - 1) if validation else 0
    order = np.random.RandomState(SPLIT).permutation(total)  # its stream never changes
    kept, held_back = np.sort(order[held_back:]), np.sort(order[:held_back])
    return Images(name, train.take(kept), train.take(held_back), test, label_names)


def resize(pixels, height, width):
    """`pixels`, uint8 (N, C, H, W), at another size; None keeps H or W."""
    size = height or pixels.shape[2], width or pixels.shape[3]
    if size == pixels.shape[2:]:
        return pixels
    grey = pixels.shape[1] == 1
    return np.stack([fit(Image.fromarray(image[0] if grey else image.transpose(1, 2, 0)), *size)
                     for image in pixels])


def check_codes(levels, binarize):
    """Raises UserError for levels outside 2..256, or "sampled" ones that are not 2."""
    check_levels(levels, IMAGE_LEVELS)
    if binarize == "sampled" and levels != 2:
        raise UserError(f"--binarize sampled: only for --levels 2, not {levels}; "
                        "leave one of them out")


class ImageCodes(Dataset):
    """Images as codes in [0, levels), which are also the targets.

    labels: of `ImageSplit`, or None to condition on nothing.
    binarize, for two levels: 'threshold' is the quantisation itself, 1 from pixel 128 up;
    'sampled' draws 1 with probability pixel/255, which the published nats of MNIST are on: afresh
    each `epoch`, as a function of (seed, epoch, index) alone, or with `fixed` once for all epochs
    and seeds, so that likelihoods of different runs are of the same codes.
    Raises UserError for what `check_codes` refuses.
    """

    def __init__(self, pixels, labels, levels, binarize="threshold", seed=0, fixed=False):
        check_codes(levels, binarize)
        self.pixels, self.labels, self.levels = pixels, labels, levels
        self.sampled, self.seed, self.fixed = binarize == "sampled", seed, fixed
        self.epoch = 0  # set by the loader

    def __len__(self):
        return len(self.pixels)

    def label_counts(self, labels):
        """Images of each of that many labels; of all, where there are none: a list."""
        has_classes = self.labels is not None and self.labels.ndim == 1
        owners = self.labels if has_classes else np.zeros(len(self), np.int64)
        return np.bincount(owners, minlength=labels).tolist()

    def __getitem__(self, indices):
        """The Batch of the images `indices`: codes (B, C, H, W)."""
        indices = np.asarray(indices, np.int64)
        pixels = self.pixels[indices]
        if self.sampled:
            codes = np.empty(pixels.shape, np.bool_)
            for image, index, code in zip(pixels, indices, codes, strict=True):
                code[...] = self.draw(index, image)
        else:
            codes = quantize_pixels(pixels, self.levels)
        codes = torch.from_numpy(codes.astype(np.int64))
        label = None if self.labels is None else torch.from_numpy(self.labels[indices])
        return Batch(codes, codes, label)

    def draw(self, index, image):
        """Bernoulli(pixel/255) for image number `index`: True where an integer 0..254 is below."""
        # A stream of its own for every image: the key and the upper words of Philox's counter.
        key = [0, 0] if self.fixed else [self.seed, self.epoch + 1]
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(index)]))
        return generator.integers(0, 255, image.shape, dtype=np.uint8) < image
