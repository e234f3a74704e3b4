"""Measure what a mixture of logistics costs beside a softmax, in training and in sampling.

    python benchmarks/distributions.py

prints a table. Each row trains, or draws from, the same network with fresh weights and either
distribution, in turns, so the ratios hold on a noisy machine; the best of several measurements
counts. Images have 256 levels with both. Sound has 256 levels with the softmax and 65,536 with the
logistics.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder
    import cli  # noqa: F401, before torch: as in the scripts

import torch
from tqdm import tqdm

from benchmarks import training
from benchmarks.machine import best_rates
from benchmarks.sampling import HEIGHT, WIDTH
from cli.arguments import positive_float, positive_int
from cli.script import run_script
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling.pixelcnn import sample_images
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds
from training.device import supported_precision

Config = PixelCNNConfig | WaveNetConfig
NETWORKS: dict[str, Config] = {"PixelCNN 32 wide, 5 blocks": PixelCNNConfig(256, 3, 32, 32, 5),
            "PixelCNN 128 wide, 15 blocks": PixelCNNConfig(256, 3, 128, 16, 15),
            "WaveNet 32 wide, 5×10": WaveNetConfig()}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive_float, default=10.0, metavar="S",
                        help="minimum time of each measurement (default: 10)")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(),
                        metavar="N", help="of everything but one sound (default: torch's)")
    parser.add_argument("--mixtures", type=positive_int, default=10, metavar="N")
    parser.add_argument("--images", type=positive_int, default=100, metavar="N",
                        help="drawn at a time (default: 100)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="measure only rows whose name contains one of these")
    return parser.parse_args()


def with_logistics(config: Config, mixtures: int) -> Config:
    """The same network with a mixture of logistics; of sound, with 65,536 levels."""
    if isinstance(config, WaveNetConfig):
        return replace(config, levels=65_536, distribution="logistics", mixtures=mixtures,
                       prediction=True)
    return replace(config, distribution="logistics", mixtures=mixtures)


def training_step(config: Config, precision: str) -> Callable[[], int]:
    """A function that trains by one step and returns the number of images or targets."""
    is_sound = isinstance(config, WaveNetConfig)
    row = training.Row(config, 4 if is_sound else 8, 1, 1600 if is_sound else 1, precision)
    step = training.make_step(row.build_model(), training.make_dataset(row), row.batch, precision)
    return lambda: step() * row.targets


def sampling_step(config: Config, images: int) -> Callable[[], int]:
    """A function that draws images, or a block of one sound; returns how many images or samples."""
    if isinstance(config, PixelCNNConfig):
        image_model = PixelCNN(config).eval()
        return lambda: len(sample_images(image_model, RandomStreams(0, range(images)), None, HEIGHT,
                                         WIDTH))
    blocks = sample_sounds(WaveNet(config).eval(), RandomStreams(0, [0]), None)
    return lambda: next(blocks).numel()


class Row(NamedTuple):
    """A network with a softmax and a task.

    make_step: of a network, a function that does some of the task and returns how much.
    """

    name: str
    threads: int
    config: Config
    make_step: Callable[[Config], Callable[[], int]]


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """The rows of the table."""
    for name, config in NETWORKS.items():
        for precision in ("fp32", "bf16"):
            if supported_precision(training.CPU, precision) == precision:
                yield Row(f"{name}, training, {precision}", args.threads, config,
                          partial(training_step, precision=precision))
        is_sound = isinstance(config, WaveNetConfig)
        drawn = "one sound" if is_sound else f"{args.images} images"
        yield Row(f"{name}, sampling {drawn}", 1 if is_sound else args.threads, config,
                  partial(sampling_step, images=args.images))


def main() -> None:
    """Measure row after row."""
    args = arguments()
    print("| network and task | softmax, a second | logistics, a second | ratio |\n"
          "|---|---|---|---|")
    selected = [row for row in rows(args) if any(text in row.name for text in args.only)]
    for row in tqdm(selected, disable=None):
        torch.set_num_threads(row.threads)
        softmax, logistics = best_rates(
            [row.make_step(one) for one in (row.config, with_logistics(row.config, args.mixtures))],
            args.seconds)
        digits = ",.0f" if softmax >= 1000 else ",.3g"
        tqdm.write(f"| {row.name} | {softmax:{digits}} | {logistics:{digits}} | "
                   f"**{logistics / softmax:.2f}** |")


if __name__ == "__main__":
    run_script(main)
