"""Threads that run one kernel side by side, and a barrier inside it.

    def work(thread, barrier):
        kernel(…, thread, threads, barrier)      # calls wait(barrier, threads) between its phases

    run_threads(work, threads)

Kernels are compiled without the GIL. Starting a thread takes as long as a small layer does, so a
kernel computes all layers of a network in one call, and waits at barriers between them.
"""

import sys
import threading
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.compiling import inlined

SPINS = 4000  # loads of the counter, some 20 microseconds, before a waiting thread yields its core


def run_threads(work: Callable[[int, np.ndarray], object], threads: int) -> None:
    """Call work(thread, barrier) for each thread, side by side; this thread is number 0.

    barrier: what `wait` takes. `work` must not raise: the others would wait for it forever.
    """
    barrier = np.zeros(1, np.int64)
    others = [threading.Thread(target=work, args=(number, barrier), daemon=True)
              for number in range(1, threads)]
    for other in others:
        other.start()
    work(0, barrier)
    for other in others:
        other.join()


@inlined
def wait(barrier, threads):
    """Wait until all threads have called this equally often.

    barrier: (1,), int64, the number of calls by all threads together.
    """
    if threads > 1:
        arrived = _count(barrier)
        target = (arrived + threads - 1) // threads * threads
        spins = 0
        while _read(barrier) < target:
            spins += 1
            if spins > SPINS:
                _yield_core()


@inlined
def share(begin, end, multiple, thread, threads):
    """The part of the range from `begin` to `end` for one of `threads`: (begin, end).

    Parts begin at multiples of `multiple` after `begin`, and are as equal as that allows.
    """
    pieces = (end - begin + multiple - 1) // multiple
    return (min(begin + pieces * thread // threads * multiple, end),
            min(begin + pieces * (thread + 1) // threads * multiple, end))


def _counter(context, builder, signature, args):
    return context.make_array(signature.args[0])(context, builder, args[0]).data


@intrinsic
def _count(context, barrier):
    """Add 1 to the counter; return its new value."""
    def generate(context, builder, signature, args):
        one = ir.IntType(64)(1)
        before = builder.atomic_rmw("add", _counter(context, builder, signature, args), one,
                                    "seq_cst")
        return builder.add(before, one)

    return types.int64(barrier), generate


@intrinsic
def _read(context, barrier):
    """The counter's value, and what other threads wrote before they added to it."""
    def generate(context, builder, signature, args):
        return builder.load_atomic(_counter(context, builder, signature, args), "acquire", 8)

    return types.int64(barrier), generate


@intrinsic
def _yield_core(context):
    """Let another thread of any process run, where the system has a call for it."""
    def generate(context, builder, signature, args):
        if sys.platform != "win32":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate
