"""Statistics of each layer's weights and gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.extensions.extension import Extension
from training.extensions.tensorboard import Board

if TYPE_CHECKING:
    from training.trainer import Trainer


class ParameterStatistics(Extension):
    """Reports statistics of each layer's weights and gradients, with the original study's keys.

    For each parameter <layer>/W or /b, and for both data and grad: min, max, mean, std, zeros (how
    many are exactly 0), percentile/0 … 6 (at -3σ … 3σ of a normal distribution); and
    <layer>/W/ratio, the log10 of the gradient's norm over the data's. The gradient is that of the
    last update, after clipping. The `board` shows a histogram of each data and grad.
    """

    SIGMA_POINTS = (0.0013, 0.0228, 0.1587, 0.5, 0.8413, 0.9772, 0.9987)

    def __init__(self, board: Board) -> None:
        self.board = board

    def __call__(self, trainer: Trainer) -> None:
        """Add the statistics to the observation, and the histograms to the board."""
        with self.board.writing(trainer) as writer:
            for name, parameter in trainer.model.named_parameters():
                layer, _, kind = name.rpartition(".")
                key = f"{layer.replace('.', '/')}/{'b' if kind == 'bias' else 'W'}"
                assert parameter.grad is not None  # after an update every parameter has one
                data, grad = parameter.detach().float(), parameter.grad.float()
                for part, values in (("data", data), ("grad", grad)):
                    for statistic, value in self._statistics(values.flatten()).items():
                        trainer.observation[f"{key}/{part}/{statistic}"] = value
                    writer.add_histogram(f"{key}/{part}", values, trainer.iteration)
                grad_norm, data_norm = grad.norm().item(), data.norm().item()
                if grad_norm and data_norm:
                    trainer.observation[f"{key}/ratio"] = math.log10(grad_norm / data_norm)

    def _statistics(self, x: torch.Tensor) -> dict[str, float]:
        points = np.quantile(x.cpu().numpy(), self.SIGMA_POINTS).tolist()
        return {"min": x.min().item(), "max": x.max().item(), "mean": x.mean().item(),
                "std": x.std(correction=0).item(), "zeros": int((x == 0).sum()),
                **{f"percentile/{i}": point for i, point in enumerate(points)}}
