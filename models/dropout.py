"""What dropout leaves in and out, drawn quickly on a CPU.

torch draws a random number of 64 bits for each feature, one after the other on a single thread: a
tenth of a training step of ours. Here such a number decides on four features.
"""

import torch

STEPS = 1 << 16  # to which the probability is rounded on a CPU: the values of a quarter of 64 bits


def dropout_mask(x, dropout):
    """Of x's shape, type and device: 0 with the probability `dropout` (0 to 1, without 1), else
    1 / (1 - dropout), that the mean of x times this be x's.
    """
    if x.device.type != "cpu":
        return torch.empty_like(x).bernoulli_(1 - dropout).div_(1 - dropout)
    kept = min(max(round((1 - dropout) * STEPS), 1), STEPS - 1)
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-2 ** 63, None)
    values = bits.view(torch.int16)[:x.numel()].view(x.shape)  # -STEPS / 2 to STEPS / 2 - 1
    return (values < kept - STEPS // 2).to(x.dtype).mul_(STEPS / kept)
