"""What a PixelCNN draws images for: labels, vectors, or nothing, as it was trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cli.labels import resolve_labels
from common.errors import UserError
from datasets.images.vectors import check_widths, load_named_vectors, read_vectors, vector_path
from sampling.image_rendering import Condition


@dataclass(frozen=True)
class ConditionFlags:
    """--label, --condition_from and --complete, as they were given."""

    label: str | None
    condition_from: str | None
    complete: Sequence[str]

    @property
    def none_asked_for(self) -> bool:
        """Whether each picture to complete is to have a condition of its own."""
        return self.label is None and self.condition_from is None


@dataclass(frozen=True)
class Conditions:
    """What a model knows, and what of it is asked for.

    known: all labels or vectors, empty for a network conditioned on nothing. asked: those to draw
    for, in order, or [None]. of_vectors: whether they are vectors.
    """

    known: list[Condition]
    asked: list[Condition | None]
    of_vectors: bool = False


def resolve_conditions(file: Path, vector: int, label_names: Sequence[str], flags: ConditionFlags,
                       among_others: bool) -> Conditions:
    """Resolve the conditions that the flags ask of the model `file`.

    vector: the width of the vectors that it is conditioned on, or 0. They are those of
    --condition_from, or by default those beside the pictures to complete. among_others: whether
    several models draw. Raises UserError for conditions that the model does not take.
    """
    if vector:
        names, vectors = _read_vectors(file, vector, flags)
        known = [Condition(name, value) for name, value in
                 zip(names, torch.from_numpy(vectors), strict=True)]
        return Conditions(known, list(known), of_vectors=True)
    if flags.condition_from:
        raise UserError(f"--condition_from {flags.condition_from}: {file} is conditioned on "
                        f"{'classes' if label_names else 'nothing'}, not on vectors; "
                        f"{'give --label' if label_names else 'leave it out'}")
    known = [Condition(name, torch.tensor(label)) for label, name in enumerate(label_names)]
    return Conditions(known, [None if label is None else known[label] for label in
                              resolve_labels(label_names, flags.label, file, among_others)])


def _read_vectors(file, width, flags):
    """Return their names and the vectors, float32 (N, width)."""
    if flags.label is not None:
        raise UserError(f"--label {flags.label}: {file} is conditioned on vectors, not on classes; "
                        f"give --condition_from")
    if flags.condition_from:
        source = flags.condition_from
        names, vectors = load_named_vectors(source)
    elif flags.complete:
        source = vector_path(flags.complete[0])
        own = {vector_path(picture): read_vectors(vector_path(picture), (1,))
               for picture in flags.complete}
        check_widths(own)
        names = [Path(picture).stem for picture in flags.complete]
        vectors = np.stack([own[vector_path(picture)] for picture in flags.complete])
    else:
        raise UserError(f"--model {file}: is conditioned on vectors; say with --condition_from "
                        f"FILE.npy which ones to draw for, of {width} numbers")
    if vectors.shape[1] != width:
        raise UserError(f"{source}: has {vectors.shape[1]} numbers a vector, {file} is conditioned "
                        f"on {width}; give vectors of that width")
    return names, vectors
