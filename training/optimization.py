"""The optimizer, its learning rate schedule, and the moving average of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from common.errors import UserError
from training.muon import Muon

WARM_UP = 0.01  # the fraction of a run in which the learning rate rises
STEPS = (0.6, 0.85)  # the fractions of a run after which "step" divides the learning rate by 10
MOMENTUM = 0.9


def make_optimizer(name: str, parameters: Iterable[torch.nn.Parameter], learning_rate: float,
                   weight_decay: float, embeddings: Iterable[torch.Tensor] = ()
                   ) -> torch.optim.Optimizer:
    """Return the optimizer adam, muon, sgd or rmsprop, the last two with momentum.

    weight_decay is an L2 penalty; for the matrices that muon updates see `training.muon.Muon`.
    embeddings: those of the parameters that muon treats as rows, see `embedding_weights`.
    """
    settings: dict[str, Any] = dict(lr=learning_rate, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(parameters, **settings, fused=True)
    if name == "muon":
        return Muon(parameters, **settings, embeddings=embeddings)
    if name == "sgd":
        return torch.optim.SGD(parameters, **settings, momentum=MOMENTUM)
    return torch.optim.RMSprop(parameters, **settings, momentum=MOMENTUM)


def embedding_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    """The weights of the model's embeddings. A batch uses only some of their rows."""
    return [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any],
                         name: str) -> None:
    """Load the `state_dict` of an optimizer, but keep the hyperparameters of this one.

    name: the class of the other optimizer. Raises UserError if this one is of another.
    """
    own_name = type(optimizer).__name__
    if name != own_name:
        raise UserError(f"--resume: the snapshot's run had the optimizer {name}, this one has "
                        f"{own_name}; give the same --optimizer, or start a new run")
    own_groups = [{name: value for name, value in group.items() if name != "params"}
                  for group in optimizer.param_groups]
    # Replaced before loading: they decide on which device an optimizer counts its steps.
    groups = [loaded | own for loaded, own in
              zip(state["param_groups"], own_groups, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})


def learning_rate_factor(schedule: str, progress: float) -> float:
    """Return the factor of the learning rate at `progress`, the completed fraction of a run.

    "constant": 1. "cosine" and "step" rise from 0 to 1 over the first hundredth. "cosine" then
    falls along half a cosine to 0; "step" stays, apart from two divisions by 10.
    """
    if schedule == "constant":
        return 1.0
    rise = min(1.0, progress / WARM_UP)
    if schedule == "cosine":
        return rise * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return rise * 0.1 ** sum(progress >= step for step in STEPS)


def average_weights(model: torch.nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of the weights that keeps `decay` of it at each update.

    At update n the decay is at most (1 + n) / (10 + n), so that the initial weights leave the
    average soon.
    """
    @torch.no_grad()
    def update(averages, weights, n):
        kept = min(decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(averages, weights, 1 - kept)

    return AveragedModel(model, multi_avg_fn=update)
