"""A softmax over codes: a logit for each, as in both papers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

IGNORED = -100  # a target that does not count: torch's `ignore_index`, as in datasets.batches


@dataclass(frozen=True)
class Softmax:
    """A logit for each code."""

    levels: int

    @property
    def parameters(self) -> int:
        """How many numbers describe a code's distribution."""
        return self.levels

    def initialize(self, weight: torch.Tensor, bias: torch.Tensor,
                   read_codes: Callable[[], torch.Tensor] | None = None) -> None:
        """Leave torch's initial values: all codes about equally likely."""

    def shift(self, parameters: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """Raise TypeError: the codes are names."""
        raise TypeError("a softmax can't be shifted")

    def nll(self, parameters: torch.Tensor, codes: torch.Tensor,
            reduction: str = "none") -> torch.Tensor:
        """See `Distribution.nll`."""
        return F.cross_entropy(parameters, codes, ignore_index=IGNORED, reduction=reduction)

    def probabilities(self, parameters: torch.Tensor, first: int = 0,
                      end: int | None = None) -> torch.Tensor:
        """See `Distribution.probabilities`."""
        return parameters.softmax(dim=-1)[..., first:end]

    def cumulative(self, parameters: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """See `Distribution.cumulative`."""
        sums = parameters.double().softmax(dim=-1).cumsum(dim=-1)
        shape = torch.broadcast_shapes(sums.shape[:-1], codes.shape)
        at_codes = sums.expand(*shape, -1).gather(-1, codes.expand(shape)[..., None].long())[..., 0]
        return torch.where(codes == self.levels - 1, 1.0, at_codes)

    def sample(self, parameters: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0,
               top_p: float = 1.0) -> torch.Tensor:
        """See `Distribution.sample`."""
        return sample_categorical(parameters, uniforms, temperature, top_p)


def sample_categorical(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0,
                       top_p: float = 1.0) -> torch.Tensor:
    """Sample a code per row by inverting the cumulative distribution function.

    The code is the first whose cumulative probability exceeds u. Computes in double precision, so
    that the sum over 65,536 levels is exact enough. Never returns a code of probability 0.

    Args:
        logits: (B, levels).
        uniforms: (B,), u in [0, 1), float64.
        temperature: divides the logits; 0 is the limit, the most probable code.
        top_p: in (0, 1]; below 1, sample only among the most probable codes that together have this
            probability, and the codes as probable as the last of them.

    Returns (B,), int64.
    """
    if temperature == 0:
        return logits.argmax(dim=1)
    logits = logits.double()
    # Unnormalised. The highest logit becomes 0 before the division, because a low temperature could
    # overflow.
    probs = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).exp_()
    if top_p < 1:
        descending = probs.sort(dim=1, descending=True).values
        sums = descending.cumsum(dim=1)
        last = (sums < top_p * sums[:, -1:]).sum(dim=1, keepdim=True)
        probs = probs * (probs >= descending.gather(1, last))
    cumulative = probs.cumsum(dim=1)
    total = cumulative[:, -1:]
    # u < 1, but u · total may round up to the total, which no code exceeds.
    threshold = torch.minimum(uniforms[:, None] * total, total * (1 - 2 ** -52))
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]
