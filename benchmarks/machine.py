"""What the benchmarks of speed share: rates, torch's matrix product, the weights of a pixel."""

import time

import torch
from torch import nn


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


def matrix_product(dtype=torch.float32):
    """Work to measure: torch's product of two matrices of 1,024 × 1,024, which returns its FLOP."""
    a, b = torch.rand(2, 1024, 1024).to(dtype)
    out = torch.empty(1024, 1024, dtype=dtype)
    return lambda: 2 * torch.mm(a, b, out=out).shape[0] * 1024 ** 2


def weights_of_a_pixel(model):
    """How many weights of a PixelCNN every pixel is computed with: those that no mask hides."""
    return sum(module.weight.numel() if getattr(module, "mask", None) is None
               else int(module.mask.sum()) for module in model.modules()
               if isinstance(module, nn.Conv2d))
