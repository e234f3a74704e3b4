"""Check what a file says about itself against a typed description before using it.

A description is a frozen dataclass or a msgspec.Struct. The types of its fields say what a file may
hold: `Annotated[int, msgspec.Meta(ge=1, le=1000)]` bounds a number; a bounded number is never NaN.
"""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common.errors import UserError

Description = TypeVar("Description")


def checked(content: Any, description: type[Description], path: Path | str,
            advice: str) -> Description:
    """Convert plain values `content`, read from the file `path`, to a `description`.

    Raises UserError naming the file and the field that is missing, has another type or is out of
    range; `advice` says what to do.
    """
    try:
        _check_text(content)
        return msgspec.convert(content, type=description)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: damaged ({describe_error(error)}); {advice}") from None
    except RecursionError:
        raise UserError(f"{path}: damaged (nested too deeply); {advice}") from None


def read_json(path: Path | str, description: type[Description], advice: str) -> Description:
    """Read the JSON file `path` as a `description`.

    Raises UserError as `checked` does, and for a file that is no JSON; OSError if it can't be read.
    """
    content = Path(path).read_bytes()
    try:
        return msgspec.json.decode(content, type=description)
    except msgspec.DecodeError as error:  # also a ValidationError
        raise UserError(f"{path}: damaged ({describe_error(error)}); {advice}") from None
    except (RecursionError, UnicodeDecodeError):
        raise UserError(f"{path}: damaged (nested too deeply, or not UTF-8); {advice}") from None


def describe_error(error: Exception) -> str:
    """Say in one line what msgspec found wrong, the field first: `config.levels: Expected …`."""
    what, _, place = " ".join(str(error).split()).rpartition(" - at ")
    return f"{place.strip('`').removeprefix('$.')}: {what}" if what else place


def _check_text(content: Any, seen: set[int] | None = None) -> None:
    """Raise ValidationError for text that UTF-8 can't encode: no terminal or file could show it.

    seen: ids of containers already checked; a file may refer to one in many places.
    """
    seen = set() if seen is None else seen
    if isinstance(content, str):
        try:
            content.encode()
        except UnicodeEncodeError:
            raise msgspec.ValidationError(f"text {ascii(content[:40])} is no Unicode") from None
    elif isinstance(content, (dict, list, tuple)) and id(content) not in seen:
        seen.add(id(content))
        values = [*content, *content.values()] if isinstance(content, dict) else content
        for value in values:
            _check_text(value, seen)
