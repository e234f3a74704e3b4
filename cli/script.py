"""How a script runs and ends. Does not import torch: --help is instant."""

import os
import re
import signal
import sys
from contextlib import contextmanager

from cli import streams
from common.errors import OutOfMemoryError, UserError
from common.text import printable
from training import distributed

# In what torch raises: on the CPU; by the driver, NCCL, cuBLAS and cuDNN.
LACK_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "'out of memory'",
                  "STATUS_ALLOC_FAILED")
SHOWN = 200  # characters of a path in a message


def run_script(main, smaller="--batchsize, --hidden_dim or --count"):
    """Run a script's `main`, ending it as a command-line user expects.

    A UserError, or a path that can't be used, is one line on stderr and its exit code, and so is a
    lack of memory; Ctrl+C is 130;
    an output pipe closed early is no error. A script whose standard output is full does its work
    and ends with 2; one whose streams are closed ends as ever. What else is raised is a defect of
    ours and keeps its traceback. `smaller`: the flags that take less memory when lower.
    """
    with streams.usable() as output:
        code = _code_of(main, smaller)
        try:
            output.finish()
        except BrokenPipeError:
            pass
        except streams.OutputError as error:
            distributed.print_once_per_node(f"error: {error}")
            code = code or error.exit_code
    sys.exit(code)


def _code_of(main, smaller):
    """The exit code of a script's `main`, after the line on stderr that goes with it."""
    try:
        with distributed.process_group(), _lack_of_memory_told(smaller):
            return main() or 0
    except UserError as error:
        distributed.print_once_per_node(f"error: {printable(error.line())}")
        return error.exit_code
    except KeyboardInterrupt:
        # Threads are waited for. Who presses Ctrl+C once more ends that too, without a word.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        # A name that is too long, a loop of links, a folder that may not be entered.
        distributed.print_once_per_node(f"error: {printable(os.fsdecode(error.filename))[:SHOWN]}: "
                        f"{error.strerror}; give another path")
        return UserError.exit_code
    except SystemExit as end:
        return end.code or 0


@contextmanager
def _lack_of_memory_told(smaller):
    """In its context a lack of memory, of Python, numpy, torch or CUDA, is an OutOfMemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        # torch has an exception of its own for what it allocates on CUDA only.
        if not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
                or any(sign in text for sign in LACK_OF_MEMORY)):
            raise
        raise OutOfMemoryError(f"out of memory{_asked_for(text)}; ask for less at once, such as a "
                               f"lower {smaller}") from None


def _asked_for(text):
    """In words the amount that the text of an error says could not be had, if it does."""
    found = re.search(r"(?:tried|unable) to allocate ([\d.]+) (\w+)", text, re.IGNORECASE)
    if not found:
        return ""
    number, unit = found.groups()
    return (f", for {int(number) / 2 ** 30:,.2f} GiB more" if unit == "bytes" else
            f", for {number} {unit} more")
