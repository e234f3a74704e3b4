"""Genre and year of a recording, from the tags in its file."""

import re

from common.errors import UserError

# In the common names of mp3 and flac, and as an ID3 frame, which wav and aiff have.
NAMES = {"genre": ("genre", "TCON"), "year": ("date", "originaldate", "year", "TDRC")}


def tag_of(path, kind):
    """The genre or year, by `kind`, of the recording at `path`: text.

    A genre is in small letters, a year its four digits. Raises UserError where the file has none.
    """
    import mutagen  # for those who label by tags

    try:
        tags = mutagen.File(path, easy=True) or {}
        found = [str(value).strip() for name in NAMES[kind] for value in _values(tags, name)]
    except Exception as error:  # of damaged files mutagen raises whatever comes
        raise UserError(f"{path}: its tags can't be read ({error!r}); "
                        "write them anew, or remove it") from None
    found = [text for text in found if text]
    if not found:
        raise UserError(f"{path}: its tags hold no {kind}; add one, or remove it")
    if kind == "genre":
        return found[0].casefold()
    year = re.search(r"\d{4}", found[0])
    if not year:
        raise UserError(f"{path}: the year in its tags is {found[0]!r}; mend it, or remove it")
    return year[0]


def _values(tags, name):
    """What `tags` hold under a name: a list."""
    if name not in tags:
        return []
    values = tags[name]
    if hasattr(values, "genres"):  # an ID3 frame, in which genres may be numbers
        return values.genres
    return list(getattr(values, "text", values))


def match_genre(genre, genres):
    """The one of `genres` that a (sub-)genre belongs to, or None: metalcore is metal.

    The last word counts first (progressive rock is rock, hip-hop is hip), and in a word the genre
    that is most of it: it may be the word, or its end, or its beginning.
    """
    for word in reversed(re.findall(r"\w+", genre.casefold())):
        matching = [name for name in genres if word.endswith(name) or word.startswith(name)]
        if matching:
            return max(matching, key=lambda name: (len(name), word.endswith(name)))
    return None
