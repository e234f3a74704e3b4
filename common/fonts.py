"""Names in pictures: in a font that has their characters, or with those escaped."""

from functools import cache

from common.text import printable

MOST_SHOWN = 50  # characters of a label


def legible(name, most: int = MOST_SHOWN) -> str:
    """`name` on one line, as matplotlib can draw it with the fonts of this machine.

    Only its first `most` characters, so that the picture has room for other things.

    Fonts that are needed for it are made known to matplotlib: call this before the text is made. A
    character that no font has is escaped, as \\u4f60: matplotlib would draw the same box for each.
    """
    text = "".join(character if _has_font(character) else
                   character.encode("unicode_escape").decode() for character in printable(name))
    return text if len(text) <= most else f"{text[:most - 1]}…"


@cache
def _has_font(character):
    """Whether one of matplotlib's fonts draws the character; adds one that does, if there is."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, fontManager
    families = rcParams["font.family"]
    default = fontManager.findfont(FontProperties())
    if character.isascii() or _draws(default, character):
        return True
    for font in fontManager.ttflist:
        # matplotlib's own last resort draws boxes.
        if "Last Resort" not in font.name and _is_plain(font) and _draws(font.fname, character):
            if font.name not in families:
                rcParams["font.family"] = [*families, font.name]
            return True
    return False


def _is_plain(font):
    return font.style == "normal" and font.variant == "normal" and font.weight in (400, "normal")


def _draws(path, character):
    font = _opened(path)
    return font is not None and font.get_char_index(ord(character)) != 0


@cache
def _opened(path):
    """The font in a file; None for one that matplotlib can't draw, as of colour pictures."""
    from matplotlib.ft2font import FT2Font
    try:
        font = FT2Font(path)
    except (RuntimeError, OSError):
        return None
    return font if font.scalable else None
