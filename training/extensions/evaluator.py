"""Validation: the likelihood of held-back data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from common.errors import DivergedError
from datasets.batches import BatchDataset, evaluation_batches
from training import distributed, likelihood
from training.extensions.extension import Extension

if TYPE_CHECKING:
    from training.trainer import Trainer


class Evaluator(Extension):
    """Reports the likelihood of a held-back dataset.

    prefix: of its keys in the log, validation/main or test/main. label_names: with two or more,
    each label's likelihood is reported too, as validation/label/NAME/….
    """

    def __init__(self, dataset: BatchDataset, batchsize: int, prefix: str = "validation/main",
                 label_names: Sequence[str] = ()) -> None:
        self.dataset, self.batchsize, self.prefix = dataset, batchsize, prefix
        self.label_names = label_names if len(label_names) > 1 else ()

    def __call__(self, trainer: Trainer) -> None:
        """Evaluate the whole dataset. Raises DivergedError for a likelihood that is not finite."""
        batches = evaluation_batches(self.dataset, self.batchsize * distributed.world_size(),
                                     **trainer.loading)
        bar = tqdm(batches, desc=self.prefix, leave=False, dynamic_ncols=True,
                   disable=distributed.is_bar_disabled())
        mean, label_means = likelihood.evaluate_labels(trainer.eval_model, bar, trainer.device,
                                                       len(self.label_names))
        if not math.isfinite(mean):
            raise DivergedError(f"iteration {trainer.iteration}: {self.prefix}/nll is not finite; "
                                f"go on from an earlier snapshot with --resume and a lower "
                                f"--learning_rate")
        trainer.observation |= likelihood.in_units(mean, self.prefix, trainer.dimensions)
        split = self.prefix.partition("/")[0]
        for name, value in zip(self.label_names, label_means, strict=True):
            if value is not None:
                trainer.observation |= likelihood.in_units(value, f"{split}/label/{name}")
