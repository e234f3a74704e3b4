"""What a recording is conditioned on: its folder, its speaker, a tag, or a part of its path."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.files import readable
from datasets.audio.tags import match_genre, tag_of

KINDS = ("none", "folder", "speaker", "genre", "year")
SPOKEN_DIGIT = re.compile(r"\d_([^\W\d_]\w*?)_\d+")  # DIGIT_SPEAKER_TAKE
SHOWN = 20  # label names in an error message


class Labelling(NamedTuple):
    """How recordings below the folder `root` are labelled.

    kind: one of KINDS, or a regular expression whose first group, in the path below `root`, is the
    label. genres: what genres are folded into; () leaves them as they are.
    """

    root: Path
    kind: str
    genres: tuple = ()

    def label_of(self, path):
        """The label of the recording at `path`; None for the kind 'none'.

        Raises UserError if it has none.
        """
        if self.kind == "none":
            return None
        if self.kind in ("genre", "year"):
            return self._of_tags(path)
        return readable(self._of_name(path))

    def _of_name(self, path):
        if self.kind == "folder":
            # Only the root is resolved ('.' has no name): elsewhere a link's own name counts.
            return self.root.resolve().name if path.parent == self.root else path.parent.name
        if self.kind == "speaker":
            return speaker_of(path)
        name = path.relative_to(self.root).as_posix()
        found = re.search(self.kind, name)
        if not found or not found[1]:
            raise UserError(f"{path}: no label, --labels {self.kind} doesn't match {name}; "
                            "mend the expression, or remove the file")
        return found[1]

    def _of_tags(self, path):
        tag = tag_of(path, self.kind)
        if self.kind != "genre" or not self.genres:
            return tag
        genre = match_genre(tag, self.genres)
        if genre is None:
            raise UserError(f"{path}: its genre, {tag}, is none of --genres "
                            f"{','.join(self.genres)}; add it, or remove the file")
        return genre


def shared_labels(labelling: Labelling, paths: Iterable[Path]) -> list[str]:
    """A warning for each label that folders in different places have in common."""
    if labelling.kind != "folder":
        return []
    folders = defaultdict(list)
    for folder in sorted({path.parent for path in paths}):
        folders[labelling.label_of(folder / "x")].append(
            readable(folder.relative_to(labelling.root).as_posix()))
    return [f"label {label} is that of {len(names)} folders, {', '.join(names[:3])}"
            + ", …" * (len(names) > 3)
            + "; if they are not alike, give --labels '(.+)/', which takes whole paths for labels"
            for label, names in folders.items() if len(names) > 1]


def speaker_of(path):
    """The speaker that a file's name tells: 0_george_12 is george's.

    Everywhere else the speaker comes first, as in VCTK (p225_001, p225_001_mic1) and LibriSpeech
    (1034-121119-0000).
    """
    digit = SPOKEN_DIGIT.fullmatch(path.stem)
    return digit[1] if digit else re.split("[_-]", path.stem)[0] or path.stem


def find_label(names, wanted):
    """The index in `names` of the label that --label names, by its name or by its number.

    Raises UserError where there is no such label.
    """
    if not names:
        raise UserError(f"--label {wanted}: the model was trained without labels; leave it out")
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names[:SHOWN]))
    more = f", … {len(names) - 1} {names[-1]}" if len(names) > SHOWN else ""
    raise UserError(f"--label {wanted}: no such label; give a number or a name of: {known}{more}")
