"""Measure how fast a GPU trains and samples, as tables for docs/speed.md.

    python benchmarks/cuda.py

The first table has the networks, batches and columns of `training.py`. Ours runs in fp32, tf32 and
bf16, in turns with the original study's formulation in fp32 and with torch's product of two
8,192 × 8,192 matrices in the row's precision. The second table has the networks of `sampling.py`,
drawn by the plain PyTorch sampler (Cached); the compiled samplers run on the CPU only. Memory is
the peak that torch has allocated on the GPU.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import torch
from tqdm import tqdm

from benchmarks import sampling as sampling_speed
from benchmarks import training as training_speed
from benchmarks.machine import CPU, best_rate, best_rates, matrix_product, peak_resident_bytes
from cli.arguments import device_number, positive_float
from cli.script import run_script
from common.errors import UserError
from models.pixelcnn import PixelCNN
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.random_streams import RandomStreams
from training.device import select_device, tf32

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-g", "--gpu", type=device_number, default=0, metavar="N",
                        help="CUDA device (default: 0)")
    parser.add_argument("--seconds", type=positive_float, default=2.0, metavar="S",
                        help="minimum time of each measurement (default: 2)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="measure only rows whose name contains one of these")
    return parser.parse_args()


def main():
    """Print the GPU, then measure row after row."""
    args = arguments()
    if args.gpu < 0 or not torch.cuda.is_available():
        raise UserError(f"--gpu {args.gpu}: there is no CUDA device here; measure a CPU with "
                        "benchmarks/training.py and benchmarks/sampling.py")
    device = select_device(args.gpu)
    print(describe_device(device), flush=True)
    for line in tables(device, args.seconds, args.only):
        tqdm.write(line)


def describe_device(device: torch.device) -> str:
    """The GPU, its driver, and the CUDA and cuDNN versions of torch."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return (f"{torch.cuda.get_device_name(device)}, driver {driver}, torch {torch.__version__} "
            f"with CUDA {torch.version.cuda} and cuDNN {torch.backends.cudnn.version()}")


def tables(device: torch.device, seconds: float, only: Sequence[str] = ("",)) -> Iterator[str]:
    """Yield lines of Markdown, each as soon as it is measured.

    seconds: the minimum time of a measurement. only: texts; a row's name contains one of them.
    """
    def select(rows):
        rows = [row for row in rows if any(text in row.name for text in only)]
        return tqdm(rows, disable=None, leave=False)

    yield ""
    yield "| network and batch | a second | original | × original | GFLOP/s | matrix product " \
          "| share | memory |\n|---|---|---|---|---|---|---|---|"
    for row in select(training_speed.rows(device, tuple(PRECISIONS))):
        yield training_speed.table_row(measure_training(row, device, seconds))
    yield ""
    yield "| network and task | a second | memory |\n|---|---|---|"
    for row in select(row for row in sampling_speed.rows(1) if row.precision == "fp32"):
        yield measure_sampling(row, device, seconds)


def measure_training(row: training_speed.Row, device: torch.device,
                     seconds: float) -> training_speed.Result:
    """Measure a row of `training.py`."""
    reset_peak(device)
    model, dataset = row.build_model(), training_speed.make_dataset(row)
    ours = training_speed.make_step(model, dataset, row.batch, row.precision, device)
    for _ in range(training_speed.WARM_UP_STEPS):
        ours()
    memory = peak_bytes(device)
    product = matrix_product(PRECISIONS[row.precision], device)

    def product_in_precision():
        with tf32(row.precision == "tf32"):
            return product()

    rate, original, product_peak = best_rates(
        [ours,
         training_speed.make_step(row.build_original(), dataset, row.original_batch, "fp32",
                                  device),
         product_in_precision], seconds)
    flop = training_speed.flop_per_item(row, model)
    return training_speed.Result(row, rate, original, product_peak, flop, memory, loading=0)


def measure_sampling(row: sampling_speed.Row, device: torch.device, seconds: float) -> str:
    """Measure a row of `sampling.py`; the rate counts all sounds or images together."""
    reset_peak(device)
    streams = range(row.count)
    if isinstance(row.config, WaveNetConfig):
        blocks = wavenet.sample_sounds(WaveNet(row.config).eval().to(device),
                                       RandomStreams(0, streams), None,
                                       sampler=wavenet.CachedWaveNetSampler)
        rate = f"{best_rate(lambda: next(blocks).numel(), seconds):,.0f} samples"
    else:
        model, size = PixelCNN(row.config).eval().to(device), sampling_speed.HEIGHT
        images = best_rate(lambda: len(pixelcnn.sample_images(
            model, RandomStreams(0, streams), None, size, size,
            sampler=pixelcnn.CachedPixelCNNSampler)), seconds)
        rate = f"{images:,.3g} images ({row.count / images:.2f} s)"
    return f"| {row.name} | **{rate}** | {peak_bytes(device) / 2 ** 20:,.0f} MiB |"


def reset_peak(device: torch.device) -> None:
    """Start a new peak for `peak_bytes` on a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The peak memory allocated since `reset_peak`; on the CPU, resident of this process."""
    return peak_resident_bytes() if device == CPU else torch.cuda.max_memory_allocated(device)


if __name__ == "__main__":
    run_script(main)
