"""What requests for images and for sounds share: the models to draw from, and the flags' meaning.

`cli.image_request` and `cli.sound_request` turn a command line into one request for each model, and
check all of them before anything is drawn. Nothing below them sees an argparse namespace.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.model_flags import check_flags
from common.file_names import distinct_file_names
from common.files import real_path
from models.model_file import ModelFile, load
from sampling.output.page import model_facts
from sampling.rendering import SamplingOptions


@dataclass(frozen=True)
class RequestedModel:
    """A model to draw from.

    file: its path. name: short, different from the other models'. folder: for what it draws, None
    for no folder. label_names: of its labels. facts: what a page shows of it.
    """

    file: Path
    name: str
    folder: Path | None
    label_names: list[str]
    facts: dict[str, Any]


def open_models(files: Sequence[Path], kind: str, folder: Path | None, args: argparse.Namespace
                ) -> Iterator[tuple[RequestedModel, ModelFile]]:
    """Read the model `files`, one after the other, and check the flags against them.

    kind: pixelcnn or wavenet. folder: for what is drawn; of several models each has a folder in it.
    Raises UserError for a file that is no such model, or that a flag contradicts.
    """
    for file, name in zip(files, model_names(files), strict=True):
        loaded = load(file, kind)
        values = dict(loaded.content["config"])
        if "rate" in loaded.data:
            values["rate"] = loaded.data["rate"]
        check_flags(file, values, vars(args))
        own = folder / name if folder and len(files) > 1 else folder
        yield RequestedModel(file, name, own, loaded.label_names,
                             model_facts(file, loaded.content, loaded.model)), loaded


def model_names(files: Sequence[Path]) -> list[str]:
    """Name model files by their file names, with their folders' names where these differ."""
    folders = {real_path(file).parent for file in files}
    return distinct_file_names([
        file.name if len(folders) == 1 else f"{real_path(file).parent.name}_{file.name}"
        for file in files])


def sampling_options(args: argparse.Namespace) -> SamplingOptions:
    """Collect --seed, --temperature, --top_p and, for sound, --precision."""
    return SamplingOptions(args.seed, args.temperature, args.top_p,
                           getattr(args, "precision", "fp32"))
