"""Find files of a kind below a folder."""

import os
from pathlib import Path

from datasets.errors import UserError


def find_files(folder, endings):
    """The files below `folder` whose names end in one of `endings`, in any case: sorted Paths.

    Links are followed, each folder is entered once, and hidden files and folders are left out.
    Raises UserError for a folder that can't be read.
    """
    root, entered, found = os.path.realpath(folder), set(), []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(place)
        # A link back into the root would lead to what is found under its own name anyway.
        back = place != str(folder) and os.path.islink(place) and f"{real}/".startswith(f"{root}/")
        if back or real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files
                  if name.lower().endswith(endings) and not name.startswith(".")]
    return sorted(found)


def unreadable(error):
    """Raises the UserError for a folder that can't be listed."""
    raise UserError(f"{error.filename}: {error.strerror}; make the folder readable, or move it "
                    "elsewhere")
