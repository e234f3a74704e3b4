"""What a corpus holds back for validation: whole recordings, or the end of each one."""

import os
import re
import zlib
from collections.abc import Collection
from typing import NamedTuple

from common.errors import UserError

UNITS = ("recordings", "each")  # hold back some whole recordings, or the end of each one


class Piece(NamedTuple):
    """Samples of a recording: from `first` to before `last` they belong to `split`.

    name: the recording's; for its end with the time at which that begins, as in a.ogg#t=54.
    """

    split: str
    name: str
    first: int
    last: int


class Splitting(NamedTuple):
    """How recordings are divided into training and validation.

    names: recordings that are held back whole. rate: in Hz. tail: the fraction of every other
    recording that is held back at its end. hop: samples that a frame of features covers; cuts lie
    between frames.
    """

    names: Collection[str]
    rate: int
    tail: float = 0.0
    hop: int = 1

    def pieces(self, name: str, length: int) -> list[Piece]:
        """Divide the `length` samples of the recording `name`; no sample is in two pieces."""
        if name in self.names:
            return [Piece("validation", name, 0, length)]
        cut = length - round(length * self.tail)
        cut -= cut % self.hop
        if not self.tail or not 0 < cut < length:  # too short for both
            return [Piece("train", name, 0, length)]
        return [Piece("train", name, 0, cut),
                Piece("validation", f"{name}#t={cut / self.rate:g}", cut, length)]

    def held_back(self, name: str, length: int) -> int:
        """Count the samples of a recording that are held back."""
        return sum(piece.last - piece.first for piece in self.pieces(name, length)
                   if piece.split == "validation")


def validation_names(names: Collection[str], wanted: float | str) -> set[str]:
    """Choose the `names` that are held back for validation.

    wanted: the fraction, or a regular expression (text) that matches the names. A hash of the name
    selects a fraction, so every run selects the same, in any order of the names: at least one of
    two or more, and never all. Two microphones' recordings of one take, as VCTK's
    p225_001_mic1.flac and p225_001_mic2.flac, stay together.
    """
    if isinstance(wanted, str):
        return {name for name in names if re.search(wanted, name)}
    takes: dict[str, list[str]] = {}
    for name in set(names):
        takes.setdefault(re.sub(r"_mic\d+(?=\.\w+$)", "", name), []).append(name)
    order = sorted(takes, key=lambda take: (zlib.crc32(os.fsencode(take)), take))
    if not wanted or len(order) < 2:
        return set()
    held_back = order[:min(max(1, round(len(order) * wanted)), len(order) - 1)]
    return {name for take in held_back for name in takes[take]}


def check_split(validation: float | str, held_back: int, count: int) -> None:
    """Raise UserError if a regular expression leaves nothing to train on, or to validate with."""
    if isinstance(validation, str) and not 0 < held_back < count:
        raise UserError(f"{validation}: matches {held_back} of {count} recordings; give an "
                        "expression that some match and some don't", parameter="validation")
