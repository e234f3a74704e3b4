"""The text that --text names: words, a file, or standard input."""

import sys
from pathlib import Path

from common.errors import UserError
from common.files import decode_utf8, open_regular, os_errors_as_lines

MOST_CHARACTERS = 1_000_000  # about 18 hours of speech, as much as a wav can hold
ENDING = ".txt"


def read_text(value: str) -> str:
    """Return the text of --text `value`. Raises UserError for one that can't be read or spoken."""
    source = f"--text {value if len(value) <= 40 else value[:37] + '...'}"
    if value == "-":
        content = sys.stdin.buffer.read(4 * MOST_CHARACTERS + 1) if sys.stdin else b""
    elif value and _is_file(value):
        with os_errors_as_lines(source, "can't be read", "name another file"), \
             open_regular(value) as file:
            content = file.read(4 * MOST_CHARACTERS + 1)
    elif value.endswith(ENDING) and " " not in value:
        raise UserError(f"{source}: no such file; name a file, or give the words themselves")
    else:
        return _checked(value, source)
    return _checked(decode_utf8(content, source), source)


def _is_file(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # too long for a name, or it holds a zero byte
        return False


def _checked(text: str, source: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{source}: is longer than {MOST_CHARACTERS:,} characters; give it in "
                        "parts")
    # Here, because the package that reads texts takes a moment to import.
    from datasets.text.phonemes import check_text
    check_text(text, source)
    return text
