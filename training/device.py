"""Which device --gpu means, and what a device computes fast."""

import torch

from datasets.errors import UserError
from training import distributed


def device_of(gpu):
    """The torch device for --gpu: -1 is the CPU, N the CUDA device N.

    Of several processes on a machine the first has device N, the second N + 1, and so on.
    On a machine without CUDA the CPU is taken instead, and that is said; a device that is not
    among those there is an error.
    """
    if gpu < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        distributed.say(f"--gpu {gpu}: no CUDA on this machine, running on the CPU")
        return torch.device("cpu")
    gpu = distributed.device_here(gpu)
    if gpu >= torch.cuda.device_count():
        raise UserError(f"--gpu {gpu}: there is no such device, this machine has 0 to "
                        f"{torch.cuda.device_count() - 1}; choose one, or -1 for the CPU")
    torch.cuda.set_device(gpu)  # what copies data for it asks for the current one
    return torch.device("cuda", gpu)


def precision_on(device, precision):
    """The --precision of matrix products on the device: fp32 where bf16 would only be slower.

    A processor without instructions for it (on x86: without AVX-512) was measured to multiply
    matrices 70 times slower in bf16. That fp32 is taken there is said.
    """
    if device.type == "cpu" and precision == "bf16" and not _has_bf16():
        distributed.say("--precision bf16: this processor has no instructions for it, training in "
                        "fp32, which is faster here")
        return "fp32"
    return precision


def _has_bf16():
    """Whether PyTorch's matrix products on the CPU have kernels for bf16 on this processor."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
