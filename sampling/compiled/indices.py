"""Checks the labels and codes of a batch, because kernels check no index."""

import numpy as np
import torch

from models.pixelcnn import PixelCNNConfig
from models.wavenet import WaveNetConfig


def checked_labels(label: torch.Tensor | None, codes: np.ndarray,
                   config: PixelCNNConfig | WaveNetConfig) -> np.ndarray:
    """The labels of codes (B, …) as the kernels read them: (B,), int64; 0 without labels.

    label: (B,) or None. Raises IndexError for a label or a code that the network does not have.
    """
    numbers = np.asarray(label if config.labels else 0)
    labels = np.array(np.broadcast_to(numbers, len(codes)), np.int64)
    for name, indices, count in (("label", labels, max(config.labels, 1)),
                                 ("code", codes, config.levels)):
        if indices.size and not 0 <= indices.min() <= indices.max() < count:
            raise IndexError(f"{name}s must be from 0 to {count - 1}")
    return labels
