"""How many of the processor's cores a sampler uses."""

from contextlib import contextmanager

import torch

WORTHWHILE = 2 ** 21  # multiplications in a matrix product, from where on threads gain time


@contextmanager
def threads_for(width, batch):
    """One thread if the products, of (2 width, 2 width) by (2 width, batch), are small.

    A sampler's steps are many and short: threads would wait for one another more than they work,
    and on a busy machine nearly all of the time.
    """
    threads = torch.get_num_threads()
    if 4 * width ** 2 * batch < WORTHWHILE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
