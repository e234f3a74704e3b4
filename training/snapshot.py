"""The one place that writes and reads model files.

A model file holds what is needed to sample: the kind of network, its configuration, the names of
its labels, what its data was, and the weights. A snapshot of a run holds, besides, what is needed
to go on: see `training.trainer.Trainer.state`. Both are written by torch.save, hold nothing but
tensors and plain values, and are read with `weights_only=True`: a file with anything else in it,
which could run code when read, is refused.
"""

import dataclasses
import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.errors import UserError
from datasets.files import replacing
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig

FORMAT_VERSION = 1
PARTS = ("config", "label_names", "data", "weights")
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
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path, kind):
    """The content of the model file or snapshot `path`, checked to be of a `kind` of network."""
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such model file; train one first") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); name a model file") from None
    except pickle.UnpicklingError:
        reason = ("holds something other than tensors and plain values, and is not read since it "
                  "could run code" if zipfile.is_zipfile(path) else "is no model file")
        raise UserError(f"{path}: {reason}; use a file that our training wrote") from None
    except Exception:  # of bytes that are no model, torch.load raises whatever it comes to
        raise UserError(f"{path}: is no model file, or a truncated one; use another snapshot of "
                        f"the run") from None
    if not isinstance(content, dict) or content.get("kind") not in NETWORKS:
        raise UserError(f"{path}: is no model file of this project; use one that "
                        f"train_pixelcnn.py or train_wavenet.py wrote")
    if content["kind"] != kind:
        raise UserError(f"{path}: is a {content['kind']} model, a {kind} model is needed; "
                        f"train_{content['kind']}.py and infer_{content['kind']}.py are for it")
    if content.get("format") != FORMAT_VERSION:
        raise UserError(f"{path}: has format {content.get('format')}, this code reads format "
                        f"{FORMAT_VERSION}; use the code that wrote it")
    lacking = [part for part in PARTS if part not in content]
    if lacking:
        raise UserError(f"{path}: lacks {', '.join(lacking)}; use a file that our training wrote")
    return content


def load(path, kind):
    """The `ModelFile` at `path`: a model file, a snapshot, or a run's folder (its best model)."""
    path = Path(path)
    if path.is_dir():
        path = best_model(path, kind)
    content = read(path, kind)
    network, config = NETWORKS[kind]
    try:
        model = network(config(**content["config"]))
        model.load_state_dict(content["weights"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"{path}: its weights don't fit its own description ({first_line}); "
                        f"use another snapshot of the run") from None
    if not all(weight.isfinite().all() for weight in model.state_dict().values()):
        raise UserError(f"{path}: has weights that are not finite; use an earlier snapshot of the "
                        f"run")
    return ModelFile(model.eval(), content["label_names"], content["data"], content)


def told_how(name, value):
    """How to ask for a network whose configuration has `name` as `value`, where that is not said by
    a flag of the same name; else None."""
    if name != "position":
        return None
    return "leave out --no_position" if value else "give --no_position"


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
