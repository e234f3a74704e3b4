"""What the benchmarks of speed share: rates, torch's matrix product, the weights of a pixel."""

import re
import time
from pathlib import Path

import torch
from torch import nn

CPU = torch.device("cpu")


def best_rate(work, seconds):
    """The highest of the rates at which `work`, which returns how much it did, was done.

    A measurement lasts a tenth of `seconds` or longer; of two at the least.
    """
    return best_rates([work], seconds)[0]


def best_rates(works, seconds):
    """The same of each of `works`, measured in turns: what disturbs one disturbs all of them."""
    rates, begin = [], time.perf_counter()
    while len(rates) < 2 or time.perf_counter() - begin < seconds * len(works):
        rates.append([_rate(work, seconds / 10) for work in works])
    return [max(of_one) for of_one in zip(*rates, strict=True)]


def _rate(work, seconds):
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += work()
    return done / (time.perf_counter() - began)


def matrix_product(dtype=torch.float32, device=CPU):
    """Work to measure: torch's product of two square matrices, which returns its FLOP.

    Of 1,024 × 1,024; on a GPU, which that would not fill, of 8,192 × 8,192.
    """
    size = 1024 if device.type == "cpu" else 8192
    a, b = torch.rand(2, size, size, device=device).to(dtype)
    out = torch.empty(size, size, dtype=dtype, device=device)

    def work():
        torch.mm(a, b, out=out)
        wait_for(device)
        return 2 * size ** 3

    return work


def wait_for(device):
    """Return once the device has computed what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_resident():
    """The most bytes that this process has held in the machine's memory."""
    # Not getrusage, whose ru_maxrss begins at the size of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def weights_of_a_pixel(model):
    """How many weights of a PixelCNN every pixel is computed with: those that no mask hides."""
    return sum(module.weight.numel() if getattr(module, "mask", None) is None
               else int(module.mask.sum()) for module in model.modules()
               if isinstance(module, nn.Conv2d))
