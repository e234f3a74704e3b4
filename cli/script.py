"""How a script runs and ends. Does not import torch: --help is instant."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cli import streams
from common.errors import OutOfMemoryError, UserError
from common.text import printable
from training import distributed

# Parts of torch's messages: on the CPU, and by the CUDA driver, NCCL, cuBLAS and cuDNN.
OUT_OF_MEMORY_SIGNS = ("DefaultCPUAllocator", "CUDA error: out of memory", "'out of memory'",
                       "STATUS_ALLOC_FAILED")
MAX_PATH_LENGTH = 200  # characters of a path in a message


def run_script(main: Callable[[], int | None],
               memory_flags: str = "--batchsize, --hidden_dim or --count") -> None:
    """Run a script's `main` and exit as a command-line user expects.

    - A UserError, a path that can't be used, or a lack of memory: one line on stderr, and the exit
      code of the error.
    - Ctrl+C: exit code 130.
    - An output pipe that was closed early is no error.
    - A full disk behind standard output: the script does its work and exits with 2. Closed
      streams make no difference.
    - Any other exception is a bug and keeps its traceback.

    main: returns an exit code, or None for 0. memory_flags: those that need less memory when lower.
    """
    with streams.usable() as output:
        code = _exit_code(main, memory_flags)
        try:
            output.finish()
        except BrokenPipeError:
            pass
        except streams.OutputError as error:
            distributed.print_once_per_node(f"error: {error}")
            code = code or error.exit_code
    sys.exit(code)


def _exit_code(main: Callable[[], int | None], memory_flags: str) -> Any:
    """Run `main`, print the line for its error, and return the exit code."""
    try:
        with distributed.process_group(), _memory_errors_named(memory_flags):
            return main() or 0
    except UserError as error:
        distributed.print_once_per_node(f"error: {printable(error.line())}")
        return error.exit_code
    except KeyboardInterrupt:
        # Python waits for threads before it exits. A second Ctrl+C ends that silently.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        # Such as a name that is too long, a loop of links, or a folder without permission.
        path = printable(os.fsdecode(error.filename))[:MAX_PATH_LENGTH]
        distributed.print_once_per_node(f"error: {path}: {error.strerror}; give another path")
        return UserError.exit_code
    except SystemExit as end:
        return end.code or 0


@contextmanager
def _memory_errors_named(memory_flags: str) -> Iterator[None]:
    """Turn the memory errors of Python, numpy, torch and CUDA into an OutOfMemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        # torch has an exception of its own only for what it allocates on CUDA.
        if not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
                or any(sign in text for sign in OUT_OF_MEMORY_SIGNS)):
            raise
        raise OutOfMemoryError(f"out of memory{_requested_amount(text)}; ask for less at once, "
                               f"such as a lower {memory_flags}") from None


def _requested_amount(message: str) -> str:
    """The amount that an error's message says was not available, in words, or ""."""
    found = re.search(r"(?:tried|unable) to allocate ([\d.]+) (\w+)", message, re.IGNORECASE)
    if not found:
        return ""
    number, unit = found.groups()
    return (f", for {int(number) / 2 ** 30:,.2f} GiB more" if unit == "bytes" else
            f", for {number} {unit} more")
