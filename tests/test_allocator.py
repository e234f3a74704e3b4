"""Training on the CPU reuses the memory that it has freed."""

import platform
import subprocess
import sys

import pytest

from training import allocator

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc",
                                reason="of the GNU C library")

# A round takes a block that is larger than the library would keep. Most rounds count, not each: a
# small block may have been put into the free space before.
ROUNDS = """
import resource, statistics, sys
import torch
from training import allocator, run
from training.settings import RunSettings

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 << 20).add_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{prepare}
print(statistics.median(faults() for _ in range(9)) * resource.getpagesize() / 2**20)
"""
STARTED = """
run.start(RunSettings(out=sys.argv[1]), "pixelcnn")
"""


def mebibytes_got_anew(prepare, *args):
    """How much most rounds of a process get from the system."""
    run = subprocess.run([sys.executable, "-c", ROUNDS.format(prepare=prepare), *args],
                         capture_output=True, text=True, check=True)
    return float(run.stdout)


def test_a_plain_process_gets_large_blocks_from_the_system():
    assert mebibytes_got_anew("") > 60


def test_a_process_that_keeps_freed_memory_does_not():
    assert mebibytes_got_anew("allocator.keep_freed_memory()") < 1


def test_a_training_run_does_not(tmp_path):
    assert mebibytes_got_anew(STARTED, str(tmp_path / "run")) < 1


def test_without_the_gnu_library_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    allocator.keep_freed_memory()
