"""Plot how a run learned: the likelihood and the samples recognised, by hours of training.

    python train_pixelcnn.py --config configs/digits_4_levels.json --keep_every 10m
    python benchmarks/learning_curve.py pixelcnn --run runs/digits_4_levels --data data -o curve.png

    python train_wavenet.py --config configs/spoken_digits.json --keep_every 10m
    python benchmarks/learning_curve.py wavenet --run runs/spoken_digits \
        --data corpora/spoken_digits -o curve.png

The likelihood of held-back data comes from the run's log, one point per epoch. The script draws
--count samples for each class or digit with every snapshot that --keep_every kept and with the
run's best model. A classifier recognises a share of them, as in judging.py. The plot also shows
samples of four of these models: one of each class of images, or the spectrogram of a spoken digit.

It also prints the figures as a Markdown table.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.judges import Drawing, Items, make_judge
from benchmarks.judging import add_drawing
from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from common.plots import save_figure
from common.run_files import SNAPSHOT, numbered_files
from models import model_file

SHOWN = 4  # models whose samples the plot shows
CLASSES_SHOWN = 10  # samples of each


class Point(NamedTuple):
    """A model of the run. hours: of training. recognised: the share of its samples."""

    hours: float
    recognised: float
    samples: Items


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--data", required=True, metavar="DIR",
                        help="the published sets' folder, or the corpus")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--threads", type=positive_int, default=2)
    add_drawing(parser)
    return parser.parse_args()


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read the run's log."""
    path = run / "log"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({error}); --run is the folder of a run") from None


def likelihoods(log: list[dict[str, Any]]) -> tuple[np.ndarray, str]:
    """(Hours and the likelihood of held-back data, (epochs, 2); its unit) from a log."""
    for key, unit in (("validation/main/nats", "nats per image"),
                      ("validation/main/bits/dim", "bits per sample")):
        points = [(entry["elapsed_time"] / 3600, entry[key]) for entry in log if key in entry]
        if points:
            return np.array(points), unit
    raise UserError("the run's log has no likelihood of held-back data; let it finish an epoch")


def models_of(run: Path, network: str, log: list[dict[str, Any]]) -> Iterator[tuple[float, Path]]:
    """(Hours of training, file) of each kept snapshot and of the best model, in this order."""
    hours = {entry["iteration"]: entry["elapsed_time"] / 3600 for entry in log}
    iterations = np.array(sorted(hours))
    files = {iteration_of(path): path for path in numbered_files(run, SNAPSHOT)}
    files |= {iteration_of(path): path for path in numbered_files(run, network)}
    if not files:
        raise UserError(f"{run}: has no snapshots; call the training script with --keep_every 10m")
    for iteration, path in sorted(files.items()):
        yield np.interp(iteration, iterations, [hours[each] for each in iterations]), path


def iteration_of(path: Path) -> int:
    """The number at the end of a file's name."""
    return int(path.name.rpartition("_")[2])


def shown(points: list[Point]) -> list[Point]:
    """SHOWN of the points, about equally far apart, the first and the last among them."""
    indices = np.linspace(0, len(points) - 1, min(SHOWN, len(points))).round().astype(int)
    return [points[index] for index in indices]


def montage(items: Items) -> np.ndarray:
    """A picture of the first sample of each class, in two rows. Of sounds: only of the first."""
    rows = [items.classes.index(name) for name in dict.fromkeys(items.classes)][:CLASSES_SHOWN]
    pictures = [items.picture(row) for row in rows]
    if len({picture.shape for picture in pictures}) > 1:  # sounds have different lengths
        return pictures[0]
    half = -(-len(pictures) // 2)
    pictures += [np.zeros_like(pictures[0])] * (2 * half - len(pictures))
    return np.concatenate([np.concatenate(pictures[:half], axis=1),
                           np.concatenate(pictures[half:], axis=1)])


def plot(path: Path, curve: np.ndarray, unit: str, points: list[Point], real: float) -> None:
    """Plot both curves, and samples of some of the models below them."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    chosen = shown(points)
    grid = figure.add_gridspec(2, len(chosen), height_ratios=(3, 1.4))
    axis = figure.add_subplot(grid[0, :])
    axis.plot(*curve.T, color="tab:blue", marker=".", label=unit)
    axis.set_xlabel("hours of training")
    axis.set_ylabel(f"{unit}, held-back data", color="tab:blue")
    right = axis.twinx()
    right.plot([point.hours for point in points], [100 * point.recognised for point in points],
               color="tab:orange", marker="o")
    right.axhline(100 * real, color="tab:orange", linestyle=":")
    right.set_ylabel("% of samples recognised (dotted: of real ones)", color="tab:orange")
    right.set_ylim(0, 100)
    for column, point in enumerate(chosen):
        axis = figure.add_subplot(grid[1, column])
        axis.imshow(montage(point.samples), cmap="gray", vmin=0, vmax=1,
                    aspect="equal" if unit.endswith("image") else "auto")
        axis.set_title(f"{point.hours:.2f} h, {point.recognised:.0%}", fontsize=9)
        axis.set_axis_off()
    save_figure(path, figure)


def main() -> None:
    """Judge each model of the run, plot, and print the table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    log = read_log(args.run)
    curve, unit = likelihoods(log)
    models = list(models_of(args.run, args.network, log))
    drawing = Drawing(args.count, args.temperature, args.top_p, args.seed)
    last = model_file.load(models[-1][1], args.network)
    judge = make_judge(args.network, models[-1][1], last, args.data, drawing)
    points = []
    print(f"| hours | {unit} | recognised |\n|---|---|---|")
    for hours, path in models:
        samples = judge.draw(model_file.load(path, args.network).model)
        points.append(Point(hours, judge.recognises(samples).mean(), samples))
        print(f"| {hours:.2f} | {np.interp(hours, *curve.T):.4g} | {points[-1].recognised:.1%} |",
              flush=True)
    real = judge.recognises(judge.unseen).mean()
    print(f"\nunseen data: {real:.1%} recognised")
    plot(args.output, curve, unit, points, real)


if __name__ == "__main__":
    run_script(main)
