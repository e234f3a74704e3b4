"""The distribution of a code, and what the numbers of a network's last layer mean for it.

- `softmax`: a logit for each code, as in both papers. Codes are names: nothing says that code 127
  lies beside 128.
- `logistics`: a mixture of discretised logistic distributions. Codes are numbers, and the network
  gives weights, means and scales of a few components, however many levels there are.

Networks, likelihood, samplers and the compressor know a distribution by the methods of
`Distribution` only. A third one is another file here, and its name in this one; to be drawn from in
compiled loops it also needs a kernel in `sampling.compiled.distributions`.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import torch

from models.distributions.logistics import Logistics
from models.distributions.softmax import Softmax

Name = Literal["softmax", "logistics"]
MOST_MIXTURES = 2 ** 16


class Distribution(Protocol):
    """A distribution of codes in [0, levels)."""

    @property
    def levels(self) -> int:
        """How many codes there are."""

    @property
    def parameters(self) -> int:
        """How many numbers describe a code's distribution."""

    def initialize(self, weight: torch.Tensor, bias: torch.Tensor,
                   read_codes: Callable[[], torch.Tensor] | None = None) -> None:
        """Set the last layer's initial weights (C · parameters, …) and biases in place.

        A network calls it when it is built. A second call may have read_codes, which returns some
        of the data's codes (N,), for a beginning that fits them.
        """

    def shift(self, parameters: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """The parameters of distributions that lie further up by a distance (…), if codes are
        numbers: all of them span [-1, 1]. (…, parameters) -> (…, parameters)."""

    def nll(self, parameters: torch.Tensor, codes: torch.Tensor,
            reduction: str = "none") -> torch.Tensor:
        """The negative log-likelihood in nats of codes (N,), given parameters (N, parameters).

        Codes that are IGNORED count nothing. reduction: "none", "sum", or "mean" over the others.
        """

    def probabilities(self, parameters: torch.Tensor, first: int = 0,
                      end: int | None = None) -> torch.Tensor:
        """The probabilities of the codes `first` to `end` - 1, by default all: (…, parameters) ->
        (…, end - first), in the precision of the parameters."""

    def cumulative(self, parameters: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The probability of all codes up to each of `codes` (…), 1 for the last: (…), float64."""

    def sample(self, parameters: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0,
               top_p: float = 1.0) -> torch.Tensor:
        """Draw codes (B,), int64, given parameters (B, parameters) and uniforms (B,), float64.

        A code is the first whose cumulative probability exceeds its uniform number in [0, 1).
        temperature ≥ 0 and top_p in (0, 1] make the draw less random; 1 changes nothing.
        """


def check_distribution(name: str, mixtures: int) -> None:
    """Raise ValueError, which begins with the parameter's name, for an impossible distribution."""
    if name == "logistics" and mixtures < 1:
        raise ValueError(f"mixtures {mixtures}: the least is 1 with distribution {name}")
    if name == "softmax" and mixtures:
        raise ValueError(f"mixtures {mixtures}: goes with distribution logistics")


def output_distribution(name: str, levels: int, mixtures: int = 0) -> Distribution:
    """The distribution that a network's configuration names. mixtures: K, of logistics."""
    return Logistics(levels, mixtures) if name == "logistics" else Softmax(levels)


def nll(distribution: Distribution, parameters: torch.Tensor, codes: torch.Tensor,
        reduction: str = "none") -> torch.Tensor:
    """The negative log-likelihood in nats of codes (B, …), given parameters (B, parameters, …).

    reduction: as in `Distribution.nll`; "none" returns (B, …).
    """
    parameters = parameters.movedim(1, -1)
    # In the order of memory: each code's parameters are adjacent, and nothing is copied.
    order = sorted(range(codes.ndim), key=parameters.stride, reverse=True)
    codes = codes.permute(order)
    losses = distribution.nll(parameters.permute(*order, -1).flatten(0, -2), codes.flatten(),
                              reduction)
    if reduction != "none":
        return losses
    return losses.view(codes.shape).permute([order.index(n) for n in range(codes.ndim)])
