"""How the weights are moved: the optimizer, its learning rate's course, and their average."""

import math

import torch
from torch.optim.swa_utils import AveragedModel

WARM_UP = 0.01  # the part of a run in which a learning rate rises to its height
STEPS = (0.6, 0.85)  # the parts of a run after each of which "step" divides it by 10
MOMENTUM = 0.9


def optimizer_of(name, parameters, learning_rate, weight_decay):
    """The optimizer adam, sgd (with momentum) or rmsprop; weight_decay is an L2 penalty."""
    settings = dict(lr=learning_rate, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(parameters, **settings, fused=True)
    if name == "sgd":
        return torch.optim.SGD(parameters, **settings, momentum=MOMENTUM)
    return torch.optim.RMSprop(parameters, **settings, momentum=MOMENTUM)


def learning_rate_factor(schedule, done):
    """What the learning rate is multiplied by once the part `done`, in [0, 1], of a run is done.

    "constant": 1. "cosine" and "step" rise from 0 to 1 over the first hundredth; then the one
    falls along half a cosine to 0, and the other stays, but for two divisions by 10.
    """
    if schedule == "constant":
        return 1.0
    rise = min(1.0, done / WARM_UP)
    if schedule == "cosine":
        return rise * (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return rise * 0.1 ** sum(done >= step for step in STEPS)


def average_of(model, decay):
    """An exponential moving average of the model's weights, `decay` of it kept at each update.

    A short memory at first: `decay` is at most (1 + n) / (10 + n) at update n, lest the initial
    weights stay in the average for long.
    """
    @torch.no_grad()
    def update(averages, weights, n):
        kept = min(decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(averages, weights, 1 - kept)

    return AveragedModel(model, multi_avg_fn=update)
