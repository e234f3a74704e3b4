"""How fast sound and images are drawn, and how that compares with what the machine can do.

    python benchmarks/sampling.py

prints a table. Each row is a network of fresh weights, drawn from by the compiled sampler, by the
plain PyTorch one that keeps the same caches (Cached), and by running the whole network for every
sample (Naive; for images the time of a few such runs, times the number of sub-pixels). All in one
run, so that on a noisy machine the ratios hold; the best of several measurements counts.

The yardsticks are measured in the same run. One sound at a time: how often in a second a plain
compiled loop reads all of the network's weights, on one core. (The compiled sampler reads a part of
them less than once a sample: see `sampling.compiled.wavenet_kernels`.) Many at once, and images:
torch's product of two matrices of 1,024 x 1,024. GFLOP/s counts a multiplication and an addition
for each weight that a sample (or a pixel) needs.

A second table has the same networks of sound with features, a frame for every FEATURES.hop samples,
and what part of their speed without is left, measured in turns.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import numba
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.figures import number
from benchmarks.machine import best_rate, best_rates, matrix_product, weights_of_a_pixel
from cli.arguments import positive_float, positive_int
from cli.script import run_script
from models.kernels.vectors import TILE, add, load, store
from models.model_file import model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
from sampling.compiled.wavenet import CompiledWaveNetSampler
from sampling.random_streams import RandomStreams

HEIGHT = WIDTH = 28
FEATURES = dict(features=80, hop=100)  # those of preprocess.py --features mel, at 8 kHz
LENGTH = 80_000  # samples of a sound that is drawn by them
SCRIPT = Path(__file__).resolve().parents[1] / "infer_wavenet.py"


@dataclass
class Row:
    """A network and how it is drawn from: `count` sounds or images on `threads` threads."""

    config: WaveNetConfig | PixelCNNConfig
    count: int
    threads: int
    precision: str = "fp32"

    @property
    def name(self):
        """The row's first cell."""
        c = self.config
        if isinstance(c, WaveNetConfig):
            of = f"WaveNet {c.hidden_dim} wide, {c.stacks_num}×{c.layers_num}"
            return f"{of}, {number(self.count, 'sound')}, {self.precision}"
        return (f"PixelCNN {c.hidden_dim} wide, {c.blocks_num} blocks, {c.levels} levels, "
                f"{number(self.count, 'image')} {HEIGHT}×{WIDTH}×{c.channels}")


def rows(threads):
    """The rows of the table, whose sizes are those that others were measured at."""
    small, large = WaveNetConfig(), WaveNetConfig(hidden_dim=64, out_hidden_dim=64, stacks_num=4)
    digits, pictures = PixelCNNConfig(4, 3, 32, 32, 5), PixelCNNConfig(256, 3, 128, 16, 15)
    return [Row(small, 1, 1), Row(large, 1, 1), Row(small, 1, 1, "bf16"), Row(large, 1, 1, "bf16"),
            Row(small, 64, threads), Row(large, 64, threads),
            Row(digits, 100, threads), Row(digits, 1, 1), Row(pictures, 100, threads),
            Row(pictures, 1, 1)]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive_float, default=3.0, metavar="S",
                        help="for each measurement, at least (default: 3)")
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads(),
                        metavar="N", help="for many at once (default: torch's)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="rows that have one of these in their name")
    return parser.parse_args()


def main():
    """Measure the machine, then row after row."""
    args = arguments()
    peaks = {threads: matrix_product_peak(threads, args.seconds) for threads in {1, args.threads}}
    print("matrix product: " + ", ".join(
        f"{peak / 1e9:,.0f} GFLOP/s on {number(threads, 'thread')}"
        for threads, peak in sorted(peaks.items())))
    print(f"from the command to the first sample: {first_sample_seconds():.1f} s\n")
    print("| network and task | a second | × Cached | × Naive | GFLOP/s | weights | yardstick "
          "| share |\n|---|---|---|---|---|---|---|---|")
    chosen = [row for row in rows(args.threads) if any(text in row.name for text in args.only)]
    for row in tqdm(chosen, disable=None):
        measure = measure_sound if isinstance(row.config, WaveNetConfig) else measure_images
        tqdm.write(measure(row, args.seconds, peaks[row.threads]))
    print("\n| network and task, with features | a second | of the speed without | of Cached's |\n"
          "|---|---|---|---|")
    for row in tqdm([row for row in chosen if isinstance(row.config, WaveNetConfig)], disable=None):
        tqdm.write(measure_with_features(row, args.seconds))


# ------------------------------------------------------------------------------ the two networks

def measure_sound(row, seconds, peak):
    """One row of the table for a WaveNet; rates are samples a second of all sounds together."""
    model = WaveNet(row.config).eval()
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    # A whole field, since Naive need not compute the silence that stands before a shorter past.
    prime = torch.randint(row.config.levels, (row.count, row.config.receptive_field))

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
        yardstick, of_what = speed / size, f"reading weights at {speed / 1e9:.0f} GB/s"
    else:
        yardstick, of_what = peak / (2 * weights), "matrix product"
    return table_row(row.name, f"{compiled:,.0f} samples", compiled / cached, compiled / naive,
                     2 * weights * compiled, size, f"{yardstick:,.0f} ({of_what})",
                     compiled / yardstick)


def measure_with_features(row, seconds):
    """One row of the second table."""
    plain, conditioned = (WaveNet(config).eval()
                          for config in (row.config, replace(row.config, **FEATURES)))
    frames = torch.randn(row.count, LENGTH // FEATURES["hop"], FEATURES["features"])

    def blocks(model, sampler, frames):
        while True:
            yield from wavenet.sample_sounds(model, RandomStreams(0, range(row.count)), None,
                                             LENGTH, precision=row.precision, sampler=sampler,
                                             frames=frames)

    def rates(sampler):
        both = [blocks(plain, sampler, None), blocks(conditioned, sampler, frames)]
        for one in both:
            next(one)
        return best_rates([lambda one=one: next(one).numel() for one in both], seconds)

    torch.set_num_threads(row.threads)
    (before, after), (cached_before, cached_after) = map(
        rates, (CompiledWaveNetSampler, wavenet.CachedWaveNetSampler))
    return (f"| {row.name} | **{after:,.0f} samples** | {after / before:.0%} | "
            f"{cached_after / cached_before:.0%} |")


def measure_images(row, seconds, peak):
    """One row of the table for a PixelCNN; rates are images a second."""
    model = PixelCNN(row.config).eval()
    weights = weights_of_a_pixel(model)
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
    images = min(row.count, 8)  # of more the network takes proportionally longer
    codes = torch.zeros(images, row.config.channels, HEIGHT, WIDTH, dtype=torch.long)
    with torch.inference_mode():
        runs = best_rate(lambda: model(codes) is not None, seconds)
    naive = runs * images / codes[0].numel()
    return table_row(row.name, f"{compiled:,.3g} images ({row.count / compiled:.2f} s)",
                     compiled / cached, compiled / naive, flop * compiled, 4 * weights,
                     f"{peak / flop:,.0f} (matrix product)", compiled * flop / peak)


def table_row(name, rate, to_cached, to_naive, flops, size, yardstick, share):
    """A line of Markdown."""
    return (f"| {name} | **{rate}** | {to_cached:,.1f} | {to_naive:,.0f} | {flops / 1e9:,.0f} | "
            f"{size / 1e6:.2f} MB | {yardstick} | {share:.0%} |")


# ------------------------------------------------------------------------------ the machine

def matrix_product_peak(threads, seconds):
    """FLOP/s of torch's matrix product."""
    torch.set_num_threads(threads)
    return best_rate(matrix_product(), seconds)


@numba.njit
def _read(array, times, sums):
    total = load(sums, 0)
    for _ in range(times):
        for i in range(0, array.size, TILE):
            total = add(total, load(array, i))
    store(sums, 0, total)


def read_bandwidth(size, seconds):
    """Bytes a second at which one core reads `size` bytes, time after time."""
    array, sums = np.zeros(size // 4 // TILE * TILE, np.float32), np.zeros(TILE, np.float32)
    times = max(1, int(2e8) // array.nbytes)

    def read():
        _read(array, times, sums)
        return times * array.nbytes

    read()
    return best_rate(read, seconds)


def first_sample_seconds():
    """From typing infer_wavenet.py to the first sample at a player, the kernels compiled before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wavenet"
        save(path, model_content("wavenet", WaveNet(WaveNetConfig()), [],
                                 dict(levels=256, rate=16000)))
        command = [sys.executable, SCRIPT, "-m", path, "--length", "1", "--output", "-"]
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL) as process:
                assert len(process.stdout.read(2)) == 2, "infer_wavenet.py wrote no sample"
                seconds.append(time.perf_counter() - began)
    return min(seconds)


if __name__ == "__main__":
    run_script(main)
