"""Measure rates, memory and torch's matrix product for the speed benchmarks."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

CPU = torch.device("cpu")


def best_rate(work: Callable[[], float], seconds: float) -> float:
    """The highest rate per second over several measurements; `work` returns how much it did.

    Measures for `seconds` in all, at least twice; each measurement lasts at least a tenth of that.
    """
    return best_rates([work], seconds)[0]


def best_rates(works: Sequence[Callable[[], float]], seconds: float) -> list[float]:
    """`best_rate` of each of `works`, measured in turns so that disturbances hit all alike."""
    rates: list[list[float]] = []
    start = time.perf_counter()
    while len(rates) < 2 or time.perf_counter() - start < seconds * len(works):
        rates.append([_rate(work, seconds / 10) for work in works])
    return [max(column) for column in zip(*rates, strict=True)]


def _rate(work: Callable[[], float], seconds: float) -> float:
    amount, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        amount += work()
    return amount / (time.perf_counter() - start)


def matrix_product(dtype: torch.dtype = torch.float32,
                   device: torch.device = CPU) -> Callable[[], int]:
    """A function that multiplies two square matrices with torch and returns the FLOP.

    The matrices are 1,024 × 1,024 on the CPU and 8,192 × 8,192 on a GPU, to fill it.
    """
    size = 1024 if device.type == "cpu" else 8192
    a, b = torch.rand(2, size, size, device=device).to(dtype)
    out = torch.empty(size, size, dtype=dtype, device=device)

    def work() -> int:
        torch.mm(a, b, out=out)
        synchronize(device)
        return 2 * size ** 3

    return work


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_resident_bytes() -> int:
    """The peak resident memory of this process in bytes."""
    # Not getrusage: its ru_maxrss starts at the size of the parent process.
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak, "/proc/self/status has no VmHWM"
    return int(peak[1]) * 1024


def count_unmasked_weights(model: nn.Module) -> int:
    """The number of convolution weights that a PixelCNN multiplies for each pixel."""
    masks = ((module, getattr(module, "mask", None)) for module in model.modules()
             if isinstance(module, nn.Conv2d))
    return sum(module.weight.numel() if mask is None else int(mask.sum()) for module, mask in masks)
