"""What preprocess.py prints at the end: what was written, what was left out, what comes next."""

import shlex
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from common.text import printable
from datasets.audio.encoding import EncodingConfig
from datasets.corpus.builder import BuildResult
from datasets.corpus.manifest import ENTIRE_CORPUS, CorpusPart
from datasets.corpus.summary import draw_summary, sparse_label_warnings, summary_table

LISTED = 10  # recordings that are named


@dataclass(frozen=True)
class Preparation:
    """A corpus, or a part of one, that was prepared.

    output: its folder. wants_validation: whether any recordings are to be held back. left_out: the
    file that lists what is left out, or None. seconds: that it took.
    """

    output: str
    part: CorpusPart
    config: EncodingConfig
    wants_validation: bool
    result: BuildResult
    left_out: Path | None
    seconds: float


def print_report(done: Preparation, warnings: Iterable[str]) -> None:
    """Print the report on stdout, and on stderr the `warnings` and what was left out.

    Also draws the summary of the corpus into its folder.
    """
    result = done.result
    _print_totals(done)
    picture = Path(done.output, f"{done.part.stem.replace('vctk', 'corpus')}.png")
    if result.entries:
        for line in summary_table(result.entries):
            print(line)
        draw_summary(result.entries, picture)
    _print_remarks(done)
    _print_some("left out", result.problems.values())
    _print_some("used as far as it goes", result.notes.values())
    for warning in [*warnings, *sparse_label_warnings(result.entries), *_part_warnings(done)]:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    _print_next_step(done, picture)


def _print_totals(done: Preparation) -> None:
    entries = done.result.entries
    names = sorted({entry.label for entry in entries if entry.label is not None})
    labels = ", ".join(map(printable, names[:LISTED])) or "none"
    if len(names) > LISTED:
        labels += f" and {len(names) - LISTED} more"
    length = timedelta(seconds=round(sum(entry.seconds for entry in entries)))
    held_back = sum(entry.held_back for entry in entries)
    print(f"{len(entries)} recordings read, {length} of sound, in {done.seconds:.1f} s; "
          f"{len(done.result.problems)} left out; {held_back} held back for validation; labels: "
          f"{labels}")


def _print_remarks(done: Preparation) -> None:
    """Print what happened to samples."""
    config, result = done.config, done.result
    if config.features:
        print(f"features: {config.features.summary()}")
    if result.clipped:
        print(f"{result.clipped} samples beyond full scale were clipped")
    if config.silence_threshold:
        print(f"{result.silent / config.rate:.1f} s of silence at beginnings and ends were cut off")
    if len(result.notes) == 1:
        print("1 recording has less than its header says; used as far as it goes")
    elif result.notes:
        print(f"{len(result.notes)} recordings have less than their headers say; used as far as "
              "they go")


def _print_some(what: str, lines: Collection[str]) -> None:
    """Print the first of the `lines` on stderr, and how many more there are."""
    for line in list(lines)[:LISTED]:
        print(f"{what}: {printable(line)}", file=sys.stderr)
    if len(lines) > LISTED:
        print(f"and {len(lines) - LISTED} more {what}", file=sys.stderr)


def _part_warnings(done: Preparation) -> list[str]:
    """Return a warning if a part lacks recordings that other parts have to contain."""
    entries = done.result.entries
    part = f"part {done.part.number} of {done.part.count}"
    if done.part != ENTIRE_CORPUS and not entries:
        return [f"{part} holds no recording; the others have to"]
    has_validation = any(entry.held_back for entry in entries)
    if done.part != ENTIRE_CORPUS and done.wants_validation and not has_validation:
        return [f"{part} holds no recording for validation; the others have to"]
    return []


def _print_next_step(done: Preparation, picture: Path) -> None:
    written = f"written to {done.output}"
    if done.result.entries:
        written += f", drawn in {picture}"
    if done.left_out:
        written += f", what is left out is in {done.left_out}"
    following = "next"
    if done.part != ENTIRE_CORPUS:
        following += f", with all {done.part.count} parts in one folder"
    print(f"{written}; {following}: python train_wavenet.py --data {shlex.quote(done.output)}")
