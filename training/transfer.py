"""--init_from: begin with another run's weights. Labels are matched by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from common.errors import UserError
from models import model_file
from models.model_file import LABEL_EMBEDDING_SUFFIX, ModelFile
from training.settings import flag_hint


def init_from(path: str, kind: str, model: Any, label_names: Sequence[str],
              start_labels: Sequence[str], encoding: str | None) -> str:
    """Copy the weights of the model file, snapshot or run at `path` into `model`.

    A label that the file has too takes its embeddings; one in `start_labels`, a list of "NEW=OLD",
    takes those of OLD; any other begins as the mean of the file's. If the file's network is
    conditioned on nothing, the embeddings of labels or vectors begin at 0.

    kind: pixelcnn or wavenet. label_names: of the new data. Returns in words what became of the
    labels. encoding: of sound, None for images. Raises UserError where the networks or the
    encodings differ, or a name in `start_labels` does not exist.
    """
    try:
        source = model_file.load(path, kind)
    except UserError as error:
        raise UserError(f"--init_from: {error}") from None
    _check_networks(path, source, model, label_names)
    theirs = source.data.get("encoding")
    if theirs != encoding:
        raise UserError(f"--init_from {path}: its codes are {theirs}, those of the data "
                        f"{encoding}; prepare the data with --encoding {theirs}")
    origins = dict(pair.split("=", 1) for pair in start_labels)
    for new, old in origins.items():
        for name, names, owner in ((new, label_names, "the data"), (old, source.label_names, path)):
            if name not in names:
                raise UserError(f"--start_label {new}={old}: {name!r} is no label of {owner}; it "
                                f"has {', '.join(map(str, names[:20])) or 'none'}")
    _copy_weights(source, model, [origins.get(name, name) for name in label_names])
    return _summary(path, source.label_names, label_names, origins)


def _check_networks(path: str, source: ModelFile, model: Any, label_names: Sequence[str]) -> None:
    """Raise UserError for networks that differ in more than their labels."""
    theirs, ours = vars(source.model.config), vars(model.config)
    for name, value in theirs.items():
        if name not in ("labels", "vector", "prediction") and value != ours[name]:
            advice = (flag_hint(name, value)
                      or f"give --{name} {value}, and data of that kind")
            raise UserError(f"--init_from {path}: has {name} {value}, this network {ours[name]}; "
                            f"{advice}")
    if source.label_names and not label_names:
        raise UserError(f"--init_from {path}: has {len(source.label_names)} labels, the data none; "
                        "prepare the data with labels")
    vector = theirs.get("vector", 0)  # only image networks have it
    if vector and vector != ours["vector"]:
        raise UserError(f"--init_from {path}: is conditioned on vectors of {vector} numbers, this "
                        f"network on {ours['vector'] or 'none'}; give --condition npy, and vectors "
                        f"of {vector}")


def _copy_weights(source: ModelFile, model: Any, origins: Sequence[str]) -> None:
    """Copy all weights.

    origins: for each of the model's labels, the label whose embeddings it takes.
    """
    theirs = source.model.state_dict()
    has_vectors = bool(vars(source.model.config).get("vector", 0))
    for name, weight in model.state_dict().items():
        if not name.endswith(LABEL_EMBEDDING_SUFFIX) or has_vectors:
            # A file without vectors has no scale for them, one without a prediction predicts 0.
            missing = torch.zeros_like(weight) if name == "prediction" else weight
            weight.copy_(theirs.get(name, missing))
            continue
        weight.zero_()
        if not source.label_names:
            continue
        rows = theirs[name]
        for number, origin in enumerate(origins):
            weight[number] = (rows[source.label_names.index(origin)]
                              if origin in source.label_names else rows.mean(0))


def _summary(path: str, source_names: Sequence[str], label_names: Sequence[str],
             origins: dict[str, str]) -> str:
    """In words what became of the labels."""
    kept = [name for name in label_names if name in source_names and name not in origins]
    fresh = [name for name in label_names if origins.get(name, name) not in source_names]
    parts = [f"weights of {path}"]
    if kept:
        parts.append(f"{len(kept)} labels as there")
    if origins:
        parts.append(", ".join(f"{new} from {old}" for new, old in origins.items()))
    if fresh:
        parts.append(f"new: {', '.join(fresh)}")
    return "; ".join(parts)
