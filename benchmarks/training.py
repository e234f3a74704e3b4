"""How fast the networks train, beside the original's formulation and what the machine can do.

    python benchmarks/training.py

prints a table. Each row is a network of fresh weights, trained by the steps that a user's run
takes (`Trainer.update`: loss, gradient, clipping, Adam), on one batch; in bf16 too where the
processor has instructions for it. In turns with it the same steps are taken on the original
study's formulation (`original.py`), always in fp32, and on fewer images where a step takes long;
and so is torch's product of two matrices of 1,024 × 1,024, in the row's precision. So on a noisy
machine the ratios hold; the best of several measurements counts.

GFLOP/s counts a multiplication and an addition for each weight that is really needed, in a WaveNet
for each column that the targets depend on, in a PixelCNN for each pixel; and thrice that, for the
gradients of the inputs and of the weights are as much again each. The share is of the matrix
product's. Memory is the peak of a process of its own that does nothing but train.

At the end, for each network, what loading a batch costs: of the row whose steps it delays most.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.figures import number
from benchmarks.machine import (
    CPU,
    best_rate,
    best_rates,
    matrix_product,
    peak_resident,
    weights_of_a_pixel,
)
from benchmarks.original import OriginalPixelCNN, OriginalWaveNet
from cli.arguments import positive_float, positive_int
from cli.script import run_script
from datasets.batches import training_batches
from datasets.corpus.reader import Corpus
from datasets.corpus.windows import Windows
from datasets.corpus.writer import CorpusWriter
from datasets.images.dataset import ImageCodes
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from training import allocator
from training.device import supported_precision
from training.stopping import StopCondition
from training.trainer import Trainer

HEIGHT = WIDTH = 28
IMAGES = 1000
RECORDINGS, LENGTH = 20, 64000  # of a length that whole windows make up
STEPS = 3  # after which a process needs no more memory
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """A network and the batches it is trained on, of windows of sound or of images.

    targets: of a window; 1 for images, which are counted whole. original_batch: how many the
    original's formulation is given.
    """

    config: WaveNetConfig | PixelCNNConfig
    batch: int
    original_batch: int
    targets: int = 1
    precision: str = "fp32"

    @property
    def is_sound(self):
        """Whether it is a WaveNet."""
        return isinstance(self.config, WaveNetConfig)

    @property
    def name(self):
        """The row's first cell."""
        c = self.config
        if self.is_sound:
            return (f"WaveNet {c.hidden_dim} wide, {c.stacks_num}×{c.layers_num}, "
                    f"{self.batch} × {self.targets:,} targets, {self.precision}")
        return (f"PixelCNN {c.hidden_dim} wide, {c.blocks_num} blocks, {c.levels} levels, "
                f"{self.batch} images {HEIGHT}×{WIDTH}×{c.channels}, {self.precision}")

    def network(self):
        """Ours."""
        return (WaveNet if self.is_sound else PixelCNN)(self.config)

    def original(self):
        """The original's formulation."""
        return (OriginalWaveNet if self.is_sound else OriginalPixelCNN)(self.config)


def rows(device=CPU, precisions=tuple(PRECISIONS)):
    """The rows of the table, whose sizes are those that others were measured at.

    Each in those of the precisions that the device computes fast.
    """
    small, large = WaveNetConfig(), WaveNetConfig(hidden_dim=64, out_hidden_dim=64, stacks_num=4)
    digits, pictures = PixelCNNConfig(4, 3, 32, 32, 5), PixelCNNConfig(256, 3, 128, 16, 15)
    plain = [Row(small, 4, 4, 1600), Row(small, 4, 4, 16000), Row(large, 4, 4, 1600),
             Row(digits, 16, 16), Row(pictures, 8, 2)]
    fast = [name for name in precisions if supported_precision(device, name) == name]
    return [replace(row, precision=name) for row in plain for name in fast]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive_float, default=5.0, metavar="S",
                        help="for each measurement, at least (default: 5)")
    parser.add_argument("--threads", type=positive_int, default=2, metavar="N")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="rows that have one of these in their name")
    return parser.parse_args()


def main():
    """Measure row after row."""
    args = arguments()
    print(f"on {number(args.threads, 'thread')}\n")
    print("| network and batch | a second | original | × original | GFLOP/s | matrix product "
          "| share | memory |\n|---|---|---|---|---|---|---|---|")
    chosen = [row for row in rows() if any(text in row.name for text in args.only)]
    results = []
    for row in tqdm(chosen, disable=None):
        results.append(measure(row, args.seconds, args.threads))
        tqdm.write(table_row(results[-1]))
    print()
    for sound in (True, False):
        of_network = [result for result in results if result.row.is_sound == sound]
        if of_network:
            worst = max(of_network, key=lambda result: result.loading / result.step)
            print(f"loading a batch: {worst.loading * 1e3:.2f} ms, "
                  f"{worst.loading / worst.step:.2%} of a step ({worst.row.name})")


# ------------------------------------------------------------------------------ a row

class Result(NamedTuple):
    """What was measured of a row."""

    row: Row
    rate: float  # windows or images a second, as is the original's
    original: float
    peak: float  # FLOP/s of the matrix product
    flop: int  # that a window or an image takes
    memory: int  # bytes
    loading: float  # seconds a batch

    @property
    def step(self):
        """Seconds of a training step."""
        return self.row.batch / self.rate


def measure(row, seconds, threads):
    """The Result of a row."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        memory = process.submit(peak_memory, row, threads).result()
    torch.set_num_threads(threads)
    model, dataset = row.network(), dataset_of(row)
    rate, original, peak = best_rates(
        [steps(model, dataset, row.batch, row.precision),
         steps(row.original(), dataset, row.original_batch, "fp32"),
         matrix_product(PRECISIONS[row.precision])], seconds)
    batches = run_of_batches(dataset, row.batch)
    loading = 1 / best_rate(lambda: next(batches) is not None, seconds)
    return Result(row, rate, original, peak, flop_of_an_item(row, model), memory, loading)


def flop_of_an_item(row, model):
    """FLOP of training on a window or an image: forward, and twice as much backward."""
    products = (products_of_a_window(row.config, row.targets) if row.is_sound
                else weights_of_a_pixel(model) * HEIGHT * WIDTH)
    return 3 * 2 * products


def steps(model, dataset, batchsize, precision, device=CPU):
    """A function that trains `model` by one step on a batch and returns how many items it has.

    The batch is copied to the device in each step, as in a run.
    """
    if device.type == "cpu":
        allocator.keep_freed_memory()  # as training scripts do
    model.to(device)
    batch = batch_of(dataset, batchsize)
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=True), dataset,
                      batchsize=batchsize, seed=0, clip=1.0, stop=StopCondition(), unit="items",
                      device=device, samples=lambda batch: len(batch.codes),
                      precision=precision)

    def step():
        trainer.update(batch)
        return len(batch.codes)

    return step


def peak_memory(row, threads):
    """The most bytes that this process, which trains the row's network, has held."""
    torch.set_num_threads(threads)
    step = steps(row.network(), dataset_of(row), row.batch, row.precision)
    for _ in range(STEPS):
        step()
    return peak_resident()


def products_of_a_window(config, targets):
    """Multiplications that the logits of a WaveNet's `targets` take: of whole fields, no more."""
    p, skip = config.hidden_dim, config.out_hidden_dim
    columns, total = targets + sum(config.dilations), 0
    for dilation in config.dilations:
        columns -= dilation
        total += columns * 5 * p * p + targets * p * skip  # two taps to two halves; the residual
    return total - targets * p * p + targets * skip * (skip + config.levels)


def table_row(result):
    """A line of Markdown."""
    row, flops = result.row, result.flop * result.rate
    unit, digits = ("targets", ",.0f") if row.is_sound else ("images", ",.3g")
    return (f"| {row.name} | **{result.rate * row.targets:{digits}} {unit}** | "
            f"{result.original * row.targets:{digits}} | {result.rate / result.original:.1f} | "
            f"{flops / 1e9:,.0f} | {result.peak / 1e9:,.0f} | {flops / result.peak:.0%} | "
            f"{result.memory / 2 ** 20:,.0f} MiB |")


# ------------------------------------------------------------------------------ data

def dataset_of(row):
    """A made-up set for the row's network to be trained on, of the classes that runs use."""
    random, c = np.random.default_rng(0), row.config
    if not row.is_sound:
        pixels = random.integers(0, 256, (IMAGES, c.channels, HEIGHT, WIDTH), np.uint8)
        return ImageCodes(pixels, None, c.levels)
    with tempfile.TemporaryDirectory() as folder:  # of the memory maps, which outlive it
        with CorpusWriter(folder, rate=8000, levels=c.levels, stacks_num=c.stacks_num,
                          layers_num=c.layers_num, target_length=row.targets, labels="none",
                          flush_every=10240) as writer:
            for i in range(RECORDINGS):
                codes = random.integers(0, c.levels, LENGTH)
                writer.add("train", str(i), None, [codes])
            writer.close()
        return Windows(Corpus(folder).train, row.targets, c.receptive_field, c.levels)


def batch_of(dataset, size):
    """A batch to train on: of sound, windows without silence, of which less would be computed."""
    if isinstance(dataset, Windows):
        return dataset[dataset.ends[:size] - 1]  # the last windows of as many recordings
    return dataset[range(size)]


def run_of_batches(dataset, size):
    """The batches of one epoch after the other, as a run reads them."""
    for epoch in count():
        yield from training_batches(dataset, size, seed=0, epoch=epoch)


if __name__ == "__main__":
    run_script(main)
