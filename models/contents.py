"""Check that a model file or snapshot agrees with itself and with its weights."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import torch

from common.errors import UserError
from common.headers import checked
from models.descriptions import DATA, OptimizerState, Parts, Run, Speech, Values
from models.pixelcnn import PixelCNNConfig
from models.shapes import embeddings, parameter_shapes, weight_shapes
from models.speech import speech_shapes
from models.wavenet import WaveNetConfig

CONFIGS = {"pixelcnn": PixelCNNConfig, "wavenet": WaveNetConfig}
ADVICE = "use another snapshot of the run"
MOST_PAST = 2 ** 28  # floats in a WaveNet's receptive field: sampling keeps them, 1 GiB
# The tensors that an optimizer keeps for each parameter, and whether it counts its updates.
OPTIMIZER_TENSORS = {"Adam": (("exp_avg", "exp_avg_sq"), True),
                     "SGD": (("momentum_buffer",), False),
                     "RMSprop": (("square_avg", "momentum_buffer"), True)}


def check_content(path: Path, content: dict[str, Any]) -> None:
    """Refuse content that describes no model of its kind, or no run of such a model.

    Builds no network, so it takes no more memory than the content. Raises UserError naming the file
    and the field.
    """
    kind = content["kind"]
    parts = checked({name: content[name] for name in Parts.__struct_fields__}, Parts, path, ADVICE)
    config = _part(path, "config", parts.config, CONFIGS[kind])
    unknown = parts.config.keys() - {field.name for field in dataclasses.fields(config)}
    if unknown:
        raise UserError(f"{path}: its network has {ascii(min(unknown))[:80]}, which this code does "
                        f"not know; use the code that wrote it")
    data = _part(path, "data", parts.data, DATA[kind])
    _check_weights(path, "weights", parts.weights, _shapes(path, config, len(parts.weights)))
    _check_agreement(path, config, parts.label_names, data)
    if "speech" in content:
        _check_speech(path, content["speech"], config, data)
    if "run" in content:
        _check_run(path, content["run"], kind, config)


def _part(path, name, content, description):
    """Convert one part of the content to its description; errors name the part, then the field."""
    return getattr(checked({name: content}, msgspec.defstruct("Part", [(name, description)]), path,
                           ADVICE), name)


def _shapes(path, config, stored):
    """Return `weight_shapes`; refuse a network of more blocks or layers than weights `stored`."""
    parts = (config.blocks_num if isinstance(config, PixelCNNConfig)
             else config.stacks_num * config.layers_num)
    if parts > stored:
        raise _misfit(path, f"{parts} blocks or layers, and {stored} weights")
    return weight_shapes(config)


def _check_weights(path, name, weights, shapes):
    """Refuse weights that lack one of these `shapes`, or are not finite. name: of the field."""
    _check_names(path, name, weights, shapes)
    for one, shape in shapes.items():
        weight = weights[one]
        if tuple(weight.shape) != shape:
            raise _misfit(path, f"{name}: {one} has the shape {tuple(weight.shape)}, its config "
                                f"makes it {shape}")
        if not weight.is_floating_point():
            raise _misfit(path, f"{name}: {one} is of {weight.dtype}")
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise UserError(f"{path}: has {name} that are not finite; use an earlier snapshot of the "
                        f"run")


def _check_names(path, name, weights, shapes):
    for one in shapes:
        if one not in weights:
            raise _misfit(path, f"{name}: lack {one}")
    for one in weights:
        if one not in shapes:
            raise _misfit(path, f"{name}: have {ascii(one)[:80]} beside")


def _check_agreement(path, config, label_names, data):
    """Refuse a configuration that contradicts the labels or the data."""
    wanted = {"labels": (config.labels, len(label_names)), "levels": (config.levels, data.levels)}
    if isinstance(config, PixelCNNConfig):
        wanted["channels"] = config.channels, data.channels
    else:
        features = data.features
        wanted |= {"features": (config.features, features.width if features else 0)}
        if features:
            wanted |= {"hop": (config.hop, features.hop), "rate": (features.rate, data.rate)}
        if config.receptive_field * config.hidden_dim > MOST_PAST:
            raise _misfit(path, f"a receptive field of {config.receptive_field} samples is more "
                                f"than can be kept")
    for name, (ours, theirs) in wanted.items():
        if ours != theirs:
            raise _misfit(path, f"{name} are {ours} in one place, {theirs} in another")


def _check_speech(path, content, wavenet, data):
    """Refuse a SpeechNetwork that makes no frames for this WaveNet."""
    speech = _part(path, "speech", content, Speech)
    config = speech.config
    if config.hidden_dim ** 2 > sum(weight.numel() for weight in speech.weights.values()):
        raise _misfit(path, f"speech: {config.hidden_dim} channels, and few weights")
    _check_weights(path, "speech.weights", speech.weights, speech_shapes(config))
    features = getattr(data, "features", None)
    if not features or features.kind != "mel" or features.width != config.bins:
        raise _misfit(path, f"speech: makes mel frames of {config.bins} numbers, the network reads "
                            "others")
    if config.labels != wavenet.labels:
        raise _misfit(path, f"speech: {config.labels} labels, and the network has {wavenet.labels}")


def _check_run(path, content, kind, config):
    """Refuse the state of a run that can't be resumed."""
    run = _part(path, "run", content, Run)
    for entry in _part(path, "log", content["log"], Values):
        for name, value in entry.items():
            if "/" in name and not isinstance(value, (int, float)):
                raise UserError(f"{path}: damaged (run.log: {ascii(name)[:80]} is no number); "
                                f"{ADVICE}")
    best = run.extensions.best
    if best and best.file and not best.file.startswith(kind):
        raise UserError(f"{path}: damaged (run.extensions.BestModel.file: {best.file} is no {kind} "
                        f"model); {ADVICE}")
    if run.weights is not msgspec.UNSET:
        _check_weights(path, "run.weights", run.weights, weight_shapes(config))
    _check_optimizer(path, run.optimizer, run.optimizer_name, parameter_shapes(config),
                     embeddings(config), run.iteration)


def _check_optimizer(path, optimizer: OptimizerState, name, shapes, embeddings, iteration):
    """Refuse an optimizer's state that does not fit parameters of these `shapes`, in order.

    embeddings: the numbers of the parameters that are embeddings.
    """
    def check(fits, what):
        if not fits:
            raise UserError(f"{path}: damaged (run.optimizer: {what}); {ADVICE}")

    check(optimizer.param_groups[0].params == list(range(len(shapes))),
          f"has other parameters than the {len(shapes)} of the network")
    check(sorted(optimizer.state) == (list(range(len(shapes))) if iteration else []),
          "lacks the state of a parameter, or has one too many")
    for number, state in optimizer.state.items():
        names, counts_steps = _optimizer_tensors(name, len(shapes[number]) >= 2
                                                 and number not in embeddings)
        for one in names:
            value = state.get(one)
            check(isinstance(value, torch.Tensor) and value.is_floating_point()
                  and tuple(value.shape) == shapes[number] and bool(value.isfinite().all()),
                  f"{one} of parameter {number} is not of its shape, or not finite")
        step: Any = state.get("step")
        if counts_steps and isinstance(step, torch.Tensor) and step.numel() == 1:
            step = step.item()
        check(not counts_steps or type(step) in (int, float) and 1 <= step <= 2 ** 53,
              f"step of parameter {number} is no count of updates")


def _optimizer_tensors(name, is_matrix):
    """Look up OPTIMIZER_TENSORS for a parameter that is a matrix, but no embedding, or is not."""
    if name == "Muon":  # matrices have a momentum, all other parameters Adam's state
        name = "SGD" if is_matrix else "Adam"
    return OPTIMIZER_TENSORS[name]


def _misfit(path, what):
    return UserError(f"{path}: its weights don't fit its own description ({what}); {ADVICE}")
