"""Judge samples by machine: do they match their labels, and are they copies of training data?

    python benchmarks/judging.py pixelcnn -m MODEL --data DIR
    python benchmarks/judging.py wavenet -m MODEL --data CORPUS

Labels: a classifier trained on the real data classifies the samples of each label. The labels of a
WaveNet and the file names in its corpus (made by preprocess.py) must begin with the digit that is
said. The script prints the accuracy on the samples and on real data that neither the classifier
nor the model has seen.

Copies: the script finds the nearest training item of each sample, by the distance between pixels or
between mel spectra. Copies are much nearer to it than unseen real data. It prints the medians of
both, and --output plots a sample of each label beside its nearest neighbours.
"""

import argparse
import sys
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.neighbors import NearestNeighbors

from benchmarks.judges import Drawing, Items, make_judge
from cli.arguments import non_negative_float, positive_int, probability
from cli.script import run_script
from models.model_file import load

NEIGHBOURS = 4


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--output", metavar="FILE.png", help="a plot of nearest neighbours")
    parser.add_argument("--threads", type=positive_int, default=2)
    add_drawing(parser)
    return parser.parse_args()


def add_drawing(parser: argparse.ArgumentParser, count: int = 100) -> None:
    """Add the flags of `Drawing`. count: the default number of samples."""
    parser.add_argument("-c", "--count", type=positive_int, default=count,
                        help="samples in all for each class or digit (default: %(default)s)")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0)
    parser.add_argument("--top_p", type=probability, default=1.0)
    parser.add_argument("--seed", type=int, default=0)


def main() -> None:
    """Draw samples and judge them."""
    args = arguments()
    torch.set_num_threads(args.threads)
    file = load(args.model, args.network)
    drawing = Drawing(args.count, args.temperature, args.top_p, args.seed)
    judge = make_judge(args.network, args.model, file, args.data, drawing)
    train, unseen, samples = judge.train, judge.unseen, judge.draw(file.model)
    correct, correct_unseen = judge.recognises(samples), judge.recognises(unseen)
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
