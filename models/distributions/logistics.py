"""A mixture of discretised logistic distributions: PixelCNN++ [1], section 2.1.

Code c lies at x = 2c / (levels - 1) - 1, from -1 to 1. Its probability is the mixture's mass
between its borders, half a step below and above x; the outer borders of the lowest and the highest
code are open. So the number of the network's outputs does not grow with the levels, and the network
learns from 127 what it needs to know of 128.

PixelCNN++'s coefficients between R, G and B are not used: here the network's masks order the
sub-pixels, and each has a mixture of its own.

[1] Salimans et al., PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood
    and Other Modifications, arXiv 1701.05517.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from models import compiled
from models.code_numbers import code_positions
from models.distributions.softmax import IGNORED

# A component is at least a tenth as wide as half a code: it can give a code all but 1e-4 of its
# mass, and a code far from all components has a likelihood whose gradient still leads somewhere.
NARROWEST = 0.1
WIDEST = 1e3  # 500 times the range of all codes
TINY = 1e-300
MOST_FITTED = 100_000  # codes that initial components are fitted to


@dataclass(frozen=True)
class Logistics:
    """A mixture of `mixtures` = K discretised logistic distributions.

    The 3K parameters of a code are the logits of the components' weights, their means, and the
    logarithms of their scales, both in units of x, in which all codes span [-1, 1]. Scales are
    clamped: below to NARROWEST half steps, above to WIDEST.

    Temperature T acts on the components as on a softmax: it divides the logits of their weights. It
    multiplies their scales. At 0 it leaves the mean of the component with the highest weight,
    rounded to a code.
    top_p keeps the middle part of the mixture that has this probability: it leaves out the lowest
    and the highest (1 - top_p) / 2 of the cumulative probability.
    """

    levels: int
    mixtures: int

    @property
    def parameters(self) -> int:
        """How many numbers describe a code's distribution."""
        return 3 * self.mixtures

    def initialize(self, weight: torch.Tensor, bias: torch.Tensor,
                   read_codes: Callable[[], torch.Tensor] | None = None) -> None:
        """Spread the components over the range, with more of them where the data's codes are.

        The mixture then gives every code a probability of at least about half of a uniform
        distribution's. The weights of the means are in proportion to the scales, so that the first
        updates move no component away from its codes.
        """
        codes = read_codes() if read_codes else None
        means, scales = self._initial_components(codes)
        with torch.no_grad():
            weights, biases = (part.view(-1, 3, self.mixtures, *part.shape[1:])
                               for part in (weight, bias))
            biases[:, 0] = 0
            biases[:, 1] = means.to(bias)
            biases[:, 2] = scales.log().to(bias)
            factor = scales if codes is None else scales / self._initial_components(None)[1]
            weights[:, 1] *= factor.to(weight).view(-1, *[1] * (weight.ndim - 1))

    def _initial_components(self, codes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and scales (K,) that divide half of the data and half of the range evenly."""
        k = self.mixtures
        if codes is not None:
            codes = codes[::max(len(codes) // MOST_FITTED, 1)]
        count = 1000 if codes is None else len(codes)
        x = torch.linspace(-1, 1, count, dtype=torch.float64)
        if codes is not None:
            x = torch.cat((x, code_positions(codes.cpu(), self.levels, torch.float64)))
        places = torch.arange(2 * k + 1, dtype=torch.float64) / (2 * k)
        quantiles = torch.quantile(x, places)
        widths = (quantiles[2::2] - quantiles[:-1:2]).clamp(min=2 / (self.levels - 1))
        return quantiles[1::2], widths / 4

    def shift(self, parameters: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """See `Distribution.shift`."""
        logits, means, log_scales = parameters.split(self.mixtures, dim=-1)
        return torch.cat((logits, means + distance[..., None], log_scales), dim=-1)

    def nll(self, parameters: torch.Tensor, codes: torch.Tensor,
            reduction: str = "none") -> torch.Tensor:
        """See `Distribution.nll`."""
        counted, parameters = codes != IGNORED, _at_least_single(parameters)
        if compiled.suits(parameters):
            from models.compiled_logistics import run_compiled  # which imports numba
            losses = run_compiled(parameters, codes, self.levels, self.mixtures,
                                  self.log_scale_bounds)
        else:
            losses = -self._log_probabilities(parameters, codes.clamp(min=0))
            losses = torch.where(counted, losses, 0)
        if reduction == "none":
            return losses
        return losses.sum() if reduction == "sum" else losses.sum() / counted.sum()

    def _log_probabilities(self, parameters: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """ln p of codes (…), given parameters (…, 3K)."""
        logits, means, log_scales = self._components(parameters)
        masses = log_masses(means, log_scales, codes, self.levels)
        return torch.logsumexp(logits.log_softmax(dim=-1) + masses, dim=-1)

    def _components(self, parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, means and clamped log-scales, (…, K) each, in single precision or higher."""
        parameters = _at_least_single(parameters)
        logits, means, log_scales = parameters.unflatten(-1, (3, self.mixtures)).unbind(-2)
        return logits, means, log_scales.clamp(*self.log_scale_bounds)

    @property
    def log_scale_bounds(self) -> tuple[float, float]:
        """The lowest and the highest logarithm of a scale."""
        return math.log(NARROWEST / (self.levels - 1)), math.log(WIDEST)

    def probabilities(self, parameters: torch.Tensor, first: int = 0,
                      end: int | None = None) -> torch.Tensor:
        """See `Distribution.probabilities`."""
        codes = torch.arange(first, self.levels if end is None else end, device=parameters.device)
        return self._log_probabilities(parameters[..., None, :], codes).exp()

    def cumulative(self, parameters: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """See `Distribution.cumulative`."""
        logits, means, log_scales = self._components(parameters.double())
        below = self._below(logits.softmax(dim=-1), means, log_scales.exp(), codes)
        return torch.where(codes == self.levels - 1, 1.0, below)

    def _below(self, weights: torch.Tensor, means: torch.Tensor, scales: torch.Tensor,
               codes: torch.Tensor) -> torch.Tensor:
        """The mixture's mass below the upper borders of codes (…); weights and so on (…, K)."""
        border = (2 * codes.double() + 1) / (self.levels - 1) - 1
        return (weights / (1 + ((means - border[..., None]) / scales).exp())).sum(dim=-1)

    def sample(self, parameters: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0,
               top_p: float = 1.0) -> torch.Tensor:
        """By bisection in double precision: the logarithm of `levels` to the base 2 steps."""
        logits, means, log_scales = self._components(parameters.double())
        if temperature == 0:
            mean = means.gather(1, logits.argmax(dim=1, keepdim=True))[:, 0]
            return ((mean + 1) * ((self.levels - 1) / 2)).clamp(0, self.levels - 1).round().long()
        weights = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).exp()
        weights = weights / weights.sum(dim=1, keepdim=True)
        scales = (log_scales.exp() * temperature).clamp(min=TINY)
        uniforms = uniforms * top_p + (1 - top_p) / 2
        low = torch.zeros_like(uniforms, dtype=torch.long)
        high = torch.full_like(low, self.levels - 1)
        for _ in range((self.levels - 1).bit_length()):
            middle = (low + high) // 2  # where low is high already, it stays
            enough = self._below(weights, means, scales, middle) > uniforms
            low = torch.where(enough, low, torch.minimum(middle + 1, high))
            high = torch.where(enough, middle, high)
        return low


def log_masses(means: torch.Tensor, log_scales: torch.Tensor, codes: torch.Tensor,
               levels: int) -> torch.Tensor:
    """ln of each logistic's mass between the borders of codes (…): (…, K).

    means, log_scales: (…, K). With the borders a > b in units of the scale, from the mean,

        σ(a) - σ(b) = σ(a) · σ(-b) · (1 - e^(b - a)),

    whose logarithms lose no digits, however small the mass is.
    """
    position = code_positions(codes, levels, means.dtype)[..., None]
    inverse = (-log_scales).exp()
    distance, half = (position - means) * inverse, inverse / (levels - 1)
    is_lowest, is_highest = (codes == 0)[..., None], (codes == levels - 1)[..., None]
    upper = torch.where(is_highest, 0, F.logsigmoid(distance + half))
    lower = torch.where(is_lowest, 0, F.logsigmoid(half - distance))
    between = torch.where(is_lowest | is_highest, 0, (-torch.expm1(-2 * half)).log())
    return upper + lower + between


def _at_least_single(parameters: torch.Tensor) -> torch.Tensor:
    """The parameters in single precision, or higher where they are."""
    is_half = parameters.dtype in (torch.bfloat16, torch.float16)
    return parameters.float() if is_half else parameters
