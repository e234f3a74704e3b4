"""The likelihood under mixtures of logistics in a compiled pass, for single precision on a CPU.

`models.kernels.logistic_likelihood` has the pass; here are its threads and autograd. Losses and
gradients are those of `models.distributions.logistics`, computed in double precision.
"""

from functools import cache

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from models.kernels.layout import flat
from models.kernels.logistic_likelihood import BLOCK, BUFFERS, code_losses
from models.kernels.logistic_likelihood import cache as kernel_cache
from models.kernels.threads import run_threads

LEAST_CODES = 500  # of a thread: fewer take no longer than starting one


def run_compiled(parameters: torch.Tensor, codes: torch.Tensor, levels: int, mixtures: int,
                 log_scale_bounds: tuple[float, float]) -> torch.Tensor:
    """-ln p of codes (N,), given parameters (N, 3K): (N,). Negative codes have no loss."""
    _prepare()
    return _CodeLosses.apply(parameters, codes, levels, mixtures, log_scale_bounds)


class _CodeLosses(torch.autograd.Function):

    @staticmethod
    def forward(ctx, parameters, codes, levels, mixtures, bounds):
        parameters, codes = parameters.contiguous(), codes.contiguous()
        count, needs_grad = len(codes), ctx.needs_input_grad[0]
        losses = parameters.new_empty(count)
        gradient = parameters.new_empty(parameters.shape if needs_grad else 0)
        arrays = flat(losses), flat(gradient)
        threads = max(min(torch.get_num_threads(), count // LEAST_CODES), 1)
        scratch = np.empty((threads, BUFFERS, BLOCK * mixtures))
        ends = [count * thread // threads for thread in range(threads + 1)]

        def work(thread, barrier):
            code_losses(flat(parameters), flat(codes), levels, mixtures, *bounds, ends[thread],
                        ends[thread + 1], scratch[thread], *arrays)

        run_threads(work, threads)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_losses):
        gradient, = ctx.saved_tensors
        return gradient * grad_losses[:, None], None, None, None, None


@cache
def _prepare() -> None:
    """Compile or load the kernel."""
    def call() -> None:
        _CodeLosses.apply(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), 2, 1, (-1.0, 1.0))

    kernel_cache.prepare("likelihood of logistics", call)
