"""Names of labels, models and recordings as parts of file names."""

import re
from collections.abc import Iterable

LONGEST = 80, 100  # characters and bytes of a part, so that a file name can join three or more


def distinct_file_names(names: Iterable[str]) -> list[str]:
    """Turn names into parts of file names, all different also where case does not count.

    Characters that a file name may not hold become `_`. No part is empty or made of dots alone,
    and none is longer than LONGEST allows. Names that would clash are numbered.
    """
    parts = [_shorten(re.sub(r"[^\w.-]+", "_", name)) for name in names]
    parts = [part if part.strip(".") else "_" for part in parts]
    if len({part.casefold() for part in parts}) < len(parts):
        return [f"{number}_{part}" for number, part in enumerate(parts)]
    return parts


def _shorten(name: str) -> str:
    """Cut `name` to LONGEST, at the end of a character."""
    return name[:LONGEST[0]].encode()[:LONGEST[1]].decode(errors="ignore")
