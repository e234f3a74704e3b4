"""Let a new network's last layer begin where the codes of its training data are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from datasets.batches import IGNORED, BatchDataset

ITEMS = 64  # images or windows whose codes are read


def fit_output(model: Any, dataset: BatchDataset) -> None:
    """Initialise the last layer of `model`, a PixelCNN or WaveNet, from the codes of `dataset`.

    Uses ITEMS items, evenly spaced. Does nothing for a distribution that needs no codes, such as a
    softmax.
    """
    def read_codes() -> torch.Tensor:
        numbers = np.linspace(0, len(dataset) - 1, min(ITEMS, len(dataset))).round()
        targets = dataset[numbers.astype(np.int64)].targets.flatten()
        return targets[targets != IGNORED]

    model.distribution.initialize(model.logits.weight, model.logits.bias, read_codes)
