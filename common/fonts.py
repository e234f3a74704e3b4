"""Show names in plots: in a font that has their characters, or with those escaped."""

from functools import cache

from common.text import printable

MAX_LENGTH = 50  # characters of a label


def legible(name: object, most: int = MAX_LENGTH) -> str:
    """Return `name` on one line, as matplotlib can draw it with the fonts of this machine.

    Keeps the first `most` characters, so that the plot has room for other things. Escapes
    characters that no font has, as \\u4f60, because matplotlib draws the same box for each. Call
    this before matplotlib makes the text: it also registers the fonts that the name needs.
    """
    text = "".join(character if _has_font(character) else
                   character.encode("unicode_escape").decode() for character in printable(name))
    return text if len(text) <= most else f"{text[:most - 1]}…"


@cache
def _has_font(character: str) -> bool:
    """Whether one of matplotlib's fonts draws the character; registers the first that does."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, fontManager
    families = rcParams["font.family"]
    default = fontManager.findfont(FontProperties())
    if character.isascii() or _draws(default, character):
        return True
    for font in fontManager.ttflist:
        # matplotlib's own last resort only draws boxes.
        if "Last Resort" not in font.name and _is_plain(font) and _draws(font.fname, character):
            if font.name not in families:
                rcParams["font.family"] = [*families, font.name]
            return True
    return False


def _is_plain(font):
    return font.style == "normal" and font.variant == "normal" and font.weight in (400, "normal")


def _draws(path, character):
    font = _load_font(path)
    return font is not None and font.get_char_index(ord(character)) != 0


@cache
def _load_font(path):
    """Return the font in a file; None if matplotlib can't draw it, as with colour fonts."""
    from matplotlib.ft2font import FT2Font
    try:
        font = FT2Font(path)
    except (RuntimeError, OSError):
        return None
    return font if font.scalable else None
