"""Measure how fast the networks train, relative to the original study and the machine's limits.

    python benchmarks/training.py

prints a table. Each row trains a network with fresh weights on one batch, with the steps of a
user's run (`Trainer.update`: loss, gradient, clipping, Adam); in bf16 too where the processor has
instructions for it. It measures in turns our network, the original study's formulation
(`original.py`; always fp32, with fewer images where a step takes long) and torch's product of two
1,024 × 1,024 matrices in the row's precision, so the ratios hold on a noisy machine. The best of
several measurements counts.

GFLOP/s counts one multiplication and one addition for each weight that is needed: in a WaveNet for
each column that the targets depend on, in a PixelCNN for each pixel. The count is tripled, because
the gradients of the inputs and of the weights cost as much as the forward pass each. The share is
relative to the matrix product. Memory is the peak of a separate process that only trains.

The last lines give, for each network, the cost of loading a batch in the row that it delays most.

    python benchmarks/training.py --instructions avx2

measures what a processor without AVX-512 would run (see `instructions.py`), in fp32 only.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder
    import cli  # noqa: F401, before torch: as in the scripts

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.formatting import format_count
from benchmarks.instructions import add_instructions_option, restart_with
from benchmarks.machine import (
    CPU,
    best_rate,
    best_rates,
    count_unmasked_weights,
    matrix_product,
    peak_resident_bytes,
)
from benchmarks.original import OriginalPixelCNN, OriginalWaveNet
from cli.arguments import positive_float, positive_int
from cli.script import run_script
from datasets.batches import Batch, training_batches
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
RECORDINGS, LENGTH = 20, 64000  # samples; a multiple of all target lengths
WARM_UP_STEPS = 3  # after these, memory no longer grows
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """A network and its batch size, in windows of sound or in images.

    targets: targets per window; 1 for images. original_batch: the batch size of the original's
    formulation.
    """

    config: WaveNetConfig | PixelCNNConfig
    batch: int
    original_batch: int
    targets: int = 1
    precision: str = "fp32"

    @property
    def is_sound(self) -> bool:
        """Whether the network is a WaveNet."""
        return isinstance(self.config, WaveNetConfig)

    @property
    def name(self) -> str:
        """The row's first cell."""
        c = self.config
        if isinstance(c, WaveNetConfig):
            return (f"WaveNet {c.hidden_dim} wide, {c.stacks_num}×{c.layers_num}, "
                    f"{self.batch} × {self.targets:,} targets, {self.precision}")
        return (f"PixelCNN {c.hidden_dim} wide, {c.blocks_num} blocks, {c.levels} levels, "
                f"{self.batch} images {HEIGHT}×{WIDTH}×{c.channels}, {self.precision}")

    def build_model(self) -> nn.Module:
        """Our network, with fresh weights."""
        c = self.config
        return WaveNet(c) if isinstance(c, WaveNetConfig) else PixelCNN(c)

    def build_original(self) -> nn.Module:
        """The original's formulation, with fresh weights."""
        c = self.config
        return OriginalWaveNet(c) if isinstance(c, WaveNetConfig) else OriginalPixelCNN(c)


def rows(device: torch.device = CPU, precisions: Sequence[str] = tuple(PRECISIONS)) -> list[Row]:
    """The rows of the table, in each of the precisions that the device computes fast.

    Peers were measured at these sizes.
    """
    small, large = WaveNetConfig(), WaveNetConfig(hidden_dim=64, out_hidden_dim=64, stacks_num=4)
    digits, pictures = PixelCNNConfig(4, 3, 32, 32, 5), PixelCNNConfig(256, 3, 128, 16, 15)
    plain = [Row(small, 4, 4, 1600), Row(small, 4, 4, 16000), Row(large, 4, 4, 1600),
             Row(digits, 16, 16), Row(pictures, 8, 2)]
    fast = [name for name in precisions if supported_precision(device, name) == name]
    return [replace(row, precision=name) for row in plain for name in fast]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive_float, default=5.0, metavar="S",
                        help="minimum time of each measurement (default: 5)")
    parser.add_argument("--threads", type=positive_int, default=2, metavar="N")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="measure only rows whose name contains one of these")
    add_instructions_option(parser)
    return parser.parse_args()


def main():
    """Measure row after row."""
    args = arguments()
    restart_with(args.instructions)
    print(f"on {format_count(args.threads, 'thread')}\n")
    print("| network and batch | a second | original | × original | GFLOP/s | matrix product "
          "| share | memory |\n|---|---|---|---|---|---|---|---|")
    # torch asks the processor for bf16 instructions, and not what oneDNN may use.
    precisions = [*PRECISIONS] if args.instructions == "native" else ["fp32"]
    selected = [row for row in rows(precisions=precisions)
                if any(text in row.name for text in args.only)]
    results = []
    for row in tqdm(selected, disable=None):
        results.append(measure(row, args.seconds, args.threads))
        tqdm.write(table_row(results[-1]))
    print()
    for sound in (True, False):
        candidates = [result for result in results if result.row.is_sound == sound]
        if candidates:
            worst = max(candidates, key=lambda result: result.loading / result.step)
            print(f"loading a batch: {worst.loading * 1e3:.2f} ms, "
                  f"{worst.loading / worst.step:.2%} of a step ({worst.row.name})")


# ------------------------------------------------------------------------------ a row

class Result(NamedTuple):
    """The measurements of a row."""

    row: Row
    rate: float  # windows or images per second
    original: float  # the same for the original's formulation
    peak: float  # FLOP/s of the matrix product
    flop: int  # per window or image
    memory: int  # bytes
    loading: float  # seconds per batch

    @property
    def step(self) -> float:
        """Seconds of a training step."""
        return self.row.batch / self.rate


def measure(row: Row, seconds: float, threads: int) -> Result:
    """Measure a row."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        memory = process.submit(peak_memory, row, threads).result()
    torch.set_num_threads(threads)
    model, dataset = row.build_model(), make_dataset(row)
    rate, original, peak = best_rates(
        [make_step(model, dataset, row.batch, row.precision),
         make_step(row.build_original(), dataset, row.original_batch, "fp32"),
         matrix_product(PRECISIONS[row.precision])], seconds)
    batches = endless_batches(dataset, row.batch)
    loading = 1 / best_rate(lambda: next(batches) is not None, seconds)
    return Result(row, rate, original, peak, flop_per_item(row, model), memory, loading)


def flop_per_item(row: Row, model: nn.Module) -> int:
    """The FLOP of training on a window or an image: forward, and twice as much backward."""
    c = row.config
    multiplications = (multiplications_per_window(c, row.targets) if isinstance(c, WaveNetConfig)
                       else count_unmasked_weights(model) * HEIGHT * WIDTH)
    return 3 * 2 * multiplications


def make_step(model: nn.Module, dataset: ImageCodes | Windows, batchsize: int, precision: str,
              device: torch.device = CPU) -> Callable[[], int]:
    """A function that trains `model` by one step and returns the number of items in the batch.

    Each step copies the batch to the device, as in a run.
    """
    if device.type == "cpu":
        allocator.keep_freed_memory()  # as training scripts do
    model.to(device)
    batch = load_full_batch(dataset, batchsize)
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=True), dataset,
                      batchsize=batchsize, seed=0, clip=1.0, stop=StopCondition(), unit="items",
                      device=device, samples=lambda batch: len(batch.codes),
                      precision=precision)

    def step() -> int:
        trainer.update(batch)
        return len(batch.codes)

    return step


def peak_memory(row: Row, threads: int) -> int:
    """Train the row's network in this process; return the peak resident memory in bytes."""
    torch.set_num_threads(threads)
    step = make_step(row.build_model(), make_dataset(row), row.batch, row.precision)
    for _ in range(WARM_UP_STEPS):
        step()
    return peak_resident_bytes()


def multiplications_per_window(config: WaveNetConfig, targets: int) -> int:
    """The multiplications for the logits of `targets` with whole receptive fields."""
    p, skip = config.hidden_dim, config.out_hidden_dim
    columns, total = targets + sum(config.dilations), 0
    for dilation in config.dilations:
        columns -= dilation
        total += columns * 5 * p * p + targets * p * skip  # 2 taps × 2 halves, 1 residual
    return total - targets * p * p + targets * skip * (skip + config.levels)


def table_row(result: Result) -> str:
    """A line of Markdown."""
    row, flops = result.row, result.flop * result.rate
    unit, digits = ("targets", ",.0f") if row.is_sound else ("images", ",.3g")
    return (f"| {row.name} | **{result.rate * row.targets:{digits}} {unit}** | "
            f"{result.original * row.targets:{digits}} | {result.rate / result.original:.1f} | "
            f"{flops / 1e9:,.0f} | {result.peak / 1e9:,.0f} | {flops / result.peak:.0%} | "
            f"{result.memory / 2 ** 20:,.0f} MiB |")


# ------------------------------------------------------------------------------ data

def make_dataset(row: Row) -> ImageCodes | Windows:
    """Random data for the row's network, in the data set classes of real runs."""
    random, c = np.random.default_rng(0), row.config
    if isinstance(c, PixelCNNConfig):
        pixels = random.integers(0, 256, (IMAGES, c.channels, HEIGHT, WIDTH), np.uint8)
        return ImageCodes(pixels, None, c.levels)
    with tempfile.TemporaryDirectory() as folder:  # the memory maps outlive it
        with CorpusWriter(folder, rate=8000, levels=c.levels, stacks_num=c.stacks_num,
                          layers_num=c.layers_num, target_length=row.targets, labels="none",
                          flush_every=10240) as writer:
            for i in range(RECORDINGS):
                codes = random.integers(0, c.levels, LENGTH)
                writer.add("train", str(i), None, [codes])
            writer.close()
        return Windows(Corpus(folder).train, row.targets, c.receptive_field, c.levels)


def load_full_batch(dataset: ImageCodes | Windows, size: int) -> Batch:
    """Load a batch; for sound without leading silence, because silence costs less to compute."""
    if isinstance(dataset, Windows):
        return dataset[dataset.ends[:size] - 1]  # the last window of each recording
    return dataset[range(size)]


def endless_batches(dataset: ImageCodes | Windows, size: int) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other, as a run reads them."""
    for epoch in count():
        yield from training_batches(dataset, size, seed=0, epoch=epoch)


if __name__ == "__main__":
    run_script(main)
