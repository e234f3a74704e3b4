"""What is trained: a network, its data, and how both are described."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.batches import Batch, BatchDataset
    from models.pixelcnn import PixelCNN
    from models.speech import SpeechNetwork
    from models.wavenet import WaveNet


@dataclass(frozen=True)
class Task:
    """A network and the data to train it on.

    kind: pixelcnn or wavenet.
    validation_set: evaluated after each epoch, or None. test_set: evaluated once, at the end, with
    the best model, or None.
    data: what model files say of the data. label_names: of labels 0, 1, …; empty for none.
    unit: what samples are called in a speed, images or samples. count_samples: how many a batch
    has. dimensions: C·H·W of an image, None for sound.
    speech: the network that turns text into the frames that a WaveNet reads, or None. It is trained
    already, and model files hold it.
    draw: writes files of samples, see `training.extensions.samples.Draw`.
    """

    kind: str
    model: PixelCNN | WaveNet
    training_set: BatchDataset
    validation_set: BatchDataset | None
    data: Mapping[str, Any]
    label_names: Sequence[str]
    unit: str
    count_samples: Callable[[Batch], int]
    draw: Callable[[Any, int, Path], dict[str, Path]]
    test_set: BatchDataset | None = None
    dimensions: int | None = None
    speech: SpeechNetwork | None = None
