"""The label of a recording: its folder, its speaker, a tag, or a part of its path."""

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.text import decode_filename
from datasets.audio.tags import match_genre, tag_of

KINDS = ("none", "folder", "speaker", "genre", "year")
SPOKEN_DIGIT = re.compile(r"\d_([^\W\d_]\w*?)_\d+")  # DIGIT_SPEAKER_TAKE


class Labelling(NamedTuple):
    """How to label the recordings below the folder `root`.

    kinds: each one of KINDS, or a regular expression whose first group, found in the path below
    `root`, is the label. The first that gives a recording a label wins. genres: genres that
    sub-genres are folded into; () leaves sub-genres as they are.
    """

    root: Path
    kinds: tuple[str, ...]
    genres: tuple[str, ...] = ()

    @property
    def values(self) -> tuple:
        """All but the root. A single kind stands for itself, as in earlier fingerprints."""
        return (self.kinds[0] if len(self.kinds) == 1 else self.kinds, self.genres)

    def label_of(self, path: Path) -> str | None:
        """Return the label of the recording at `path`; None for the kind 'none'.

        Raises UserError if it has none.
        """
        for kind in self.kinds[:-1]:
            with suppress(UserError):
                return self.label_of_kind(path, kind)
        return self.label_of_kind(path, self.kinds[-1])

    def label_of_kind(self, path: Path, kind: str) -> str | None:
        """Return the label that one kind gives; raises UserError if it gives none."""
        if kind == "none":
            return None
        if kind in ("genre", "year"):
            return self._from_tags(path, kind)
        return decode_filename(self._from_path(path, kind))

    def _from_path(self, path: Path, kind: str) -> str:
        if kind == "folder":
            # Only the root is resolved ('.' has no name): elsewhere a link's own name counts.
            return self.root.resolve().name if path.parent == self.root else path.parent.name
        if kind == "speaker":
            return speaker_of(path)
        name = path.relative_to(self.root).as_posix()
        found = re.search(kind, name)
        if not found or not found[1]:
            raise UserError(f"{path}: no label, labels {kind} doesn't match {name}; "
                            "mend the expression, or remove the file", mentions="labels")
        return found[1]

    def _from_tags(self, path: Path, kind: str) -> str:
        tag = tag_of(path, kind)
        if kind != "genre" or not self.genres:
            return tag
        genre = match_genre(tag, self.genres)
        if genre is None:
            raise UserError(f"{path}: its genre, {tag}, is none of genres "
                            f"{','.join(self.genres)}; add it, or remove the file",
                            mentions="genres")
        return genre


def shared_label_warnings(labelling: Labelling, paths: Iterable[Path]) -> list[str]:
    """Return a warning for each label that several folders share."""
    if "folder" not in labelling.kinds:
        return []
    if labelling.kinds != ("folder",):
        paths = [path for path in paths
                 if labelling.label_of(path) == labelling.label_of_kind(path, "folder")]
    folders = defaultdict(list)
    for folder in sorted({path.parent for path in paths}):
        folders[labelling.label_of_kind(folder / "x", "folder")].append(
            decode_filename(folder.relative_to(labelling.root).as_posix()))
    warnings = []
    for label, names in folders.items():
        if len(names) > 1:
            others = ", …" if len(names) > 3 else ""
            warnings.append(
                f"label {label} is that of {len(names)} folders, {', '.join(names[:3])}{others}; "
                "if they are not alike, give --labels '(.+)/', which takes whole paths for labels")
    return warnings


def speaker_of(path: Path) -> str:
    """Return the speaker that a file's name gives: george for 0_george_12.

    In all other names the speaker comes first, as in VCTK (p225_001, p225_001_mic1) and LibriSpeech
    (1034-121119-0000).
    """
    digit = SPOKEN_DIGIT.fullmatch(path.stem)
    return digit[1] if digit else re.split("[_-]", path.stem)[0] or path.stem
