"""Which device --gpu means."""

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
