"""A page that shows what several models drew: one HTML file that opens from disk, anywhere.

Sounds and pictures are in it, so that it can be moved or sent; it loads nothing else.
"""

import base64
import json
import math
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from common.files import atomic_write
from datasets.audio.features import Features

# Of a run's folder, as far as they are there.
PICTURES = {"loss.png": "Likelihood", "labels.png": "Validation of each label",
            "speed.png": "Speed", "data.png": "The data", "embeddings.png": "Label embeddings"}

LONGEST = 1000  # characters of a setting that are shown


class Item(NamedTuple):
    """Something drawn.

    path: of its file. note: such as how long it took. picture: PNG. sound: wav, or None.
    """

    path: Path
    note: str
    picture: bytes
    sound: bytes | None = None


class Column(NamedTuple):
    """What a model drew.

    name: of the model. file: its path. facts: {what: value}. cells: {row: [Item, …]}.
    """

    name: str
    file: Path
    facts: dict
    cells: dict


def facts_of(file, content, model):
    """What is worth knowing of a model, by name.

    file: its path. content: what is in it. model: the network.
    """
    facts = {"parameters": f"{sum(weight.numel() for weight in model.parameters()):,}"}
    number = file.name.rpartition("_")[2]
    iteration = content.get("run", {}).get("iteration", int(number) if number.isdecimal() else None)
    if iteration is not None:
        facts["iteration"] = f"{iteration:,}"
        log = _json(file.parent / "log", list) or content.get("run", {}).get("log", [])
        for entry in log:  # of the folder, where anything may have been written
            if isinstance(entry, dict) and entry.get("iteration") == iteration:
                loss = entry.get("validation/main/bits/dim")
                if isinstance(loss, float) and math.isfinite(loss):
                    facts["validation bits/dim"] = f"{loss:.4f}"
    facts |= content["config"] | content["data"]
    if content["data"].get("features"):
        facts["features"] = Features(**content["data"]["features"]).summary()
    return {name: value for name, value in facts.items() if value != ""}


def write(path, columns, settings):
    """Write the page `path`: a table of rows × models, then what there is to say of their runs.

    columns: a list of Column. settings: {flag: value} that they were drawn with.
    Raises UserError if it can't be written.
    """
    # Here, since only a page needs it.
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
        runs=[run for folder in folders if (run := _run(folder))])
    with atomic_write(path) as temporary:
        # The names of files may be no text.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _run(folder):
    """The pictures and settings of the run in `folder`, or None if it is none."""
    pictures = {title: (folder / name).read_bytes() for name, title in PICTURES.items()
                if (folder / name).is_file()}
    settings = {_in_short(name): _in_short(value)
                for name, value in (_json(folder / "config.json", dict) or {}).items()}
    return {"folder": folder, "pictures": pictures, "settings": settings} if (
        pictures or settings) else None


def _json(path, kind):
    """What the JSON file `path` holds, None if it can't be read or is not of a `kind`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, kind) else None


def _in_short(value):
    """A value that a JSON file holds, as text that is not too long for a page."""
    try:
        text = str(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        text = "…"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _data_uri(content, kind):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
