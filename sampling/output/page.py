"""Show what several models drew on one HTML page, which opens from disk.

The page contains sounds and pictures and loads nothing else, so it can be moved or sent.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.files import atomic_write
from common.run_files import CONFIG, LOG, PLOTS
from datasets.audio.features import Features

LONGEST = 1000  # characters shown of a setting


class Item(NamedTuple):
    """A picture or sound that was drawn.

    path: of its file. note: in words, such as how long it took. picture: PNG. sound: wav, or None.
    """

    path: Path
    note: str
    picture: bytes
    sound: bytes | None = None


class Column(NamedTuple):
    """What a model drew.

    name: of the model. file: its path. facts: about the model, {what: value}. cells: {row: items}.
    """

    name: str
    file: Path
    facts: dict[str, Any]
    cells: dict[str, list[Item]]


def model_facts(file: Path, content: Mapping[str, Any], model: torch.nn.Module
                ) -> dict[str, Any]:
    """Collect what a reader wants to know of a model, as {what: value}.

    file: its path. content: of the file. model: the network.
    """
    parameters = sum(weight.numel() for weight in model.parameters())
    facts: dict[str, Any] = {"parameters": f"{parameters:,}"}
    number = file.name.rpartition("_")[2]
    iteration = content.get("run", {}).get("iteration", int(number) if number.isdecimal() else None)
    if iteration is not None:
        facts["iteration"] = f"{iteration:,}"
        log = _read_json(file.parent / LOG, list) or content.get("run", {}).get("log", [])
        for entry in log:  # a log in the folder may hold anything
            if isinstance(entry, dict) and entry.get("iteration") == iteration:
                loss = entry.get("validation/main/bits/dim")
                if isinstance(loss, float) and math.isfinite(loss):
                    facts["validation bits/dim"] = f"{loss:.4f}"
    facts |= content["config"] | content["data"]
    if content["data"].get("features"):
        facts["features"] = Features(**content["data"]["features"]).summary()
    return {name: value for name, value in facts.items() if value != ""}


def write_page(path: Path | str, columns: Sequence[Column], settings: Mapping[str, Any]) -> None:
    """Write the page `path`: a table of rows × models, then plots and settings of their runs.

    settings: {flag: value} with which the models drew. Raises UserError if it can't be written.
    """
    # Imported here because only a page needs it.
    from jinja2 import Environment, FileSystemLoader

    rows = dict.fromkeys(row for column in columns for row in column.cells)
    folders = dict.fromkeys(column.file.parent for column in columns)
    names = dict.fromkeys(name for column in columns for name in column.facts)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["data"] = _data_uri
    environment.filters["link"] = lambda file: file.relative_to(Path(path).parent).as_posix()
    text = environment.get_template("page.html").render(
        columns=columns, rows=list(rows), facts=list(names),
        time=f"{datetime.now():%Y-%m-%d %H:%M}",
        settings={name: " ".join(map(str, value)) if isinstance(value, list) else value
                  for name, value in settings.items() if value is not None and value is not False},
        runs=[run for folder in folders if (run := _read_run(folder))])
    with atomic_write(path) as temporary:
        # A file name may hold bytes that are no text.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _read_run(folder):
    """Read the plots and settings of the run in `folder`; None if there are none."""
    pictures = {title: (folder / name).read_bytes() for name, title in PLOTS.items()
                if (folder / name).is_file()}
    settings = {_shorten(name): _shorten(value)
                for name, value in (_read_json(folder / CONFIG, dict) or {}).items()}
    if not pictures and not settings:
        return None
    return {"folder": folder, "pictures": pictures, "settings": settings}


def _read_json(path, kind):
    """Return the content of the JSON file `path`, None if it can't be read or is no `kind`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, kind) else None


def _shorten(value):
    """Return a value from a JSON file as text of at most LONGEST characters."""
    try:
        text = str(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        text = "…"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _data_uri(content, kind):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
