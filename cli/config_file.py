"""--config: flags from a JSON file. Does not import torch: --help is instant."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import os_errors_as_lines


def flags_of(path: str, parser: argparse.ArgumentParser) -> list[str]:
    """Return the flags in the JSON file `path` for the script of `parser`, as one would type them.

    Raises UserError for a key that is no flag, or a value that could not be typed.
    """
    try:
        with os_errors_as_lines(f"--config {path}", "", "name a JSON file"):
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"--config {path}: is no JSON ({error}); mend it") from None
    except RecursionError:
        raise UserError(f"--config {path}: is nested too deeply; mend it") from None
    if not isinstance(settings, dict):
        raise UserError(f"--config {path}: must be a JSON object of flags and values")
    if settings and all(isinstance(value, dict) for value in settings.values()):
        script = Path(parser.prog).stem
        if script not in settings:
            parts = ", ".join(name if name.isprintable() else repr(name) for name in settings)
            raise UserError(f"--config {path}: has parts for {parts[:200]}, but none for {script}; "
                            f"add one")
        settings = settings[script]
    known = {option[2:]: action for action in parser._actions if action.dest != "help"
             for option in action.option_strings if option.startswith("--")}
    flags: list[str] = []
    for name, value in settings.items():
        if name == "config" or value is None or value is False:
            continue
        if name not in known:
            raise UserError(f"--config {path}: {_shown(name)} is no flag of this script; take it "
                            f"out")
        flags += _flag_of(path, name, value, known[name])
    return flags


def _flag_of(path: str, name: str, value: Any, action: argparse.Action) -> list[str]:
    """Return one flag of the JSON file `path` with its value, as one would type it."""
    option = f"--{name}"
    if value is True:
        return [option]
    values = value if isinstance(value, list) else [value]
    if not all(_can_be_typed(one) for one in values):
        raise UserError(f"--config {path}: {name} is {_shown(value)}, which can't be the value of "
                        f"a flag; mend it")
    texts = list(map(str, values))
    if isinstance(value, list) and action.nargs:
        return [option, *texts]
    return [f"{option}={','.join(texts)}"]


def _can_be_typed(value: Any) -> bool:
    """Whether a command line can hold this value of a JSON file."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2 ** 64
    if not isinstance(value, (str, float)):
        return False
    try:
        return b"\0" not in os.fsencode(str(value))
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _shown(value: Any) -> str:
    """A value of a JSON file on one short line."""
    try:
        return repr(value)[:100]
    except RecursionError:
        return "nested too deeply"
