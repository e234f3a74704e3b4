"""Judge samples by machine: do they match their labels, and are they copies of training data?

    python benchmarks/judging.py pixelcnn -m MODEL --data DIR
    python benchmarks/judging.py wavenet -m MODEL --data CORPUS

Labels: a classifier trained on the real data classifies the samples of each label. For a PixelCNN a
small convolutional network predicts the class of the image; for a WaveNet a support vector machine
predicts the spoken digit. The labels of the WaveNet and the file names in its corpus (made by
preprocess.py) must begin with that digit. The script prints the accuracy on the samples and on real
data that neither the classifier nor the model has seen.

Copies: the script finds the nearest training item of each sample, by the distance between pixels or
between mel spectra. Copies are much nearer to it than unseen real data. It prints the medians of
both, and --output plots a sample of each label beside its nearest neighbours.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

from benchmarks.image_classifier import ImageClassifier
from benchmarks.spoken_digits import (
    FLOOR_DB,
    digit_features,
    digit_labels,
    spectrogram,
    train_classifier,
)
from cli.arguments import non_negative_float, positive_int, probability
from cli.script import run_script
from common.errors import UserError
from datasets.corpus.reader import Corpus
from datasets.images.dataset import ImageCodes, load_images
from datasets.quantization import mu_law_decode
from models.model_file import load
from sampling.pixelcnn import sample_images
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds

NEIGHBOURS = 4
BATCH_SIZE = 100  # samples drawn at once


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("-c", "--count", type=positive_int, default=100,
                        help="samples in all for each class or digit (default: 100)")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0)
    parser.add_argument("--top_p", type=probability, default=1.0)
    parser.add_argument("--output", metavar="FILE.png", help="a plot of nearest neighbours")
    parser.add_argument("--threads", type=positive_int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Items(NamedTuple):
    """Real data or samples.

    vectors: (N, features), for distances and the classifier. classes: N names. picture: a function
    from an index to what is plotted, in [0, 1]: (height, width) or (height, width, 3).
    """

    vectors: np.ndarray
    classes: list[str]
    picture: Callable[[int], np.ndarray]


class Comparison(NamedTuple):
    """Training data, unseen data and samples. classifier: trained on `train`, has predict()."""

    train: Items
    unseen: Items
    samples: Items
    classifier: Any


# ------------------------------------------------------------------------------------ images


def prepare_images(args: argparse.Namespace) -> Comparison:
    """Load the model's images, draw samples, train the classifier."""
    model, label_names, data, _ = load(args.model, "pixelcnn")
    if not label_names:
        raise UserError(f"{args.model}: is not conditioned on classes; name a model that is")
    data_set = load_images(data["dataset"], args.data, data["height"], data["width"])
    levels = model.config.levels

    def make_items(codes, labels):
        scaled = codes.numpy().astype(np.float32) / (levels - 1)
        pictures = scaled[:, 0] if codes.shape[1] == 1 else scaled.transpose(0, 2, 3, 1)
        return Items(scaled.reshape(len(codes), -1), [label_names[label] for label in labels],
                     lambda index: pictures[index])

    def read_items(split):
        images = ImageCodes(*split, levels, data["binarize"], fixed=True)
        return make_items(images[np.arange(len(images))].codes, images.labels)

    train, unseen = read_items(data_set.train), read_items(data_set.test or data_set.validation)
    labels = torch.arange(len(label_names)).repeat_interleave(args.count)
    streams = torch.arange(len(labels))
    codes = torch.cat([
        sample_images(model, RandomStreams(args.seed, batch.tolist()), labels[batch],
                      data["height"], data["width"], args.temperature, args.top_p)
        for batch in tqdm(streams.split(BATCH_SIZE), desc="drawing", disable=None)])
    classifier = ImageClassifier(codes.shape[1:], args.seed).fit(train.vectors, train.classes)
    return Comparison(train, unseen, make_items(codes, labels), classifier)


# ------------------------------------------------------------------------------------- sound


def prepare_sounds(args: argparse.Namespace) -> Comparison:
    """The same for spoken digits; samples are as long as random recordings of their label."""
    model, label_names, data, _ = load(args.model, "wavenet")
    if not label_names or any(name[0] not in "0123456789" for name in label_names):
        raise UserError(f"{args.model}: has labels that don't begin with a digit, or none; name a "
                        "model whose labels do")
    corpus = Corpus(args.data)
    if corpus.label_names != label_names:
        raise UserError(f"{args.data}: has other labels than {args.model}; name the corpus that "
                        "it was trained on")

    def make_items(sounds, classes):
        vectors = np.stack([digit_features(sound, corpus.rate) for sound in sounds])
        return Items(vectors, classes,
                     lambda index: 1 - spectrogram(sounds[index], corpus.rate)[::-1] / FLOOR_DB)

    def read_items(split):
        indices = tqdm(range(len(split.recordings)), desc="reading", disable=None)
        return make_items([mu_law_decode(split.codes(index), corpus.levels) for index in indices],
                          digit_labels(split))

    count = max(args.count // (len(label_names) // len({name[0] for name in label_names})), 1)
    labels = torch.arange(len(label_names)).repeat_interleave(count)
    generator = np.random.default_rng(args.seed)
    lengths = [int(generator.choice([recording.length for recording in corpus.train.recordings
                                     if recording.label == label])) for label in labels]
    sounds: list[np.ndarray] = []
    for batch in tqdm(torch.arange(len(labels)).split(BATCH_SIZE), desc="drawing", disable=None):
        longest = max(lengths[index] for index in batch)
        codes = torch.cat(list(sample_sounds(model, RandomStreams(args.seed, batch.tolist()),
                                             labels[batch], longest, args.temperature,
                                             args.top_p)), dim=1)
        sounds += [mu_law_decode(row[:lengths[index]].numpy(), corpus.levels)
                   for row, index in zip(codes, batch, strict=True)]
    train = read_items(corpus.train)
    return Comparison(train, read_items(corpus.validation),
                      make_items(sounds, [label_names[label][0] for label in labels]),
                      train_classifier(train.vectors, train.classes))


# --------------------------------------------------------------------------------- judgement


def main() -> None:
    """Draw samples and judge them."""
    args = arguments()
    torch.set_num_threads(args.threads)
    prepare = prepare_images if args.network == "pixelcnn" else prepare_sounds
    train, unseen, samples, classifier = prepare(args)
    correct, correct_unseen = (classifier.predict(items.vectors) == np.array(items.classes)
                               for items in (samples, unseen))
    print(f"unseen data: {correct_unseen.mean():.1%} of {len(correct_unseen):,} recognised")
    print(f"samples: {correct.mean():.1%} of {len(correct):,} recognised")
    rates = {name: correct[np.array(samples.classes) == name].mean()
             for name in dict.fromkeys(samples.classes)}
    print("samples of each: " + ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items()))
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(train.vectors)
    neighbours = nearest.kneighbors(samples.vectors, return_distance=False)
    # The search's own distances between equal vectors are not exactly 0.
    distances = np.linalg.norm(samples.vectors[:, None] - train.vectors[neighbours], axis=2)
    unseen_distances = nearest.kneighbors(unseen.vectors[:len(samples.vectors)], 1)[0]
    print(f"distance to the nearest training item, median: unseen data "
          f"{np.median(unseen_distances):.2f}, "
          f"samples {np.median(distances[:, 0]):.2f}; samples equal to one: "
          f"{np.count_nonzero(distances[:, 0] == 0)}")
    if args.output:
        aspect: Literal["equal", "auto"] = "equal" if args.network == "pixelcnn" else "auto"
        plot_neighbours(args.output, aspect, train, samples, distances, neighbours)


def plot_neighbours(path: str, aspect: Literal["equal", "auto"], train: Items, samples: Items,
                    distances: np.ndarray, neighbours: np.ndarray) -> None:
    """Plot a row for each class: a sample and its nearest training items."""
    rows = [samples.classes.index(name) for name in dict.fromkeys(samples.classes)]
    figure = Figure(figsize=(1.5 * (1 + NEIGHBOURS), 1.3 * len(rows)), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), 1 + NEIGHBOURS, squeeze=False), rows,
                         strict=True):
        columns = [("sample", samples.picture(row))]
        columns += [(f"{distance:.1f}", train.picture(index))
                    for distance, index in zip(distances[row], neighbours[row], strict=True)]
        for axis, (title, picture) in zip(axes, columns, strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=aspect)
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    run_script(main)
