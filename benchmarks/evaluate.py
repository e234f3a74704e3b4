"""Measure the likelihood that a model file gives to data it was not trained on.

    python benchmarks/evaluate.py pixelcnn -m MODEL --data DIR
    python benchmarks/evaluate.py wavenet -m MODEL --data CORPUS

pixelcnn takes the test images of the published set that the model was trained on; --data is the
folder of the published files, as for train_pixelcnn.py. It prints bits/dim, and nats per image
with the standard error of their mean. For a model conditioned on classes it also prints the
likelihood of images without their classes, where each class is equally likely:

    p(x) = 1/K Σ_y p(x | y)

This is an exact likelihood of an unconditional model, at most ln K nats worse than p(x | y), and
compares with published unconditional ones. It takes K passes over the images. Images that the
model's configuration binarises by random draws are drawn once, with the draws of training's tests.

wavenet takes the held-back recordings of a corpus made by preprocess.py, each from silence on, and
prints bits per sample.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
from tqdm import tqdm

from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.batches import Batch, BatchDataset, evaluation_batches
from datasets.corpus.reader import Corpus
from datasets.corpus.windows import Windows
from datasets.images.dataset import ImageCodes, load_images
from models.local_conditioning import MARGIN_FRAMES
from models.model_file import ModelFile, load
from models.wavenet import WaveNet
from training import likelihood

BATCH_SIZE = 16  # images or windows


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--items", type=positive_int, help="the first test images (default: all)")
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser.parse_args()


def load_test_images(path: str | Path, file: ModelFile, data: str | Path,
                     items: int | None = None) -> ImageCodes:
    """Load the first `items` test images of the published set that a PixelCNN was trained on.

    path: the model file's, for errors. data: the folder of the published files. Raises UserError
    for a model of vectors or of a folder's images.
    """
    if file.model.config.vector:
        raise UserError(f"{path}: is conditioned on vectors; name a model with classes or "
                        "without labels")
    test = load_images(file.data["dataset"], data, file.data["height"], file.data["width"],
                       validation=0, condition="class" if file.label_names else "none").test
    if test is None:
        raise UserError(f"{path}: was trained on a folder of images, which has no test "
                        "images; name a model of a published set")
    first = np.arange(len(test.pixels))[:items]
    return ImageCodes(*test.take(first), file.model.config.levels, file.data["binarize"],
                      fixed=True)


def batches_with_progress(dataset: BatchDataset) -> Iterator[Batch]:
    """All batches of the dataset in order, behind a progress bar."""
    return iter(tqdm(evaluation_batches(dataset, BATCH_SIZE), desc="test", disable=None))


@torch.inference_mode()
def nats_of_each_image(model: torch.nn.Module, images: ImageCodes) -> torch.Tensor:
    """-ln p(x | y) of each image x and its label y, or -ln p(x) without labels: (N,)."""
    return torch.cat([likelihood.nll(model, batch, "each").double()
                      for batch in batches_with_progress(images)])


@torch.inference_mode()
def nats_without_labels(model: torch.nn.Module, images: ImageCodes, labels: int) -> torch.Tensor:
    """-ln p(x) of each image x under the mixture of equally likely labels: (N,)."""
    def each_label(batch: Batch) -> torch.Tensor:
        size = len(batch.codes)
        return torch.stack([
            likelihood.nll(model, batch._replace(label=torch.full((size,), label)), "each")
            for label in range(labels)]).double()

    nats = [each_label(batch) for batch in batches_with_progress(images)]
    return math.log(labels) - torch.logsumexp(-torch.cat(nats, dim=1), dim=0)


def describe_nats(nats: torch.Tensor, dimensions: int) -> str:
    """Bits/dim, and nats per image with their standard error. nats: (N,)."""
    error = nats.std() / math.sqrt(len(nats))
    return (f"{nats.mean() / dimensions / math.log(2):.4f} bits/dim, {nats.mean():.2f} nats per "
            f"image (standard error {error:.2f})")


def evaluate_images(path: str, data: str, items: int | None) -> None:
    """Print the likelihood of test images."""
    file = load(path, "pixelcnn")
    images = load_test_images(path, file, data, items)
    dimensions = math.prod(images.pixels.shape[1:])
    given = " with their classes" if file.label_names else ""
    print(f"{len(images):,} test images of {file.data['dataset']}{given}: "
          f"{describe_nats(nats_of_each_image(file.model, images), dimensions)}", flush=True)
    if file.label_names:
        nats = nats_without_labels(file.model, images, len(file.label_names))
        print(f"without their classes: {describe_nats(nats, dimensions)}")


def bits_per_sample(model: WaveNet, corpus: Corpus) -> float:
    """The mean over all validation samples, each recording starting from silence."""
    windows = Windows(corpus.validation, corpus.target_length, model.config.receptive_field,
                      corpus.levels, MARGIN_FRAMES)
    nll = likelihood.evaluate(model, batches_with_progress(windows), torch.device("cpu"))
    return nll / math.log(2)


def evaluate_recordings(path: str, data: str) -> None:
    """Print the likelihood of a corpus' held-back recordings."""
    file, corpus = load(path, "wavenet"), Corpus(data)
    corpus.use_mel_frames()
    config = file.model.config
    rate, encoding = file.data["rate"], file.data["encoding"]
    if (corpus.levels, corpus.rate, corpus.encoding) != (config.levels, rate, encoding):
        raise UserError(f"{data}: has {corpus.levels} levels ({corpus.encoding}) at {corpus.rate} "
                        f"Hz, {path} has {config.levels} ({encoding}) at {rate}; name a corpus "
                        "like that")
    if (corpus.features.width if corpus.features else 0) != config.features:
        raise UserError(f"{data}: has other features than {path}; name a corpus prepared with the "
                        "same --features")
    if file.label_names and corpus.label_names != file.label_names:
        raise UserError(f"{data}: has other labels than {path}; name the corpus that it was "
                        "trained on")
    split = corpus.validation
    if not split.recordings:
        raise UserError(f"{data}: has no recordings held back; call preprocess.py with "
                        "--validation")
    samples = sum(recording.length for recording in split.recordings)
    print(f"{len(split.recordings):,} recordings held back, {samples:,} samples: "
          f"{bits_per_sample(file.model, corpus):.4f} bits per sample")


def main() -> None:
    """Evaluate the model."""
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.network == "pixelcnn":
        evaluate_images(args.model, args.data, args.items)
    else:
        evaluate_recordings(args.model, args.data)


if __name__ == "__main__":
    run_script(main)
