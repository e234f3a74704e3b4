"""Let a new network's last layer begin where the codes of its training data are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from datasets.batches import IGNORED, BatchDataset
from models.code_numbers import code_positions

ITEMS = 64  # images or windows whose codes are read


def fit_output(model: Any, dataset: BatchDataset) -> None:
    """Initialise the last layer of `model`, a PixelCNN or WaveNet, from the codes of `dataset`.

    Uses ITEMS items, evenly spaced. A WaveNet with a linear prediction gets that first, and its
    last layer then begins where the errors of the prediction are. Does nothing for a distribution
    that needs no codes, such as a softmax.
    """
    @cache
    def read_items() -> list[torch.Tensor]:
        numbers = np.linspace(0, len(dataset) - 1, min(ITEMS, len(dataset))).round()
        items = [dataset[number[None]].targets.flatten() for number in numbers.astype(np.int64)]
        return [targets[targets != IGNORED] for targets in items]

    def read_codes() -> torch.Tensor:
        return torch.cat(errors_of_prediction(model, read_items()) if predicts else read_items())

    predicts = vars(model.config).get("prediction")
    if predicts:
        model.prediction.copy_(best_prediction(read_items(), model.config.levels))
    model.distribution.initialize(model.logits.weight, model.logits.bias, read_codes)


def best_prediction(sounds: Sequence[torch.Tensor], levels: int) -> torch.Tensor:
    """The coefficients (2,), of a sample and of the one after it, that predict the next one best.

    sounds: codes (n,). Minimises the squared error, in single precision; zeros for silence.
    """
    rows = torch.cat([code_positions(codes, levels, torch.float64).unfold(0, 3, 1)
                      for codes in sounds if len(codes) >= 3] or [torch.zeros(1, 3).double()])
    found = torch.linalg.lstsq(rows[:, :2], rows[:, 2:], driver="gelsd").solution[:, 0]
    return found.float()


def errors_of_prediction(model: Any, sounds: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """By how many codes the model's linear prediction errs, as codes around the middle one."""
    levels, errors = model.config.levels, []
    for codes in sounds:
        x = code_positions(codes, levels, torch.float64)
        error = x[2:] - x.unfold(0, 2, 1)[:-1] @ model.prediction.double() if len(x) > 2 else x[:0]
        errors.append(((error + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).long())
    return errors
