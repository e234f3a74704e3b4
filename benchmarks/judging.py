"""Samples that a machine can judge: are they what their labels say, and are they copies?

    python benchmarks/judging.py pixelcnn -m MODEL --data DIR
    python benchmarks/judging.py wavenet -m MODEL --data CORPUS

A classifier is trained on the real data, and recognises what the model draws for each label: of a
PixelCNN the image's class, by a small convolutional network; of a WaveNet the spoken digit, with
which its labels begin, as do the names of the recordings in the corpus (of preprocess.py) that it
was trained on, by a support vector machine. Its rate on real data that neither it nor the model has
seen stands beside that.

And for each sample the nearest of the data that the model was trained on is looked for, by the
distance between pixels, or between mel spectra. Were samples copies they would be much nearer to it
than unseen real data is. The medians of both are printed, and --output draws a sample of each label
beside its nearest neighbours.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

from benchmarks.image_classifier import ImageClassifier
from benchmarks.spoken_digits import LEAST, classifier, digits, picture, spectra
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
AT_ONCE = 100  # drawn


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("-c", "--count", type=positive_int, default=100,
                        help="samples in all for each class or digit (default: 100)")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0)
    parser.add_argument("--top_p", type=probability, default=1.0)
    parser.add_argument("--output", metavar="FILE.png", help="a picture of nearest neighbours")
    parser.add_argument("--threads", type=positive_int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Judged(NamedTuple):
    """Real and drawn items.

    vectors: what they are compared by, (N, …). classes: what they are, N names. shown: how number n
    is drawn in the picture, in [0, 1]: a function to (height, width), or with colours after that.
    """

    vectors: np.ndarray
    classes: list
    shown: Callable


# ------------------------------------------------------------------------------------ images


def images(args):
    """(training, unseen and drawn Judged, the classifier trained on the first)."""
    model, label_names, data, _ = load(args.model, "pixelcnn")
    if not label_names:
        raise UserError(f"{args.model}: is not conditioned on classes; name a model that is")
    found = load_images(data["dataset"], args.data, data["height"], data["width"])
    levels = model.config.levels

    def judged(codes, labels):
        scaled = codes.numpy().astype(np.float32) / (levels - 1)
        pictures = scaled[:, 0] if codes.shape[1] == 1 else scaled.transpose(0, 2, 3, 1)
        return Judged(scaled.reshape(len(codes), -1), [label_names[label] for label in labels],
                      lambda number: pictures[number])

    def real(part):
        part = ImageCodes(*part, levels, data["binarize"], fixed=True)
        return judged(part[np.arange(len(part))].codes, part.labels)

    train, unseen = real(found.train), real(found.test or found.validation)
    labels = torch.arange(len(label_names)).repeat_interleave(args.count)
    streams = torch.arange(len(labels))
    drawn = [sample_images(model, RandomStreams(args.seed, some.tolist()), labels[some],
                           data["height"], data["width"], args.temperature, args.top_p)
             for some in tqdm(streams.split(AT_ONCE), desc="drawing", disable=None)]
    drawn = torch.cat(drawn)
    machine = ImageClassifier(drawn.shape[1:], args.seed).fit(train.vectors, train.classes)
    return train, unseen, judged(drawn, labels), machine


# ------------------------------------------------------------------------------------- sound


def sounds(args):
    """The same of spoken digits, as they are in the corpus; samples last as long as recordings."""
    model, label_names, data, _ = load(args.model, "wavenet")
    if not label_names or any(name[0] not in "0123456789" for name in label_names):
        raise UserError(f"{args.model}: has labels that don't begin with a digit, or none; name a "
                        "model that was trained with those")
    corpus = Corpus(args.data)
    if corpus.label_names != label_names:
        raise UserError(f"{args.data}: has other labels than {args.model}; name the corpus that "
                        "it was trained on")

    def judged(samples, classes):
        samples = list(samples)
        return Judged(np.stack([picture(sound, corpus.rate) for sound in samples]), classes,
                      lambda number: 1 - spectra(samples[number], corpus.rate)[::-1] / LEAST)

    def real(part):
        return judged((mu_law_decode(part.codes(index), corpus.levels)
                       for index in tqdm(range(len(part.recordings)), desc="reading",
                                         disable=None)), digits(part))

    each = max(args.count // (len(label_names) // len({name[0] for name in label_names})), 1)
    labels = torch.arange(len(label_names)).repeat_interleave(each)
    chance = np.random.default_rng(args.seed)
    lengths = [int(chance.choice([recording.length for recording in corpus.train.recordings
                                  if recording.label == label])) for label in labels]
    drawn = []
    for some in tqdm(torch.arange(len(labels)).split(AT_ONCE), desc="drawing", disable=None):
        longest = max(lengths[number] for number in some)
        codes = torch.cat(list(sample_sounds(model, RandomStreams(args.seed, some.tolist()),
                                             labels[some], longest, args.temperature,
                                             args.top_p)), dim=1)
        drawn += [mu_law_decode(row[:lengths[number]].numpy(), corpus.levels)
                  for row, number in zip(codes, some, strict=True)]
    train = real(corpus.train)
    return (train, real(corpus.validation),
            judged(drawn, [label_names[label][0] for label in labels]),
            classifier(train.vectors, train.classes))


# --------------------------------------------------------------------------------- judgement


def main():
    """Draw and judge."""
    args = arguments()
    torch.set_num_threads(args.threads)
    train, unseen, drawn, machine = (images if args.network == "pixelcnn" else sounds)(args)
    right, right_of_unseen = (machine.predict(found.vectors) == np.array(found.classes)
                              for found in (drawn, unseen))
    print(f"unseen data: {right_of_unseen.mean():.1%} of {len(right_of_unseen):,} recognised")
    print(f"samples: {right.mean():.1%} of {len(right):,} recognised")
    rates = {kind: right[np.array(drawn.classes) == kind].mean()
             for kind in dict.fromkeys(drawn.classes)}
    print("samples of each: " + ", ".join(f"{kind} {rate:.0%}" for kind, rate in rates.items()))
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(train.vectors)
    neighbours = nearest.kneighbors(drawn.vectors, return_distance=False)
    # Of equals the search itself says something that is not quite 0.
    distances = np.linalg.norm(drawn.vectors[:, None] - train.vectors[neighbours], axis=2)
    of_unseen = nearest.kneighbors(unseen.vectors[:len(drawn.vectors)], 1)[0]
    print(f"distance to the nearest training item, median: unseen data {np.median(of_unseen):.2f}, "
          f"samples {np.median(distances[:, 0]):.2f}; samples equal to one: "
          f"{np.count_nonzero(distances[:, 0] == 0)}")
    if args.output:
        aspect = "equal" if args.network == "pixelcnn" else "auto"
        draw_neighbours(args.output, aspect, train, drawn, distances, neighbours)


def draw_neighbours(path, aspect, train, drawn, distances, neighbours):
    """A row for each class: a sample, and the training items that are nearest to it."""
    rows = [drawn.classes.index(kind) for kind in dict.fromkeys(drawn.classes)]
    figure = Figure(figsize=(1.5 * (1 + NEIGHBOURS), 1.3 * len(rows)), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), 1 + NEIGHBOURS, squeeze=False), rows,
                         strict=True):
        columns = [("sample", drawn.shown(row))]
        columns += [(f"{distance:.1f}", train.shown(index))
                    for distance, index in zip(distances[row], neighbours[row], strict=True)]
        for axis, (title, shown) in zip(axes, columns, strict=True):
            axis.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=aspect)
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    run_script(main)
