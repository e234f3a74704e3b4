"""Names of labels and files as a person may see them: no name acts on a terminal or a table."""

import re
import unicodedata

# What ends a line or moves the cursor; what begins a command to a terminal; what changes the
# direction of other text; what is no character. Joiners stay: scripts and emoji need them.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]")
# A program prints lines itself, and tqdm goes back to the beginning of one, or a line up.
_OF_PROGRAMS = re.compile(f"\n|\r|\t|\x1b\\[A|({_UNPRINTABLE.pattern})")


def printable(name) -> str:
    """`name` as text on one line, in which what can't be seen is escaped, as \\n or \\u202e."""
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), str(name))


def for_terminal(text: str) -> str:
    """Lines of text, in which what a terminal would obey is escaped."""
    return _OF_PROGRAMS.sub(lambda found: _escaped(found[1]) if found[1] else found[0], text)


def _escaped(character):
    return character.encode("unicode_escape").decode()


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(0 if unicodedata.category(character) in ("Mn", "Me", "Cf") else
               1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def padded(text: str, width: int) -> str:
    """`text` with blanks behind it, so that it takes `width` columns."""
    return text + " " * (width - columns(text))
