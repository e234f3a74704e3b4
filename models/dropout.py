"""Dropout masks, drawn quickly on a CPU.

torch draws a 64-bit random number for each feature, sequentially on one thread. That takes a tenth
of a training step. Here one 64-bit number decides about four features.
"""

import torch

PROBABILITY_STEPS = 1 << 16  # resolution of the probability on a CPU: the values of 16 bits


def dropout_mask(x: torch.Tensor, dropout: float) -> torch.Tensor:
    """A random mask: 0 with probability `dropout`, else 1 / (1 - dropout).

    The mean of x times the mask is x's. On a CPU the probability is rounded to a multiple of
    1 / PROBABILITY_STEPS, but never to 0 or 1.

    Args:
        x: the features to mask, of any shape, type and device; only these matter.
        dropout: in [0, 1).

    Returns a tensor like x.
    """
    if x.device.type != "cpu":
        return torch.empty_like(x).bernoulli_(1 - dropout).div_(1 - dropout)
    kept = min(max(round((1 - dropout) * PROBABILITY_STEPS), 1), PROBABILITY_STEPS - 1)
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-2 ** 63, None)
    values = bits.view(torch.int16)[:x.numel()].view(x.shape)  # from -STEPS / 2 to STEPS / 2 - 1
    return (values < kept - PROBABILITY_STEPS // 2).to(x.dtype).mul_(PROBABILITY_STEPS / kept)
