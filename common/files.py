"""Find files below a folder, open them safely, and write files completely or not at all."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from os import PathLike
from pathlib import Path

from common.errors import UserError

NOT_REGULAR = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
               stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


@contextmanager
def os_errors_as_lines(subject: str | PathLike[str], problem: str, advice: str,
                       kind: type[UserError] = UserError, missing: str = "",
                       parameter: str | None = None) -> Iterator[None]:
    """Turn an OSError in the context into one line, "SUBJECT: PROBLEM (REASON); ADVICE".

    subject: the file or flag. problem: "" gives "SUBJECT: REASON; ADVICE". kind: the class to
    raise. missing: for a file that doesn't exist, the line is "SUBJECT: MISSING" instead.
    parameter: see UserError. BrokenPipeError passes: nobody reads the pipe, which is no fault.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if missing and isinstance(error, FileNotFoundError):
            raise kind(f"{subject}: {missing}", parameter=parameter) from None
        reason = str(error.strerror or error)
        what = f"{problem} ({reason})" if problem else reason
        raise kind(f"{subject}: {what}; {advice}", parameter=parameter) from None


def find_files(folder: str | PathLike[str], endings: tuple[str, ...]) -> list[Path]:
    """List the files below `folder` whose names end in one of `endings`, in any case: sorted.

    Follows links, enters each folder once, and skips hidden files and folders. Raises UserError if
    a folder can't be read.
    """
    root, found = os.path.realpath(folder), []
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(place)
        # A link back into the root leads to files that are found under their own names anyway.
        leads_back = (place != str(folder) and os.path.islink(place)
                      and f"{real}/".startswith(f"{root}/"))
        if leads_back or real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files
                  if name.lower().endswith(endings) and not name.startswith(".")]
    return sorted(found)


def _refuse_folder(error: OSError) -> None:
    raise UserError(f"{error.filename}: {error.strerror}; make the folder readable, or move it "
                    "elsewhere")


def real_path(path: str | PathLike[str]) -> Path:
    """Return the absolute path without links. Unlike Path.resolve, accept loops of links."""
    return Path(os.path.realpath(path))


def not_regular(mode: int) -> str | None:
    """Say what a file of this `mode` (st_mode) is, such as "a folder"; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return NOT_REGULAR.get(stat.S_IFMT(mode), "no regular file")


def open_regular(path: str | PathLike[str]) -> BufferedReader:
    """Open the regular file `path` for reading bytes. Follows links.

    Raises OSError, whose strerror is the reason, for a file that can't be opened and for anything
    but a regular file: opening a named pipe would wait, and reading a device may never end.
    """
    _check_regular(path, os.stat(path))
    file = open(path, "rb", opener=lambda name, flags: os.open(  # noqa: SIM115 - is returned
        name, flags | getattr(os, "O_NONBLOCK", 0)))
    _check_regular(path, os.fstat(file.fileno()))  # another file may have taken its place
    return file


def decode_utf8(content: bytes, source: str | PathLike[str]) -> str:
    """Decode a text in UTF-8; UserError naming its `source` for anything else."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: is not UTF-8 (byte {error.start}); convert it, for instance "
                        "with iconv -t UTF-8") from None


def _check_regular(path: str | PathLike[str], status: os.stat_result) -> None:
    kind = not_regular(status.st_mode)
    if kind:
        raise OSError(errno.EINVAL, f"is {kind}", str(path))


@contextmanager
def atomic_write(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`; at the end it replaces `path`.

    Whatever happens while writing, `path` is either unchanged or complete. Raises UserError if it
    can't be written.
    """
    path = Path(path)
    with os_errors_as_lines(path.parent, "can't be written to",
                            "choose another folder for the output"):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix,
                                             dir=path.parent)
    os.close(handle)
    try:
        with os_errors_as_lines(path, "can't be written", "make room, or choose another folder"):
            yield Path(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def temporary_files(folder: str | PathLike[str], name: str) -> list[Path]:
    """List what `atomic_write` of the files `name` in `folder` left when their process was killed.

    name: a pattern, as of `Path.glob`.
    """
    random = "[a-z0-9_]" * 8  # as tempfile.mkstemp makes it
    return list(Path(folder).glob(f".{name}.{random}{Path(name).suffix}"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def make_folder(path: str | PathLike[str], flag: str) -> Path:
    """Return the folder `path`, created if necessary; `flag` is the flag that names it.

    Raises UserError if nothing can be written there.
    """
    path = Path(path)
    with os_errors_as_lines(f"{flag} {path}", "can't be written to", "choose another folder"):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    return path
