"""What becomes of the memory that a training step frees: it is kept for the next step.

The GNU C library hands blocks of more than 32 MiB back to the system as soon as they are freed, as
the logits of a batch at 256 levels are. The next step gets them anew, and the system fills each
page with zeros first. That was measured to take a quarter of the time.
"""

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # mallopt's numbers, of malloc.h


def keep_freed():
    """Let this process keep what it frees, for good; where another C library is, do nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS; TypeError: Windows
        return
    mallopt(MMAP_MAX, 0)  # no block apart from the others
    mallopt(TRIM_THRESHOLD, -1)  # never give back what is free at the end
