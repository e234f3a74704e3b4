"""How a script ends: which errors are one line, and with which exit code."""

import signal

import numpy as np
import pytest
import torch

import preprocess
import train_pixelcnn
from cli.script import run_script
from common.errors import DivergedError, UserError


@pytest.fixture(autouse=True)
def _ctrl_c_restored():
    """Which run_script leaves without a handler, for a script that is about to end."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def raising(error):
    """A script's main that raises it."""
    def main():
        raise error

    return main


@pytest.mark.parametrize("main, code, line", [
    (raising(UserError("--flag: is wrong; mend it")), 2, "error: --flag: is wrong; mend it"),
    (raising(DivergedError("iteration 7")), 3, "error: iteration 7"),
    (raising(KeyboardInterrupt()), 130, "stopped"),
    (lambda: None, 0, ""),
    (lambda: 143, 143, ""),
])
def test_a_script_ends_with_a_line_and_a_code(main, code, line, capfd):
    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert (end.value.code, capfd.readouterr().err.strip()) == (code, line)


@pytest.mark.parametrize("main, wanted", [
    (raising(MemoryError()), ""),
    (lambda: np.empty(2 ** 50, np.uint8), ", for 1.00 PiB more"),
    (lambda: torch.empty(2 ** 50, dtype=torch.uint8), ", for 1,048,576.00 GiB more"),
    (raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a "
                                    "total capacity of 79.10 GiB of which 12.00 GiB is free.")),
     ", for 20.00 GiB more"),
    (raising(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported "
                          "asynchronously at some other API call")), ""),
    (raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
                          "`cublasCreate(handle)`")), ""),
    (raising(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), ""),
    (raising(RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error\n"
                          "Last error:\nCuda failure 2 'out of memory'")), ""),
], ids=("python", "numpy", "torch", "cuda", "driver", "cublas", "cudnn", "nccl"))
def test_a_lack_of_memory_is_one_line(main, wanted, capfd):
    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == 1  # which --auto_restart takes up again
    line, = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: out of memory{wanted}; ask for less at once")


def test_a_lack_of_memory_names_flags_that_the_script_has(capfd, monkeypatch):
    monkeypatch.setattr(preprocess, "arguments", raising(MemoryError()))
    with pytest.raises(SystemExit):
        run_script(preprocess.main, preprocess.LESS_MEMORY)
    assert capfd.readouterr().err.endswith("such as a lower --workers\n")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ZeroDivisionError()])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)) as found:
        run_script(raising(error))
    assert found.value is error


def test_a_network_that_does_not_fit_is_one_line(world, call):
    code, _, err = call(train_pixelcnn, "--data", world / "data", "-d", 10 ** 6)
    assert code == 1 and err.startswith("error: out of memory, for ")
    assert "Traceback" not in err and len(err.splitlines()) == 1
