"""The list of files that lie among the recordings but are not in the corpus."""

from collections.abc import Mapping
from pathlib import Path

from common.files import atomic_write
from common.text import decode_filename, printable
from datasets.corpus.manifest import CorpusPart


def write_left_out(folder: str | Path, part: CorpusPart, reasons: Mapping[str, str]) -> Path | None:
    """Write {name: why it is left out} next to the corpus in `folder`; return the file, or None.

    Each line holds the name, a tab, and the reason. If nothing is left out there is no file. Raises
    UserError if it can't be written.
    """
    path = Path(folder, f"{part.stem}_left_out.txt")
    if not reasons:
        path.unlink(missing_ok=True)
        return None
    lines = (f"{printable(decode_filename(name))}\t{printable(decode_filename(reason))}\n"
             for name, reason in reasons.items())
    with atomic_write(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return path
