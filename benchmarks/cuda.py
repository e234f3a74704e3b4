"""How fast a GPU trains and samples, as tables for docs/speed.md.

    python benchmarks/cuda.py

The networks, batches and columns are those of `training.py`: ours in fp32, tf32 and bf16, in turns
with the original study's formulation, in fp32, and with torch's product of two matrices of
8,192 × 8,192 in the row's precision. Then what is drawn by the plain PyTorch sampler (Cached), of
the networks of `sampling.py`: the compiled ones are for the CPU. Memory is the most that torch has
allocated on the GPU.
"""

import argparse
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import torch
from tqdm import tqdm

from benchmarks import sampling as sampling_speed
from benchmarks import training as training_speed
from benchmarks.machine import CPU, best_rate, best_rates, matrix_product, peak_resident
from cli.arguments import device_number, positive_float
from cli.script import run_script
from common.errors import UserError
from models.pixelcnn import PixelCNN
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.random_streams import RandomStreams
from training.device import select_device, tf32

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-g", "--gpu", type=device_number, default=0, metavar="N",
                        help="CUDA device (default: 0)")
    parser.add_argument("--seconds", type=positive_float, default=2.0, metavar="S",
                        help="for each measurement, at least (default: 2)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="rows that have one of these in their name")
    return parser.parse_args()


def main():
    """Say which GPU it is, then measure row after row."""
    args = arguments()
    if args.gpu < 0 or not torch.cuda.is_available():
        raise UserError(f"--gpu {args.gpu}: this measures CUDA, of which there is none here; on a "
                        "CPU run benchmarks/training.py and benchmarks/sampling.py")
    device = select_device(args.gpu)
    print(described(device), flush=True)
    for line in tables(device, args.seconds, args.only):
        tqdm.write(line)


def described(device):
    """The GPU, its driver, and what torch was built with."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return (f"{torch.cuda.get_device_name(device)}, driver {driver}, torch {torch.__version__} "
            f"with CUDA {torch.version.cuda} and cuDNN {torch.backends.cudnn.version()}")


def tables(device, seconds, only=("",)):
    """Lines of Markdown, each as soon as it was measured. seconds: of a measurement, at least."""
    def chosen(rows):
        rows = [row for row in rows if any(text in row.name for text in only)]
        return tqdm(rows, disable=None, leave=False)

    yield ""
    yield "| network and batch | a second | original | × original | GFLOP/s | matrix product " \
          "| share | memory |\n|---|---|---|---|---|---|---|---|"
    for row in chosen(training_speed.rows(device, tuple(PRECISIONS))):
        yield training_speed.table_row(measure_training(row, device, seconds))
    yield ""
    yield "| network and task | a second | memory |\n|---|---|---|"
    for row in chosen(row for row in sampling_speed.rows(1) if row.precision == "fp32"):
        yield measure_sampling(row, device, seconds)


def measure_training(row, device, seconds):
    """The Result of a row of `training.py`."""
    reset_peak(device)
    model, dataset = row.network(), training_speed.dataset_of(row)
    ours = training_speed.steps(model, dataset, row.batch, row.precision, device)
    for _ in range(training_speed.STEPS):
        ours()
    memory = peak(device)
    product = matrix_product(PRECISIONS[row.precision], device)

    def product_in_its_precision():
        with tf32(row.precision == "tf32"):
            return product()

    rates = best_rates(
        [ours, training_speed.steps(row.original(), dataset, row.original_batch, "fp32", device),
         product_in_its_precision], seconds)
    return training_speed.Result(row, *rates, training_speed.flop_of_an_item(row, model), memory, 0)


def measure_sampling(row, device, seconds):
    """A line for a row of `sampling.py`; rates are of all sounds or images together."""
    reset_peak(device)
    streams = range(row.count)
    if isinstance(row.config, WaveNetConfig):
        model = WaveNet(row.config).eval().to(device)
        blocks = wavenet.sample_sounds(model, RandomStreams(0, streams), None,
                                       sampler=wavenet.CachedWaveNetSampler)
        rate = f"{best_rate(lambda: next(blocks).numel(), seconds):,.0f} samples"
    else:
        model, size = PixelCNN(row.config).eval().to(device), sampling_speed.HEIGHT
        images = best_rate(lambda: len(pixelcnn.sample_images(
            model, RandomStreams(0, streams), None, size, size,
            sampler=pixelcnn.CachedPixelCNNSampler)), seconds)
        rate = f"{images:,.3g} images ({row.count / images:.2f} s)"
    return f"| {row.name} | **{rate}** | {peak(device) / 2 ** 20:,.0f} MiB |"


def reset_peak(device):
    """Let `peak` be of what comes from now on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device):
    """The most bytes that were allocated on the device; on the CPU, that this process has held."""
    return peak_resident() if device == CPU else torch.cuda.max_memory_allocated(device)


if __name__ == "__main__":
    run_script(main)
