"""Threads that run a kernel side by side: parts of a range, and the barrier between phases."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from models.kernels.threads import run_threads, share, wait


@numba.njit(nogil=True)
def part(begin, end, multiple, thread, threads):
    return share(begin, end, multiple, thread, threads)


@numba.njit(nogil=True)
def neighbours_of_neighbours(numbers, rounds, thread, threads, barrier):
    """In each round, each thread's number becomes the sum of it and the next thread's."""
    for i in range(rounds):
        before, after = i % 2, 1 - i % 2
        numbers[after, thread] = numbers[before, thread] + numbers[before, (thread + 1) % threads]
        wait(barrier, threads)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("begin, end, multiple", [(0, 0, 4), (3, 4, 4), (5, 100, 6), (0, 12, 6),
                                                  (10, 5000, 96)])
def test_parts_cover_a_range_once_and_are_as_equal_as_multiples_allow(begin, end, multiple,
                                                                      threads):
    parts = [part(begin, end, multiple, thread, threads) for thread in range(threads)]
    assert [number for a, b in parts for number in range(a, b)] == list(range(begin, end))
    assert all((a - begin) % multiple == 0 for a, b in parts if a < b)
    sizes = [b - a for a, b in parts]
    assert max(sizes) - min(sizes) <= 2 * multiple


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_barrier_lets_no_thread_read_what_another_has_yet_to_write(threads):
    numbers, rounds = np.zeros((2, threads), np.int64), 30
    numbers[0] = np.arange(threads)
    expected = numbers[0].copy()
    for _ in range(rounds):
        expected = expected + np.roll(expected, -1)
    run_threads(lambda thread, barrier: neighbours_of_neighbours(
        numbers, rounds, thread, threads, barrier), threads)
    assert numbers[rounds % 2].tolist() == expected.tolist()


@pytest.mark.parametrize("arguments, before, expected", [
    ([], None, "2000"), (["--precision", "bf16"], None, None), ([], "7", "7")])
def test_torch_spins_briefly_unless_it_computes_the_layers_or_the_user_decides(arguments, before,
                                                                               expected):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if before:
        environment["GOMP_SPINCOUNT"] = before
    code = ("import sys; assert 'torch' not in sys.modules; import cli.arguments, os; "
            "print(os.environ.get('GOMP_SPINCOUNT'))")
    run = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, text=True,
                         capture_output=True, check=True, cwd=Path(__file__).resolve().parents[1])
    assert run.stdout.strip() == str(expected)
