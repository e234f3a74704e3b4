"""The one place that writes and reads model files.

A model file holds what is needed to sample: the kind of network, its configuration, the names of
its labels, what its data was, and the weights. A snapshot of a run holds, besides, what is needed
to go on: see `training.trainer.Trainer.state_dict`. Both are written by torch.save and hold nothing
but tensors and plain values. A file with anything else in it, which could run code when read, is
refused, and so is one that is damaged or does not fit its description: see `models.archive` and
`models.contents`.
"""

import dataclasses
import io
import re
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import UserError
from common.files import atomic_write
from models.archive import read_archive
from models.contents import check_content
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig

FORMAT_VERSION = 1
PARTS = ("config", "label_names", "data", "weights")
LABEL_EMBEDDING_SUFFIX = "condition.weight"  # of the weights' names; a row for each label
NETWORKS = {"pixelcnn": (PixelCNN, PixelCNNConfig), "wavenet": (WaveNet, WaveNetConfig)}


class ModelFile(NamedTuple):
    """What a model file says.

    model: the network with its weights, in evaluation mode. label_names: of labels 0, 1, …; empty
    for a network without labels. data: what it was trained on; of images dataset, levels,
    channels, height, width, binarize; of sound levels, rate.
    content: all that is in the file.
    """

    model: torch.nn.Module
    label_names: list
    data: dict
    content: dict


def describe(kind, model, label_names, data):
    """The content of a model file, without the run that made it."""
    return {"kind": kind, "format": FORMAT_VERSION, "config": dataclasses.asdict(model.config),
            "label_names": list(label_names), "data": dict(data),
            "weights": on_cpu(model.state_dict())}


def on_cpu(content):
    """A copy of `content`, dictionaries, lists and plain values, with its tensors on the CPU."""
    if isinstance(content, dict):
        return {name: on_cpu(value) for name, value in content.items()}
    if isinstance(content, list):
        return [on_cpu(value) for value in content]
    return (content.detach().to("cpu", copy=True) if isinstance(content, torch.Tensor)
            else content)


def save(path, content):
    """Write `content`, tensors and plain values, as the model file or snapshot `path`."""
    # By way of memory: where the disk is full, torch.save itself raises no OSError.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path, kind):
    """The content of the model file or snapshot `path`, checked to be of a `kind` of network.

    All of it is checked, before anything is built of it: see `models.contents`.
    """
    path = Path(path)
    content = read_archive(path)
    named = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(named, str) or named not in NETWORKS:
        raise UserError(f"{path}: is no model file of this project; use one that "
                        f"train_pixelcnn.py or train_wavenet.py wrote")
    if named != kind:
        raise UserError(f"{path}: is a {named} model, a {kind} model is needed; "
                        f"train_{named}.py and infer_{named}.py are for it")
    if type(content.get("format")) is not int or content["format"] != FORMAT_VERSION:
        raise UserError(f"{path}: has format {_shown(content.get('format'))}, this code reads "
                        f"format {FORMAT_VERSION}; use the code that wrote it")
    lacking = [part for part in PARTS if part not in content]
    if lacking:
        raise UserError(f"{path}: lacks {', '.join(lacking)}; use a file that our training wrote")
    check_content(path, content)
    return content


def _shown(value):
    """A value from a file, in short."""
    return value if isinstance(value, int) and abs(value) < 10 ** 9 else f"of {type(value)}"


def load(path, kind):
    """The `ModelFile` at `path`: a model file, a snapshot, or a run's folder (its best model)."""
    path = Path(path)
    if path.is_dir():
        path = best_model(path, kind)
    content = read(path, kind)
    network, config = NETWORKS[kind]
    model = network(config(**content["config"]))
    model.load_state_dict(content["weights"])
    return ModelFile(model.eval(), content["label_names"], content["data"], content)


def files_asked(wanted, kind, snapshots):
    """The model files that the paths `wanted` mean, in their order.

    A run's folder means its best model, or with `snapshots` all its snapshots.
    """
    files = []
    for path in map(Path, wanted):
        if not path.is_dir():
            files.append(path)
        elif snapshots:
            files += numbered(path, "snapshot_iter") or [best_model(path, kind)]
        else:
            files.append(best_model(path, kind))
    return files


def best_model(folder, kind):
    """The best model, else the newest snapshot, of the run in `folder`."""
    found = numbered(folder, kind) or numbered(folder, "snapshot_iter")
    if not found:
        raise UserError(f"{folder}: holds no {kind}_N and no snapshot_iter_N; train a model first "
                        f"or name a model file")
    return found[-1]


def numbered(folder, name):
    """The files `name`_N in `folder`, by rising N."""
    found = [(int(match[1]), path) for path in Path(folder).glob(f"{name}_*")
             if (match := re.fullmatch(rf"{re.escape(name)}_(\d+)", path.name))]
    return [path for _, path in sorted(found)]


def check_flags(path, values, flags):
    """Refuse flags that contradict the file they are used with.

    values: what the file says, by flag name; flags: the script's, None where nothing was typed.
    """
    for name, value in values.items():
        typed = flags.get(name)
        if typed is not None and typed != value:
            raise UserError(f"--{name} {typed} contradicts {path}, which has {name} "
                            f"{value}; leave the flag out")
