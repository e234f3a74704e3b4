"""The device that --gpu selects, and the precisions that a device supports."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.errors import UserError
from training import distributed


def select_device(gpu: int) -> torch.device:
    """Return the torch device for --gpu: -1 is the CPU, N the CUDA device N.

    With several processes on a machine the first gets device N, the second N + 1, and so on.
    On a machine without CUDA it returns the CPU, and prints a line about it.

    After this call CUDA computes deterministically and, unless `tf32` allows less, in full single
    precision, as the CPU does.
    Raises UserError for a device that does not exist or can't be used.
    """
    if gpu < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        distributed.print_once_per_node(f"--gpu {gpu}: no CUDA on this machine, running on the CPU")
        return torch.device("cpu")
    first, gpu = gpu, distributed.local_device(gpu)
    if gpu >= torch.cuda.device_count():
        each = ("" if gpu == first else
                f", of processes that have devices {first}, {first + 1}, …")
        raise UserError(f"--gpu {gpu}{each}: there is no such device, this machine has 0 to "
                        f"{torch.cuda.device_count() - 1}; choose one, or -1 for the CPU")
    device = torch.device("cuda", gpu)
    try:
        torch.cuda.set_device(gpu)  # threads that pin memory use the current device
        torch.zeros(1, device=device).item()  # fails if another program has it or its memory
    except RuntimeError as error:
        raise UserError(f"--gpu {gpu}: can't be used ({str(error).strip().splitlines()[0]}); "
                        "choose another, or -1 for the CPU") from None
    torch.backends.cudnn.deterministic = True
    _allow_tf32(False, False)  # torch allows it for convolutions by default
    return device


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """In its context CUDA may, or may not, compute fp32 products and convolutions in tf32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _allow_tf32(allowed, allowed)
    try:
        yield
    finally:
        _allow_tf32(*before)


def _allow_tf32(products: bool, convolutions: bool) -> None:
    with warnings.catch_warnings():  # torch 2.9 warns of a newer interface, which 2.4 lacks
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions


def supported_precision(device: torch.device, precision: str) -> str:
    """Return `precision`, or fp32 on a device without instructions for it; then print a line.

    A processor without bf16 instructions (on x86: without AVX-512) multiplied matrices 70 times
    slower in bf16. NVIDIA GPUs have bf16 and tf32 from compute capability 8.0 (Ampere).
    """
    if device.type == "cpu" and precision == "bf16" and not _has_bf16():
        distributed.print_once_per_node(
            "--precision bf16: this processor has no instructions for it, training in fp32, which "
            "is faster here")
        return "fp32"
    if device.type == "cuda" and precision != "fp32" and _is_before_ampere(device):
        distributed.print_once_per_node(
            f"--precision {precision}: this GPU has no instructions for it, training in fp32")
        return "fp32"
    return precision


def _is_before_ampere(device: torch.device) -> bool:
    """Whether it is an NVIDIA GPU of a generation without bf16 and tf32."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0)


def _has_bf16() -> bool:
    """Whether PyTorch has bf16 kernels for matrix products on this processor."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
