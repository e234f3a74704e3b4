"""Show names of labels and files: no name acts on a terminal or breaks a table."""

import os
import re
import unicodedata
from os import PathLike

# Line ends and cursor moves, the beginning of a command to a terminal, changes of the writing
# direction, and non-characters. Joiners stay: scripts and emoji need them.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]")
# Programs print lines themselves, and tqdm moves to the beginning of a line, or a line up.
_OF_PROGRAMS = re.compile(f"\n|\r|\t|\x1b\\[A|({_UNPRINTABLE.pattern})")


def decode_filename(name: str | PathLike[str]) -> str:
    """Return a file's name as text: UTF-8, or Latin-1 if its bytes on disk are not UTF-8.

    Old collections have such names. Python's own text for them, with surrogates, can't be written
    anywhere.
    """
    content = os.fsencode(name)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def printable(name: object) -> str:
    """Return `name` as text on one line, with invisible characters escaped, as \\n or \\u202e."""
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), str(name))


def for_terminal(text: str) -> str:
    """Escape the characters in `text`, one or more lines, that a terminal would obey."""
    return _OF_PROGRAMS.sub(lambda found: _escaped(found[1]) if found[1] else found[0], text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def display_width(text: str) -> int:
    """Count the columns that `text` takes in a terminal."""
    return sum(0 if unicodedata.category(character) in ("Mn", "Me", "Cf") else
               1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def pad_to_width(text: str, width: int) -> str:
    """Append blanks to `text` until it takes `width` columns."""
    return text + " " * (width - display_width(text))
