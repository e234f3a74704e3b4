"""How the weights of each layer and their gradients are distributed."""

import math

import numpy as np


class ParameterStatistics:
    """Statistics of each layer's weights and gradients, by the original study's keys.

    For each parameter <layer>/W or /b, and for both data and grad: min, max, mean, std, zeros (how
    many are exactly 0), percentile/0 … 6 (at -3σ … 3σ of a normal distribution); and
    <layer>/W/ratio, the log10 of the gradient's norm to the data's. The gradient is that of the
    last update, as clipped. Each data and grad is a histogram on the `board`, too.
    """

    SIGMA_POINTS = (0.0013, 0.0228, 0.1587, 0.5, 0.8413, 0.9772, 0.9987)

    def __init__(self, board):
        self.board = board

    def __call__(self, trainer):
        with self.board.writing(trainer) as writer:
            for name, parameter in trainer.model.named_parameters():
                layer, _, kind = name.rpartition(".")
                key = f"{layer.replace('.', '/')}/{'b' if kind == 'bias' else 'W'}"
                data, grad = parameter.detach().float(), parameter.grad.float()
                for part, values in (("data", data), ("grad", grad)):
                    trainer.observation |= {f"{key}/{part}/{statistic}": value for statistic, value
                                            in self._statistics(values.flatten()).items()}
                    writer.add_histogram(f"{key}/{part}", values, trainer.iteration)
                norms = grad.norm().item(), data.norm().item()
                if all(norms):
                    trainer.observation[f"{key}/ratio"] = math.log10(norms[0] / norms[1])

    def _statistics(self, x):
        points = np.quantile(x.cpu().numpy(), self.SIGMA_POINTS).tolist()
        return {"min": x.min().item(), "max": x.max().item(), "mean": x.mean().item(),
                "std": x.std(correction=0).item(), "zeros": int((x == 0).sum()),
                **{f"percentile/{i}": point for i, point in enumerate(points)}}
