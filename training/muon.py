"""Muon: momentum whose every update is a nearly orthogonal matrix [1].

The gradient of a matrix is dominated by a few directions. Muon replaces the singular values of the
momentum by values near 1, so that an update learns all directions at once. Adam updates what is no
matrix, such as biases, and embeddings: Muon would repeat the last gradient of a row that few
batches use, at full strength, until the next batch that uses it.

Differences from `torch.optim.Muon`:

- Kernels of convolutions are matrices too: (out, in, rows, columns) counts as (out, in · rows ·
  columns).
- Matrices of the same shape are orthogonalised together. A WaveNet has hundreds of small ones, and
  one by one they cost more than half as much as the rest of a training step.
- The iteration runs in single precision, not in bfloat16, so that it is fast on every processor.

[1] Jordan et al., Muon: An optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon
"""

from collections.abc import Iterable
from typing import Any

import torch

MOMENTUM = 0.95
# Of the quintic iteration: an odd polynomial that brings every singular value in (0, 1] near 1.
COEFFICIENTS = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
# Adam's updates have about this root mean square, in units of the learning rate. Scaled to it,
# Muon's learn at similar learning rates [Liu et al., arXiv 2502.16982, section 2.2].
UPDATE_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for the matrices among `parameters`, Adam for the rest and for the `embeddings`.

    The state is that of one optimizer: a matrix has a `momentum_buffer`, any other parameter has
    Adam's state. weight_decay is decoupled and of matrices only: each step multiplies them by
    1 - lr · weight_decay. A long run at a high learning rate needs it. Muon's steps have one size
    whatever the gradient is, so without a decay the matrices grow and the gates saturate.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float,
                 weight_decay: float = 0.0,
                 embeddings: Iterable[torch.Tensor] = ()) -> None:
        # `fused` says where loaded counts of steps belong, as in Adam.
        super().__init__(parameters, dict(lr=lr, weight_decay=weight_decay, fused=True))
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        self._matrices: dict[tuple[int, int], list[torch.nn.Parameter]] = {}  # by their shape
        lookups = set(embeddings)
        rest: list[torch.nn.Parameter] = []
        for parameter in every:
            if parameter.ndim < 2 or parameter in lookups:
                rest.append(parameter)
            else:
                shape = len(parameter), parameter[0].numel()
                self._matrices.setdefault(shape, []).append(parameter)
        self._adam = torch.optim.Adam(rest, lr=lr, fused=True) if rest else None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the parameters that have a gradient. Returns what `closure()` returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        group = self.param_groups[0]
        lr, weight_decay = group["lr"], group["weight_decay"]
        for (rows, columns), matrices in self._matrices.items():
            learning: list[torch.Tensor] = [one for one in matrices if one.grad is not None]
            if learning:
                size = UPDATE_SIZE * max(rows, columns) ** 0.5
                updates = orthogonalize(self._momentum(learning))
                torch._foreach_mul_(learning, 1 - lr * weight_decay)
                torch._foreach_add_(learning, [update.view_as(matrix) for update, matrix in
                                               zip(updates, learning, strict=True)],
                                    alpha=-lr * size)
        if self._adam:
            self._adam.state = self.state  # which loading replaces
            self._adam.param_groups[0].update(lr=lr)
            self._adam.step()
        return loss

    def _momentum(self, matrices: list[torch.Tensor]) -> torch.Tensor:
        """Nesterov's momentum of matrices (…) of one shape, by their gradients: (N, rows, columns).
        """
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        for matrix, gradient in zip(matrices, gradients, strict=True):
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(gradient)
        buffers = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, buffers, MOMENTUM)
        return torch.stack([momentum.flatten(1) for momentum in ahead])


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Bring the singular values near 1: U S Vᵀ becomes about U Vᵀ, for each of (N, rows, columns).

    Newton and Schulz's iteration: products of matrices only. Singular values end between 0.7 and
    1.2, unless they are tiny beside the largest.
    """
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if matrices.shape[1] > matrices.shape[2] else x).contiguous()
