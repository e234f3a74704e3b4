"""Finding the files below a folder, and writing files that are whole or not there at all."""

import errno
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError


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


def resolved(path):
    """The absolute Path of `path` without links. Unlike Path.resolve it takes loops as they are."""
    return Path(os.path.realpath(path))


def readable(name):
    """The text of a file's name, which on disk may be any bytes: if it isn't UTF-8, Latin-1.

    Such names are in old collections; Python's own text for them can't be written anywhere.
    """
    content = os.fsencode(name)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


KINDS = {stat.S_IFIFO: "is a named pipe", stat.S_IFCHR: "is a device", stat.S_IFBLK: "is a device",
         stat.S_IFSOCK: "is a socket", stat.S_IFDIR: "is a folder"}


def open_regular(path):
    """The file `path`, open for reading bytes. Links are followed.

    Raises OSError, whose strerror is the reason, for what can't be opened, and for what is no
    regular file: a named pipe would be waited for, a device may never end.
    """
    _check_regular(path, os.stat(path))
    file = open(path, "rb", opener=lambda name, flags: os.open(  # noqa: SIM115 - is returned
        name, flags | getattr(os, "O_NONBLOCK", 0)))
    _check_regular(path, os.fstat(file.fileno()))  # if another took its place meanwhile
    return file


def _check_regular(path, state):
    if not stat.S_ISREG(state.st_mode):
        reason = KINDS.get(stat.S_IFMT(state.st_mode), "is no regular file")
        raise OSError(errno.EINVAL, reason, str(path))


@contextmanager
def atomic_write(path):
    """A temporary name beside `path` to write to, which takes the place of `path` at the end.

    Whatever happens while writing, `path` is either as it was or complete.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix,
                                             dir=path.parent)
    except OSError as error:
        raise UserError(f"{path.parent}: can't be written to ({error.strerror}); "
                        f"choose another folder for the output") from None
    os.close(handle)
    try:
        yield Path(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror or error}); make room, or "
                        f"choose another folder") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def make_folder(path, flag):
    """The folder `path`, made if need be; `flag` is what the user gave it with."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"{flag} {path}: can't be written to ({error.strerror}); "
                        f"choose another folder") from None
    return path
