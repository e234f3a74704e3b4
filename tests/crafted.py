"""Files that are well formed but say what can't be: what a stranger, or a fault, may hand us."""

import copy
import io
import zipfile
from pathlib import Path

import torch

GONE = object()  # in place of a value: the field is left out
DEEP = "DEEP!"  # stands for lists in lists, 100,000 deep, which `write` writes


def doubled(depth=60):
    """A list of two that are the same, and so on: 2^depth in all, in some bytes."""
    content = []
    for _ in range(depth):
        content = [content, content]
    return content


def changed(content, place, value):
    """A copy of plain `content` with `value` at `place`, the names of its fields with dots."""
    content = copy.deepcopy(content)
    *way, last = place if isinstance(place, tuple) else place.split(".")
    owner = content
    for name in way:
        owner = owner[name]
    if value is GONE:
        del owner[last]
    else:
        owner[last] = value
    return content


def write(path, content):
    """As torch.save, of anything."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    marker = b"X" + len(DEEP).to_bytes(4, "little") + DEEP.encode()
    if marker in buffer.getvalue():
        nested = b"]" * 100_000 + b"a" * 99_999
        buffer = rewritten(buffer, lambda pickled: pickled.replace(marker, nested))
    Path(path).write_bytes(buffer.getvalue())


def rewritten(file, change):
    """The zip that torch.save wrote to `file`, its pickle changed by a function: a BytesIO."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(buffer, "w") as new:
        for part in old.infolist():
            content = old.read(part)
            new.writestr(part.filename,
                         change(content) if part.filename.endswith("data.pkl") else content)
    return buffer


def flipped(path, part, offset=40, bit=1):
    """Flip one bit of the part of the zip `path` whose name ends so."""
    with zipfile.ZipFile(path) as archive:
        one = next(one for one in archive.infolist() if one.filename.endswith(part))
        content = archive.read(one)
    raw = bytearray(Path(path).read_bytes())
    raw[raw.index(content, one.header_offset) + offset % len(content)] ^= bit
    Path(path).write_bytes(raw)


def files_of(folder):
    """{path: content} of all below a folder."""
    return {path: path.read_bytes() if path.is_file() else None
            for path in sorted(Path(folder).rglob("*"))}
