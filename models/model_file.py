"""Write and read model files and snapshots. Nothing else in the repository does.

A model file holds what sampling needs: the kind of network, its configuration, the names of its
labels, a description of its data, and the weights. A snapshot also holds the state of the run that
wrote it, under `run`: see `training.trainer`. torch.save writes both, and they hold only tensors
and plain values. A file with anything else is refused, because reading it could run code
(`models.archive`), and so is a file that is damaged or contradicts itself (`models.contents`).
"""

import dataclasses
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.errors import UserError
from common.files import atomic_write
from common.run_files import SNAPSHOT, numbered_files
from models.archive import read_archive
from models.contents import check_content
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.speech import SpeechConfig, SpeechNetwork
from models.wavenet import WaveNet, WaveNetConfig

FORMAT_VERSION = 1
PARTS = ("config", "label_names", "data", "weights")
LABEL_EMBEDDING_SUFFIX = "condition.weight"  # of the weights' names; a row for each label
NETWORKS: dict[str, tuple[Any, Any]] = {"pixelcnn": (PixelCNN, PixelCNNConfig),
                                        "wavenet": (WaveNet, WaveNetConfig)}


class ModelFile(NamedTuple):
    """A model file, read.

    model: a PixelCNN or WaveNet with the file's weights, in evaluation mode, on the CPU.
    label_names: of labels 0, 1, …; empty for a network without labels.
    data: what it was trained on. Images: dataset, levels, channels, height, width, binarize.
    Sound: levels, rate, encoding and, with features, features.
    content: everything in the file.
    """

    model: Any
    label_names: list[str]
    data: dict[str, Any]
    content: dict[str, Any]

    @property
    def speaks_texts(self) -> bool:
        """Whether the file also holds a network that turns text into frames."""
        return "speech" in self.content

    def speech(self) -> SpeechNetwork:
        """Build the network that turns text into frames, of a file that `speaks_texts`."""
        return build_speech(self.content["speech"])


def model_content(kind: str, model: torch.nn.Module, label_names: Iterable[str],
                  data: Mapping[str, Any], speech: torch.nn.Module | None = None
                  ) -> dict[str, Any]:
    """Collect the content of a model file, with a copy of all weights on the CPU.

    kind: pixelcnn or wavenet. label_names, data: as in `ModelFile`. speech: the SpeechNetwork that
    makes the frames of texts, or None.
    """
    content = {"kind": kind, "format": FORMAT_VERSION, **network_content(model),
               "label_names": list(label_names), "data": dict(data)}
    return content if speech is None else content | {"speech": network_content(speech)}


def network_content(network: torch.nn.Module) -> dict[str, Any]:
    """Return the configuration of a network and a copy of its weights on the CPU."""
    config: Any = network.config
    return {"config": dataclasses.asdict(config), "weights": copy_to_cpu(network.state_dict())}


def build_speech(content: Mapping[str, Any]) -> SpeechNetwork:
    """Build the SpeechNetwork that `network_content` describes, in evaluation mode."""
    network = SpeechNetwork(SpeechConfig(**content["config"]))
    network.load_state_dict(content["weights"])
    return network.eval()


def copy_to_cpu(content: Any) -> Any:
    """Copy nested dictionaries and lists of tensors and plain values, with tensors on the CPU."""
    if isinstance(content, dict):
        return {name: copy_to_cpu(value) for name, value in content.items()}
    if isinstance(content, list):
        return [copy_to_cpu(value) for value in content]
    return (content.detach().to("cpu", copy=True) if isinstance(content, torch.Tensor)
            else content)


def save(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write `content`, tensors and plain values, as the model file or snapshot `path`.

    Raises UserError if it can't be written; then `path` stays as it was.
    """
    # Through memory, because torch.save raises no OSError where the disk is full.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: Path | str, kind: str) -> dict[str, Any]:
    """Read and check the content of the model file or snapshot `path`, without building a network.

    kind: pixelcnn or wavenet. Raises UserError for a file that is missing, damaged, of another
    kind, or contradicts itself.
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
    if kind == "wavenet":
        content["data"].setdefault("encoding", "mulaw")  # which older files don't name
    return content


def _shown(value):
    """Describe a value from a file briefly."""
    return value if isinstance(value, int) and abs(value) < 10 ** 9 else f"of {type(value)}"


def load(path: Path | str, kind: str) -> ModelFile:
    """Read the model file or snapshot `path` and build its network; of a folder, its best model.

    Raises UserError as `read` does, and for a folder that holds no model.
    """
    path = Path(path)
    if path.is_dir():
        path = find_best_model(path, kind)
    content = read(path, kind)
    network, config = NETWORKS[kind]
    model = network(config(**content["config"]))
    model.load_state_dict(content["weights"])
    return ModelFile(model.eval(), content["label_names"], content["data"], content)


def find_best_model(folder: Path | str, kind: str) -> Path:
    """Find the best model of the run in `folder`, else its newest snapshot.

    kind: pixelcnn or wavenet. Raises UserError if there is neither.
    """
    found = numbered_files(folder, kind) or numbered_files(folder, SNAPSHOT)
    if not found:
        raise UserError(f"{folder}: holds no {kind}_N and no snapshot_iter_N; train a model first "
                        f"or name a model file")
    return found[-1]
