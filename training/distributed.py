"""Training in several processes, started by torchrun. Nothing else knows of processes and ranks.

    torchrun --nproc_per_node=2 train_wavenet.py …

Each process computes a shard of every batch, DistributedDataParallel averages the gradients, and
all processes take the same step: the result is that of one process. The main process writes all
files. Without torchrun there is one process, and these functions do nothing.

Imports torch only where it is needed: --help is instant.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from common.errors import UserError
from common.text import printable

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SECONDS_TO_REPORT = 2  # for the local main process to print an error first
# The least values of numbers in the environment.
_LEAST = {"WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0,
          "TORCHELASTIC_RESTART_COUNT": 0, "TRAINING_RESTARTS": 0}
TIMEOUT = timedelta(minutes=10)  # for a process that is alive but does not answer


class LostProcessError(UserError):
    """Another process of the run is gone. Exit code 1."""

    exit_code = 1


def world_size() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main_process() -> bool:
    """Whether this process is the one that writes files and reports."""
    return _number("RANK") == 0


def is_local_main_process() -> bool:
    """Whether this process is the first on its machine, the one that reports errors there."""
    return _number("LOCAL_RANK") == 0


def is_bar_disabled() -> bool | None:
    """The argument `disable` of tqdm: None (disable without a terminal) in the main process."""
    return None if is_main_process() else True


def local_device(first: int) -> int:
    """The CUDA device of this process, where the local main process has device `first`."""
    return first + _number("LOCAL_RANK")


def rank_seed(*numbers: int) -> int:
    """A seed that differs between processes, and between different `numbers`."""
    return int(np.random.SeedSequence((*numbers, _number("RANK"))).generate_state(1, np.uint64)[0])


def _number(name: str) -> int:
    return int(os.environ.get(name, 0))


def print_once_per_node(text: str) -> None:
    """Print a line on stderr once per machine, or in each process if ranks are unknown."""
    if contradiction() or is_local_main_process():
        print(text, file=sys.stderr)


def contradiction() -> str | None:
    """What is wrong with the environment variables that torchrun sets, or None."""
    numbers: dict[str, int] = {}
    for name, least in _LEAST.items():
        text = os.environ.get(name)
        if text is None:
            continue
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            return f"{name}={text} in the environment is no whole number from {least} up"
        numbers[name] = int(text)
    world = numbers.get("WORLD_SIZE", 1)
    local_world = numbers.get("LOCAL_WORLD_SIZE", world)
    for name, limit_name, limit in (("RANK", "WORLD_SIZE", world),
                                    ("LOCAL_RANK", "WORLD_SIZE", world),
                                    ("LOCAL_RANK", "LOCAL_WORLD_SIZE", local_world)):
        if numbers.get(name, 0) >= limit:
            return f"{name}={numbers[name]} in the environment is not below {limit_name}={limit}"
    if local_world > world:
        return (f"LOCAL_WORLD_SIZE={local_world} in the environment is more than "
                f"WORLD_SIZE={world}")
    port = os.environ.get("MASTER_PORT")  # other programs use the name, too: check only if needed
    if world > 1 and port and not (port.isascii() and port.isdecimal() and int(port) < 2 ** 16):
        return f"MASTER_PORT={port} in the environment is no port"
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if world > 1 and not os.environ.get(name):
            return f"WORLD_SIZE={world} in the environment, but no {name}"
    return None


def shard(indices: np.ndarray) -> np.ndarray:
    """This process's share of a batch's indices; empty if there are fewer than processes."""
    return np.array_split(indices, world_size())[_number("RANK")]


@contextmanager
def process_group() -> Iterator[None]:
    """In its context the processes of a run can reach each other.

    Raises UserError if the environment contradicts itself, LostProcessError if a process is gone.
    """
    problem = contradiction()
    if problem:
        raise UserError(f"{problem}; start with torchrun, or unset the variable")
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
            # The store outlives a restart: a prefix hides the entries of processes that are gone.
            # (Agents that meet by c10d may count restarts differently: there the store must not be
            # shared, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.)
            store = distributed.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT,
            store=store, rank=rank, world_size=count)
        yield
        distributed.barrier()
        distributed.destroy_process_group()
    except UserError as error:
        if not is_local_main_process():
            # torchrun ends all processes as soon as one ends. A process that is still here after
            # a while is the only one that met this error.
            time.sleep(SECONDS_TO_REPORT)
            print(f"error: {printable(error.line())}", file=sys.stderr)
        raise
    except RuntimeError as error:
        text = str(error).strip()
        if not (isinstance(error, distributed.DistError) or "gloo" in text.lower()):
            raise
        lost = LostProcessError(f"another process of this run has ended or can't be reached "
                                f"({text.splitlines()[0]}); go on with --resume auto")
        if not is_local_main_process():  # the local main process may be the lost one
            print(f"error: {printable(lost)}", file=sys.stderr)
        raise lost from None


def data_parallel(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Wrap `model` so that its backward pass averages the gradients over all processes."""
    if world_size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel
    devices = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():  # later versions rename the argument
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, devices, broadcast_buffers=False)  # they are constant


def all_reduce_sum(*numbers: float) -> list[float]:
    """The sum of each of the numbers over all processes."""
    if world_size() == 1:
        return list(numbers)
    import torch
    from torch import distributed
    sums = torch.tensor(numbers, dtype=torch.float64)
    distributed.all_reduce(sums)
    return sums.tolist()


def broadcast_from_main(make: Callable[[], T]) -> T:
    """Call `make` in the main process, and return its result in every process."""
    if world_size() == 1:
        return make()
    import torch
    from torch import distributed
    made: list[Any] = [make() if is_main_process() else None]
    distributed.broadcast_object_list(made, src=0, device=torch.device("cpu"))
    return made[0]


@contextmanager
def local_main_first() -> Iterator[None]:
    """Let the local main process run the context first: the others find what it downloaded."""
    if not is_local_main_process():
        barrier()
    yield
    if is_local_main_process():
        barrier()


def barrier() -> None:
    """Wait until every process has called this."""
    if world_size() > 1:
        from torch import distributed
        distributed.barrier()
