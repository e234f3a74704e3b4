"""Measure how fast sound and images are drawn, relative to the limits of the machine.

    python benchmarks/sampling.py

prints a table. Each row draws from a network with fresh weights in three ways: with the compiled
sampler, with the plain PyTorch sampler that has the same caches (Cached), and by running the whole
network for every sample (Naive; for images the time of a few such runs times the number of
sub-pixels). One run measures everything, so the ratios hold on a noisy machine. The best of several
measurements counts.

The same run measures the yardsticks. For one sound: how often per second a compiled loop reads all
weights of the network on one core. (The compiled sampler reads some weights less than once per
sample, see `sampling.compiled.wavenet_kernels`.) For many sounds and for images: torch's product of
two 1,024 × 1,024 matrices. GFLOP/s counts one multiplication and one addition for each weight that
a sample (or a pixel) needs.

A second table has the same WaveNets with features, one frame for every FEATURES["hop"] samples, and
their speed as a share of the speed without features, measured in turns.

    python benchmarks/sampling.py --instructions avx2

measures what a processor without AVX-512 would run; see `instructions.py`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numba
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.formatting import format_count
from benchmarks.instructions import add_instructions_option, restart_with
from benchmarks.machine import best_rate, best_rates, count_unmasked_weights, matrix_product
from cli.arguments import positive_float, positive_int
from cli.script import run_script
from models.kernels.layout import aligned_zeros
from models.kernels.vectors import TILE, add, load, store
from models.model_file import model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
from sampling.compiled.wavenet import CompiledWaveNetSampler
from sampling.random_streams import RandomStreams

HEIGHT = WIDTH = 28
FEATURES: dict[str, Any] = dict(features=80, hop=100)  # as preprocess.py --features mel at 8 kHz
LENGTH = 80_000  # samples of a sound drawn with features
SCRIPT = Path(__file__).resolve().parents[1] / "infer_wavenet.py"


@dataclass
class Row:
    """A network and its task: draw `count` sounds or images on `threads` threads."""

    config: WaveNetConfig | PixelCNNConfig
    count: int
    threads: int
    precision: str = "fp32"

    @property
    def name(self) -> str:
        """The row's first cell."""
        c = self.config
        if isinstance(c, WaveNetConfig):
            network = f"WaveNet {c.hidden_dim} wide, {c.stacks_num}×{c.layers_num}"
            return f"{network}, {format_count(self.count, 'sound')}, {self.precision}"
        return (f"PixelCNN {c.hidden_dim} wide, {c.blocks_num} blocks, {c.levels} levels, "
                f"{format_count(self.count, 'image')} {HEIGHT}×{WIDTH}×{c.channels}")


def rows(threads: int) -> list[Row]:
    """The rows of the table; peers were measured at these sizes."""
    small, large = WaveNetConfig(), WaveNetConfig(hidden_dim=64, out_hidden_dim=64, stacks_num=4)
    digits, pictures = PixelCNNConfig(4, 3, 32, 32, 5), PixelCNNConfig(256, 3, 128, 16, 15)
    return [Row(small, 1, 1), Row(large, 1, 1), Row(small, 1, 1, "bf16"), Row(large, 1, 1, "bf16"),
            Row(small, 64, threads), Row(large, 64, threads),
            Row(digits, 100, threads), Row(digits, 1, 1), Row(pictures, 100, threads),
            Row(pictures, 1, 1)]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive_float, default=3.0, metavar="S",
                        help="minimum time of each measurement (default: 3)")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(),
                        metavar="N", help="for many sounds and images (default: torch's)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="measure only rows whose name contains one of these")
    add_instructions_option(parser)
    return parser.parse_args()


def main():
    """Measure the machine, then print row after row."""
    args = arguments()
    restart_with(args.instructions)
    peaks = {threads: matrix_product_peak(threads, args.seconds) for threads in {1, args.threads}}
    print("matrix product: " + ", ".join(
        f"{peak / 1e9:,.0f} GFLOP/s on {format_count(threads, 'thread')}"
        for threads, peak in sorted(peaks.items())))
    print(f"from the command to the first sample: {first_sample_seconds():.1f} s\n")
    print("| network and task | a second | × Cached | × Naive | GFLOP/s | weights | yardstick "
          "| share |\n|---|---|---|---|---|---|---|---|")
    selected = [row for row in rows(args.threads) if any(text in row.name for text in args.only)]
    for row in tqdm(selected, disable=None):
        measure = measure_sound if isinstance(row.config, WaveNetConfig) else measure_images
        tqdm.write(measure(row, args.seconds, peaks[row.threads]))
    print("\n| network and task, with features | a second | of the speed without | of Cached's |\n"
          "|---|---|---|---|")
    sounds = [row for row in selected if isinstance(row.config, WaveNetConfig)]
    for row in tqdm(sounds, disable=None):
        tqdm.write(measure_with_features(row, args.seconds))


# ------------------------------------------------------------------------------ the two networks

def measure_sound(row: Row, seconds: float, peak: float) -> str:
    """Measure a WaveNet: a table row with samples per second of all sounds together.

    peak: FLOP/s of the matrix product.
    """
    config = cast(WaveNetConfig, row.config)
    model = WaveNet(config).eval()
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    # A whole receptive field, because Naive does not compute the silence before a shorter prime.
    prime = torch.randint(config.levels, (row.count, config.receptive_field))

    def rate(sampler, threads):
        torch.set_num_threads(threads)
        blocks = wavenet.sample_sounds(model, RandomStreams(0, range(row.count)), None, prime=prime,
                                       precision=row.precision, sampler=sampler)
        next(blocks)
        return best_rate(lambda: next(blocks).numel(), seconds)

    compiled = rate(CompiledWaveNetSampler, row.threads)
    cached = max(rate(wavenet.CachedWaveNetSampler, threads) for threads in {1, row.threads})
    naive = rate(wavenet.NaiveWaveNetSampler, row.threads)
    size = weights * (4 if row.precision == "fp32" else 2)
    if row.count == 1:
        speed = read_bandwidth(size, seconds)
        yardstick, meaning = speed / size, f"reading weights at {speed / 1e9:.0f} GB/s"
    else:
        yardstick, meaning = peak / (2 * weights), "matrix product"
    return table_row(row.name, f"{compiled:,.0f} samples", compiled / cached, compiled / naive,
                     2 * weights * compiled, size, f"{yardstick:,.0f} ({meaning})",
                     compiled / yardstick)


def measure_with_features(row: Row, seconds: float) -> str:
    """Measure a WaveNet with features: a row of the second table."""
    config = cast(WaveNetConfig, row.config)
    plain = WaveNet(config).eval()
    conditioned = WaveNet(replace(config, **FEATURES)).eval()
    frames = torch.randn(row.count, LENGTH // FEATURES["hop"], FEATURES["features"])

    def blocks(model, sampler, frames):
        while True:
            yield from wavenet.sample_sounds(model, RandomStreams(0, range(row.count)), None,
                                             LENGTH, precision=row.precision, sampler=sampler,
                                             frames=frames)

    def rates(sampler):
        both = [blocks(plain, sampler, None), blocks(conditioned, sampler, frames)]
        for stream in both:
            next(stream)
        return best_rates([lambda stream=stream: next(stream).numel() for stream in both], seconds)

    torch.set_num_threads(row.threads)
    (before, after), (cached_before, cached_after) = map(
        rates, (CompiledWaveNetSampler, wavenet.CachedWaveNetSampler))
    return (f"| {row.name} | **{after:,.0f} samples** | {after / before:.0%} | "
            f"{cached_after / cached_before:.0%} |")


def measure_images(row: Row, seconds: float, peak: float) -> str:
    """Measure a PixelCNN: a table row with images per second. peak: as in `measure_sound`."""
    config = cast(PixelCNNConfig, row.config)
    model = PixelCNN(config).eval()
    weights = count_unmasked_weights(model)
    flop = 2 * weights * HEIGHT * WIDTH

    def rate(sampler, threads):
        torch.set_num_threads(threads)
        return best_rate(lambda: len(pixelcnn.sample_images(
            model, RandomStreams(0, range(row.count)), None, HEIGHT, WIDTH, sampler=sampler)),
            seconds)

    pixelcnn.sample_images(model, RandomStreams(0, [0]), None, 1, 1,
                           sampler=CompiledPixelCNNSampler)
    compiled = rate(CompiledPixelCNNSampler, row.threads)
    cached = max(rate(pixelcnn.CachedPixelCNNSampler, threads) for threads in {1, row.threads})
    torch.set_num_threads(row.threads)
    images = min(row.count, 8)  # the time is proportional to the number of images
    codes = torch.zeros(images, config.channels, HEIGHT, WIDTH, dtype=torch.long)
    with torch.inference_mode():
        runs = best_rate(lambda: model(codes) is not None, seconds)
    naive = runs * images / codes[0].numel()
    return table_row(row.name, f"{compiled:,.3g} images ({row.count / compiled:.2f} s)",
                     compiled / cached, compiled / naive, flop * compiled, 4 * weights,
                     f"{peak / flop:,.0f} (matrix product)", compiled * flop / peak)


def table_row(name: str, rate: str, to_cached: float, to_naive: float, flops: float, size: int,
              yardstick: str, share: float) -> str:
    """A line of Markdown."""
    return (f"| {name} | **{rate}** | {to_cached:,.1f} | {to_naive:,.0f} | {flops / 1e9:,.0f} | "
            f"{size / 1e6:.2f} MB | {yardstick} | {share:.0%} |")


# ------------------------------------------------------------------------------ the machine

def matrix_product_peak(threads: int, seconds: float) -> float:
    """The FLOP/s of torch's matrix product."""
    torch.set_num_threads(threads)
    return best_rate(matrix_product(), seconds)


SUMS = 4  # tiles of independent sums: 8 registers, so that no addition waits for another


@numba.njit
def _read_repeatedly(array, times, sums):
    a, b, c, d = load(sums, 0), load(sums, TILE), load(sums, 2 * TILE), load(sums, 3 * TILE)
    for _ in range(times):
        for i in range(0, array.size, SUMS * TILE):
            a, b = add(a, load(array, i)), add(b, load(array, i + TILE))
            c, d = add(c, load(array, i + 2 * TILE)), add(d, load(array, i + 3 * TILE))
    store(sums, 0, add(add(a, b), add(c, d)))


def read_bandwidth(size: int, seconds: float) -> float:
    """The bytes per second at which one core reads the same `size` bytes repeatedly."""
    array = aligned_zeros(size // 4 // (SUMS * TILE) * SUMS * TILE)
    sums = aligned_zeros(SUMS * TILE)
    times = max(1, int(2e8) // array.nbytes)

    def read() -> int:
        _read_repeatedly(array, times, sums)
        return times * array.nbytes

    read()
    return best_rate(read, seconds)


def first_sample_seconds() -> float:
    """The time from starting infer_wavenet.py to its first sample, with cached kernels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wavenet"
        save(path, model_content("wavenet", WaveNet(WaveNetConfig()), [],
                                 dict(levels=256, rate=16000)))
        command = [sys.executable, str(SCRIPT), "-m", str(path), "--length", "1", "--output", "-"]
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL) as process:
                assert process.stdout and len(process.stdout.read(2)) == 2, \
                    "infer_wavenet.py wrote no sample"
                seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    run_script(main)
