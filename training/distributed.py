"""The one place that knows of processes and ranks: a run on many, as torchrun starts it.

    torchrun --nproc_per_node=2 train_wavenet.py …

A batch is shared out between the processes, DistributedDataParallel brings their gradients
together, and every process makes the same step: so many do what one does. The first of them writes
all files. Without torchrun there is one process, and nothing here does anything.

Does not import torch before it is needed: --help is instant.
"""

import os
import sys
import time
import warnings
from contextlib import contextmanager
from datetime import timedelta

import numpy as np

from common.errors import UserError
from common.text import printable

SECONDS_TO_SPEAK = 2  # for the first process to say what is wrong
# What the numbers in the environment are at least.
_LEAST = {"WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0,
          "TORCHELASTIC_RESTART_COUNT": 0, "TRAINING_RESTARTS": 0}
TIMEOUT = timedelta(minutes=10)  # for a process that is there but does not answer


class LostProcessError(UserError):
    """Another process of the run is gone. Exit code 1."""

    exit_code = 1


def world_size():
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main_process():
    """Whether this process is the one that writes files and reports."""
    return _number("RANK") == 0


def is_local_main_process():
    """Whether it is the first on its machine: the one that says what is wrong there."""
    return _number("LOCAL_RANK") == 0


def is_bar_disabled():
    """What tqdm is to be told as `disable`: None, to look for a terminal, in the first process."""
    return None if is_main_process() else True


def local_device(first):
    """The CUDA device of this process, `first` being that of the first on this machine."""
    return first + _number("LOCAL_RANK")


def rank_seed(*numbers):
    """A seed that is another one for each process and for other `numbers`."""
    return int(np.random.SeedSequence((*numbers, _number("RANK"))).generate_state(1, np.uint64)[0])


def _number(name):
    return int(os.environ.get(name, 0))


def print_once_per_node(text):
    """Print a line on stderr, once on each machine, or by each process that can't tell its rank."""
    if contradiction() or is_local_main_process():
        print(text, file=sys.stderr)


def contradiction():
    """What is wrong with the environment that torchrun sets, naming the variable; or None."""
    numbers = {}
    for name, least in _LEAST.items():
        text = os.environ.get(name)
        if text is None:
            continue
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            return f"{name}={text} in the environment is no whole number from {least} up"
        numbers[name] = int(text)
    world = numbers.get("WORLD_SIZE", 1)
    on_a_machine = numbers.get("LOCAL_WORLD_SIZE", world)
    for name, of, most in (("RANK", "WORLD_SIZE", world), ("LOCAL_RANK", "WORLD_SIZE", world),
                           ("LOCAL_RANK", "LOCAL_WORLD_SIZE", on_a_machine)):
        if numbers.get(name, 0) >= most:
            return f"{name}={numbers[name]} in the environment is not below {of}={most}"
    if on_a_machine > world:
        return (f"LOCAL_WORLD_SIZE={on_a_machine} in the environment is more than "
                f"WORLD_SIZE={world}")
    port = os.environ.get("MASTER_PORT")  # which other programs use for other things
    if world > 1 and port and not (port.isascii() and port.isdecimal() and int(port) < 2 ** 16):
        return f"MASTER_PORT={port} in the environment is no port"
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if world > 1 and not os.environ.get(name):
            return f"WORLD_SIZE={world} in the environment, but no {name}"
    return None


def shard(indices):
    """This process's share of a batch's indices; there may be fewer than there are processes."""
    return np.array_split(indices, world_size())[_number("RANK")]


@contextmanager
def process_group():
    """In its context the processes of a run can reach each other.

    Raises UserError if the environment contradicts itself, LostProcessError if one of them is gone.
    """
    wrong = contradiction()
    if wrong:
        raise UserError(f"{wrong}; start with torchrun, or unset the variable")
    if world_size() == 1:
        yield
        return
    import torch
    from torch import distributed
    if not is_main_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end of the process
    try:
        store, rank, count = next(distributed.rendezvous("env://", timeout=TIMEOUT))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # The store outlives a restart: what was in it before is of processes that are gone.
            # (Agents that meet by c10d may count restarts differently: there it must not be shared,
            # TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.)
            store = distributed.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT,
            store=store, rank=rank, world_size=count)
        yield
        distributed.barrier()
        distributed.destroy_process_group()
    except UserError as error:
        if not is_local_main_process():
            # torchrun ends all as soon as one has: who is still there alone knows of this error.
            time.sleep(SECONDS_TO_SPEAK)
            print(f"error: {printable(error.line())}", file=sys.stderr)
        raise
    except RuntimeError as error:
        text = str(error).strip()
        if not (isinstance(error, distributed.DistError) or "gloo" in text.lower()):
            raise
        lost = LostProcessError(f"another process of this run has ended or can't be reached "
                                f"({text.splitlines()[0]}); go on with --resume auto")
        if not is_local_main_process():  # which may be the one that is lost
            print(f"error: {printable(lost)}", file=sys.stderr)
        raise lost from None


def data_parallel(model, device):
    """`model` such that its backward pass leaves the mean of all processes' gradients."""
    if world_size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():  # that later versions call the argument otherwise
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, devices, broadcast_buffers=False)  # all constant


def all_reduce_sum(*numbers):
    """The sum of each of the numbers over all processes: a list."""
    if world_size() == 1:
        return list(numbers)
    import torch
    sums = torch.tensor(numbers, dtype=torch.float64)
    torch.distributed.all_reduce(sums)
    return sums.tolist()


def broadcast_from_main(make):
    """What `make()` returns in the first process, in every process."""
    if world_size() == 1:
        return make()
    import torch
    made = [make() if is_main_process() else None]
    torch.distributed.broadcast_object_list(made, src=0, device=torch.device("cpu"))
    return made[0]


@contextmanager
def local_main_first():
    """In its context the first process of a machine is alone: the others find what it downloads."""
    if not is_local_main_process():
        barrier()
    yield
    if is_local_main_process():
        barrier()


def barrier():
    """Return once every process has come here."""
    if world_size() > 1:
        import torch
        torch.distributed.barrier()
