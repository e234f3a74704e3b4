"""What recordings say: transcripts as the common speech corpora store them.

- `NAME.txt` beside `NAME.wav`.
- VCTK: the recording `wav/p225/p225_001.wav` has its text in `txt/p225/p225_001.txt`.
- LJSpeech: a line `NAME|text|the text with its numbers in words` in `metadata.csv`.
- A line `NAME: text` in a file of transcripts.

A file of transcripts is `metadata.csv` or `transcripts.txt` in the folder of the recordings or in
the one above it. NAME is the recording's path in that folder, or its file name, without the ending.
What stands in brackets is a sound or a remark, and not said.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from common.errors import UserError
from common.files import decode_utf8, open_regular, os_errors_as_lines

TABLES = ("metadata.csv", "transcripts.txt")
TEXT_FOLDER = "txt"
COMMENTS = (";", "#")  # how a line without a transcript may begin
MOST_BYTES = 2 ** 28  # of a file of transcripts
NOT_SAID = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>|\{[^{}]*\}")


class Transcripts:
    """The transcripts of the recordings below the folder `root`.

    table: a file with a line for each recording; None to look for one.
    Raises UserError for a table that can't be read.
    """

    def __init__(self, root: Path, table: Path | None = None) -> None:
        self.root = root
        self.table = table or _find_table(root)
        self.lines = _read_table(self.table) if self.table else {}

    def files_of(self, path: Path) -> list[Path]:
        """List the files that hold the transcript of the recording at `path`."""
        own = _own_file(self.root, path)
        return [own] if own else [self.table] if self.table else []

    def text_of(self, path: Path) -> str:
        """Return what the recording at `path` says, without remarks in brackets.

        Raises UserError if that is nothing, or unknown.
        """
        own = _own_file(self.root, path)
        if own:
            text, source = _read_text(own), own
        else:
            name = next((name for name in self._names(path) if name in self.lines), None)
            if name is None:
                table = f", and no line in {self.table}" if self.table else ""
                raise UserError(f"{path}: has no transcript, {path.with_suffix('.txt').name} is "
                                f"missing{table}; write one, or remove the recording")
            text, source = self.lines[name], self.table or path
        said = " ".join(NOT_SAID.sub(" ", text).split())
        if not said:
            raise UserError(f"{path}: its transcript in {source} has no words; write what is said, "
                            "or remove the recording")
        return said

    def unused(self, paths: Iterable[Path]) -> list[str]:
        """List the names in the table that belong to none of the recordings at `paths`."""
        used = {name for path in paths for name in self._names(path)}
        return [name for name in self.lines if name not in used]

    def _names(self, path: Path) -> tuple[str, str]:
        """Return the names that the recording at `path` may have in the table."""
        stem = path.with_suffix("")
        return stem.relative_to(self.root).as_posix(), stem.name


def unused_warnings(transcripts: Transcripts | None, paths: Iterable[Path]) -> list[str]:
    """Return a warning if `transcripts` have lines for none of the recordings at `paths`."""
    unused = transcripts.unused(paths) if transcripts else []
    if not unused:
        return []
    return [f"{transcripts and transcripts.table}: {len(unused)} of its lines name no recording, "
            f"the first: {unused[0]}"]


def _find_table(root: Path) -> Path | None:
    return next((folder / name for folder in (root, root.resolve().parent) for name in TABLES
                 if (folder / name).is_file()), None)


def _own_file(root: Path, path: Path) -> Path | None:
    """Find the file with the transcript of one recording, beside it or as VCTK has it."""
    beside = path.with_suffix(".txt")
    if beside.is_file():
        return beside
    path, take = path.resolve(), re.sub(r"_mic\d+$", "", path.stem)
    above_root = root.resolve().parent.parent
    for folder in path.parents:
        parts = path.relative_to(folder).parts[1:-1]  # without the folder of the recordings
        text = folder.joinpath(TEXT_FOLDER, *parts, f"{take}.txt")
        if text.is_file():
            return text
        if folder == above_root:
            break
    return None


def _read_text(path: Path) -> str:
    """Read a text in UTF-8; UserError for anything else."""
    with os_errors_as_lines(path, "can't be read", "make it readable"), open_regular(path) as file:
        content = file.read(MOST_BYTES)
    return decode_utf8(content, path)


def _read_table(path: Path) -> dict[str, str]:
    """Read {name: text} from a file of transcripts; UserError if it holds none."""
    found: dict[str, str] = {}
    for line in _read_text(path).splitlines():
        if line.startswith(COMMENTS):
            continue
        if path.suffix == ".csv":
            name, *texts = line.split("|")
            text = texts[-1] if texts else ""
        else:
            name, _, text = line.partition(":")
        if name.strip() and text.strip():
            found[name.strip()] = text.strip()
    if not found:
        form = "NAME|TEXT" if path.suffix == ".csv" else "NAME: TEXT"
        raise UserError(f"{path}: has no line of the form {form}; write one for each recording")
    return found
