"""The list of all that is not in a corpus though it lies among its recordings."""

from collections.abc import Mapping
from pathlib import Path

from common.files import atomic_write, readable
from common.text import printable
from datasets.corpus.reader import CorpusPart


def write_list(folder: str | Path, share: CorpusPart, reasons: Mapping[str, str]) -> Path | None:
    """Write {name: why it is left out} beside the corpus in `folder`: the file, or None.

    A line for each, the name, a tab, the reason. With nothing left out there is no file. Raises
    UserError if it can't be written.
    """
    path = Path(folder, f"{share.stem}_left_out.txt")
    if not reasons:
        path.unlink(missing_ok=True)
        return None
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{printable(readable(name))}\t{printable(readable(reason))}\n"
                                     for name, reason in reasons.items()), encoding="utf-8")
    return path
