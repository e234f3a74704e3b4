"""Summarise what a corpus was built from: a table, a picture, and labels with too little sound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from common.files import atomic_write
from common.plots import draw_label_counts
from common.text import display_width, pad_to_width, printable

if TYPE_CHECKING:
    from datasets.corpus.builder import Entry

SHOWN = 30  # labels in the table and in the picture: those with the most sound
QUIETEST = -100  # dB


def by_label(entries: Iterable[Entry]) -> dict[str | None, list[Entry]]:
    """Return {label: its entries}, labels with the most sound first."""
    found = defaultdict(list)
    for entry in entries:
        found[entry.label].append(entry)
    return dict(sorted(found.items(), key=lambda item: (-total_seconds(item[1]), str(item[0]))))


def total_seconds(entries: Iterable[Entry]) -> float:
    """Return the seconds of sound in all."""
    return sum(entry.seconds for entry in entries)


def mean_decibels(entries: Iterable[Entry]) -> float:
    """Return the mean loudness; 0 dB is full scale."""
    power = fmean(entry.loudness ** 2 for entry in entries)
    return max(10 * np.log10(power), QUIETEST) if power else QUIETEST


def summary_table(entries: Sequence[Entry]) -> list[str]:
    """Return lines of text: recordings, seconds, lengths and loudness of each label."""
    labels = by_label(entries)
    if len(labels) < 2:
        labels = {"all": list(entries)}
    width = max(5, *(display_width(printable(label)) for label in list(labels)[:SHOWN]))
    lines = [f"{'label':{width}}  recordings   seconds  each (shortest, median, longest)  loudness"]
    for label, own in list(labels.items())[:SHOWN]:
        lengths = [entry.seconds for entry in own]
        each = f"{min(lengths):.2f}, {median(lengths):.2f}, {max(lengths):.2f} s"
        lines.append(f"{pad_to_width(printable(label), width)}  {len(own):10,}  "
                     f"{total_seconds(own):8,.0f}  {each:>33}  {mean_decibels(own):5.1f} dB")
    if len(labels) > SHOWN:
        rest = [entry for own in list(labels.values())[SHOWN:] for entry in own]
        lines.append(f"and {len(labels) - SHOWN} more, {len(rest):,} recordings, "
                     f"{total_seconds(rest):,.0f} seconds")
    return lines


def sparse_label_warnings(entries: Sequence[Entry], fraction: float = 0.1) -> list[str]:
    """Return a warning for each label with less sound than that fraction of the labels' mean."""
    labels = by_label(entries)
    if len(labels) < 2:
        return []
    enough = fraction * total_seconds(entries) / len(labels)
    return [f"label {printable(label)} has {total_seconds(own):.1f} seconds in {len(own)} "
            f"{'recording' if len(own) == 1 else 'recordings'}, next to nothing beside the others; "
            "the network will not learn it" for label, own in labels.items()
            if total_seconds(own) < enough]


def draw_summary(entries: Sequence[Entry], path: str | Path) -> None:
    """Draw a picture into `path`: seconds of each label, lengths and loudness of recordings.

    Raises UserError if it can't be written.
    """
    # Imported here, because it takes long; the object-oriented form needs no display.
    from matplotlib.figure import Figure
    labels = dict(list(by_label(entries).items())[:SHOWN])
    figure = Figure(figsize=(10, max(3.0, 0.9 + 0.22 * len(labels))), layout="constrained")
    of_labels, lengths, loudness = figure.subplots(1, 3)
    label_counts = {
        str(label or "all"): [sum(entry.seconds - entry.held_back for entry in own),
                              sum(entry.held_back for entry in own)]
        for label, own in labels.items()}
    draw_label_counts(of_labels, label_counts, "seconds")
    of_labels.set(title="sound of each label")
    lengths.hist([entry.seconds for entry in entries], bins=40)
    lengths.set(xlabel="seconds", ylabel="recordings", title="length")
    loudness.hist([mean_decibels([entry]) for entry in entries], bins=40)
    loudness.set(xlabel="dB of full scale", ylabel="recordings", title="loudness")
    for axes in (of_labels, lengths, loudness):
        axes.grid(alpha=0.3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
