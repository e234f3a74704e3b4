"""The numbers that a WaveNet reads for a code whose distribution is a mixture of logistics.

An embedding of 65,536 levels would learn each level from its own few samples. Numbers let the
network know from the start which codes are neighbours. Each lies in [-1, 1]:

- x = 2c / (levels - 1) - 1, the position of code c in its range, as the distribution counts it;
- sign(x) ln(1 + mu |x|) / ln(1 + mu) for each mu in MUS. In x, all of a quiet sound lies close to
  0; these tell its samples apart, down to one code of 16 bits.
"""

import math

import torch

MUS = 255.0, 65535.0
NUMBERS = 1 + len(MUS)


def code_positions(codes: torch.Tensor, levels: int, dtype: torch.dtype) -> torch.Tensor:
    """The positions x of codes (…) in [-1, 1], of a float dtype."""
    return codes.to(dtype) * (2 / (levels - 1)) - 1


def code_numbers(codes: torch.Tensor, levels: int, dtype: torch.dtype) -> torch.Tensor:
    """The numbers for each of the codes (…): (…, NUMBERS), of a float dtype."""
    x = code_positions(codes, levels, dtype)
    magnitude = x.abs()
    companded = [torch.copysign((mu * magnitude).log1p() / math.log1p(mu), x) for mu in MUS]
    return torch.stack((x, *companded), dim=-1)
