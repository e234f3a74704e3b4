"""What a PixelCNN is to draw images for: labels, vectors, or nothing, as it was trained."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cli.labels import labels_asked
from common.errors import UserError
from datasets.images.vectors import check_widths, load_named_vectors, read_vectors, vector_path


class Conditions(NamedTuple):
    """What there is to draw for, and what of it is asked for.

    names: of each label or vector. labels: the labels (N,) or the vectors (N, width), or None for a
    network conditioned on nothing. asked: numbers of those to draw for, in order, or [None].
    """

    names: list
    labels: torch.Tensor | None
    asked: list


def conditions_asked(file, model, label_names, args, among_others):
    """The Conditions that the flags of infer_pixelcnn.py ask of the model in `file`.

    Of a network conditioned on vectors they are those of --condition_from, or without it those
    beside the pictures to complete. among_others: as of `labels_asked`. Raises UserError for what
    the model can't be given.
    """
    if model.config.vector:
        names, vectors = _vectors_asked(file, model.config.vector, args)
        return Conditions(names, torch.from_numpy(vectors), list(range(len(names))))
    if args.condition_from:
        raise UserError(f"--condition_from {args.condition_from}: {file} is conditioned on "
                        f"{'classes' if label_names else 'nothing'}, not on vectors; "
                        f"{'give --label' if label_names else 'leave it out'}")
    labels = torch.arange(len(label_names)) if label_names else None
    return Conditions(label_names, labels,
                      labels_asked(label_names, args.label, file, among_others))


def _vectors_asked(file, width, args):
    """([name, …], vectors float32 (N, width))."""
    if args.label is not None:
        raise UserError(f"--label {args.label}: {file} is conditioned on vectors, not on classes; "
                        f"give --condition_from")
    if args.condition_from:
        source = args.condition_from
        names, vectors = load_named_vectors(source)
    elif args.complete:
        source = vector_path(args.complete[0])
        own = {vector_path(picture): read_vectors(vector_path(picture), (1,))
               for picture in args.complete}
        check_widths(own)
        names = [Path(picture).stem for picture in args.complete]
        vectors = np.stack([own[vector_path(picture)] for picture in args.complete])
    else:
        raise UserError(f"--model {file}: is conditioned on vectors; say with --condition_from "
                        f"FILE.npy which ones to draw for, of {width} numbers")
    if vectors.shape[1] != width:
        raise UserError(f"{source}: has {vectors.shape[1]} numbers a vector, {file} is conditioned "
                        f"on {width}; give vectors of that width")
    return names, vectors
