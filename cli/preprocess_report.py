"""What preprocess.py prints at the end: what was written, what was left out, what comes next."""

import shlex
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from common.text import printable
from datasets.audio.encoding import EncodingConfig
from datasets.corpus.builder import BuildResult, Entry
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


def print_report(corpus: Preparation, warnings: Iterable[str]) -> None:
    """Print the report on stdout, and on stderr the `warnings` and what was left out.

    Also draws the summary of the corpus into its folder.
    """
    result = corpus.result
    _print_totals(corpus)
    picture = Path(corpus.output, f"{corpus.part.stem.replace('vctk', 'corpus')}.png")
    if result.entries:
        for line in summary_table(result.entries):
            print(line)
        draw_summary(result.entries, picture)
    _print_remarks(corpus)
    _print_some("left out", result.problems.values())
    _print_some("used as far as it goes", result.notes.values())
    for warning in [*warnings, *sparse_label_warnings(result.entries), *_part_warnings(corpus)]:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    _print_next_step(corpus, picture)


def _print_totals(corpus: Preparation) -> None:
    entries = corpus.result.entries
    names = sorted({entry.label for entry in entries if entry.label is not None})
    labels = ", ".join(map(printable, names[:LISTED])) or "none"
    if len(names) > LISTED:
        labels += f" and {len(names) - LISTED} more"
    length = timedelta(seconds=round(sum(entry.seconds for entry in entries)))
    print(f"{len(entries)} recordings read, {length} of sound, in {corpus.seconds:.1f} s; "
          f"{len(corpus.result.problems)} left out; {_held_back(entries)}; labels: "
          f"{labels}")


def _held_back(entries: Collection[Entry]) -> str:
    """Tell what is held back: recordings, or ends of recordings."""
    held_back = [entry for entry in entries if entry.held_back]
    if all(entry.held_back == entry.seconds for entry in held_back):
        return f"{len(held_back)} held back for validation"
    length = timedelta(seconds=round(sum(entry.held_back for entry in held_back)))
    return f"the ends of {len(held_back)} held back for validation, {length}"


def _print_remarks(corpus: Preparation) -> None:
    """Print what happened to samples."""
    config, result = corpus.config, corpus.result
    if config.features:
        print(f"features: {config.features.summary()}")
    if result.clipped:
        print(f"{result.clipped} samples beyond full scale were clipped")
    if config.silence_threshold:
        print(f"{result.silent / config.rate:.1f} s of silence at beginnings and ends were cut off")
    if config.silence_after:
        print(f"{config.silence_after:g} s of silence follow each recording")
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


def _part_warnings(corpus: Preparation) -> list[str]:
    """Return a warning if a part lacks recordings that other parts have to contain."""
    entries = corpus.result.entries
    part = f"part {corpus.part.number} of {corpus.part.count}"
    if corpus.part != ENTIRE_CORPUS and not entries:
        return [f"{part} holds no recording; the others have to"]
    has_validation = any(entry.held_back for entry in entries)
    if corpus.part != ENTIRE_CORPUS and corpus.wants_validation and not has_validation:
        return [f"{part} holds no recording for validation; the others have to"]
    return []


def _print_next_step(corpus: Preparation, picture: Path) -> None:
    written = f"written to {corpus.output}"
    if corpus.result.entries:
        written += f", drawn in {picture}"
    if corpus.left_out:
        written += f", what is left out is in {corpus.left_out}"
    following = "next"
    if corpus.part != ENTIRE_CORPUS:
        following += f", with all {corpus.part.count} parts in one folder"
    print(f"{written}; {following}: python train_wavenet.py --data {shlex.quote(corpus.output)}")
