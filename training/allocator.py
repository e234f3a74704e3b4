"""Keeps the memory that a training step frees for the next step.

The GNU C library returns blocks of more than 32 MiB to the system as soon as they are freed, such
as the logits of a batch at 256 levels. The next step asks for them again, and the system fills
each page with zeros first. That took a quarter of the time of a step.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # the numbers of mallopt's parameters in malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees. Does nothing with other C libraries."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS; TypeError: Windows
        return
    mallopt(M_MMAP_MAX, 0)  # take large blocks from the heap, too
    mallopt(M_TRIM_THRESHOLD, -1)  # never return the free end of the heap
