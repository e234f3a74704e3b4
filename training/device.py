"""Which device --gpu means, what a device computes fast, and how exactly."""

import warnings
from contextlib import contextmanager

import torch

from common.errors import UserError
from training import distributed


def device_of(gpu):
    """The torch device for --gpu: -1 is the CPU, N the CUDA device N.

    Of several processes on a machine the first has device N, the second N + 1, and so on.
    On a machine without CUDA the CPU is taken instead, and that is said.

    From then on this process computes on CUDA as on the CPU: in full single precision unless `tf32`
    allows less, and the same again for the same input.
    Raises UserError for a device that is not there, or can't be used.
    """
    if gpu < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        distributed.print_once_per_node(f"--gpu {gpu}: no CUDA on this machine, running on the CPU")
        return torch.device("cpu")
    asked, gpu = gpu, distributed.local_device(gpu)
    if gpu >= torch.cuda.device_count():
        each = "" if gpu == asked else f", of processes that have devices {asked}, {asked + 1}, …"
        raise UserError(f"--gpu {gpu}{each}: there is no such device, this machine has 0 to "
                        f"{torch.cuda.device_count() - 1}; choose one, or -1 for the CPU")
    device = torch.device("cuda", gpu)
    try:
        torch.cuda.set_device(gpu)  # what copies data for it asks for the current one
        torch.zeros(1, device=device).item()  # another program may have it, or all of its memory
    except RuntimeError as error:
        raise UserError(f"--gpu {gpu}: can't be used ({str(error).strip().splitlines()[0]}); "
                        "choose another, or -1 for the CPU") from None
    torch.backends.cudnn.deterministic = True
    _allow_tf32(False, False)  # torch's default is to allow it for convolutions
    return device


@contextmanager
def tf32(allowed):
    """In its context CUDA may, or may not, compute products and convolutions of fp32 in tf32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _allow_tf32(allowed, allowed)
    try:
        yield
    finally:
        _allow_tf32(*before)


def _allow_tf32(products, convolutions):
    with warnings.catch_warnings():  # torch 2.9 advises a newer way, which 2.4 does not have
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions


def precision_on(device, precision):
    """The --precision of matrix products on the device: fp32 where bf16 would only be slower.

    A processor without instructions for it (on x86: without AVX-512) was measured to multiply
    matrices 70 times slower in bf16. GPUs have both bf16 and tf32 from NVIDIA's compute capability
    8.0 on (Ampere). That fp32 is taken elsewhere is said.
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


def _is_before_ampere(device):
    """Whether a GPU of NVIDIA's is of a generation without bf16 and tf32."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0)


def _has_bf16():
    """Whether PyTorch's matrix products on the CPU have kernels for bf16 on this processor."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
