"""Read the genre and the year of a recording from the tags in its file."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import UserError

# By the names that mp3 and flac share, and as the ID3 frames of wav and aiff.
NAMES = {"genre": ("genre", "TCON"), "year": ("date", "originaldate", "year", "TDRC")}


def tag_of(path: Path, kind: str) -> str:
    """Return the genre, in lower case, or the year, four digits, of the recording at `path`.

    kind: "genre" or "year". Raises UserError if the file has none.
    """
    import mutagen  # only needed to label by tags

    try:
        tags = mutagen.File(path, easy=True) or {}
        found = [str(value).strip() for name in NAMES[kind] for value in _values(tags, name)]
    except Exception as error:  # damaged files make mutagen raise anything
        raise UserError(f"{path}: its tags can't be read ({error!r}); "
                        "write them again, or remove it") from None
    found = [text for text in found if text]
    if not found:
        raise UserError(f"{path}: its tags hold no {kind}; add one, or remove it")
    if kind == "genre":
        return found[0].casefold()
    year = re.search(r"\d{4}", found[0])
    if not year:
        raise UserError(f"{path}: the year in its tags is {found[0]!r}; mend it, or remove it")
    return year[0]


def _values(tags: Any, name: str) -> list:
    """Return the values that `tags` hold under a name."""
    if name not in tags:
        return []
    values = tags[name]
    if hasattr(values, "genres"):  # an ID3 frame, which may hold genres as numbers
        return values.genres
    return list(getattr(values, "text", values))


def match_genre(genre: str, genres: Iterable[str]) -> str | None:
    """Return the one of `genres` that a (sub-)genre belongs to, or None: metalcore is metal.

    Looks at the last word first (progressive rock is rock, hip-hop is hip). The genre may be the
    whole word, its end or its beginning; the longest match wins.
    """
    for word in reversed(re.findall(r"\w+", genre.casefold())):
        matching = [name for name in genres if word.endswith(name) or word.startswith(name)]
        if matching:
            return max(matching, key=lambda name: (len(name), word.endswith(name)))
    return None
