"""What a corpus was gathered from: a table, a picture, and which labels have next to nothing."""

from collections import defaultdict
from statistics import fmean, median

import numpy as np

from common.files import atomic_write
from common.plots import draw_label_counts
from common.text import columns, padded, printable

SHOWN = 30  # labels in the table and in the picture, those with most sound
QUIETEST = -100  # dB


def by_label(entries):
    """{label: its entries}, those with most sound first."""
    found = defaultdict(list)
    for entry in entries:
        found[entry.label].append(entry)
    return dict(sorted(found.items(), key=lambda item: (-seconds(item[1]), str(item[0]))))


def seconds(entries):
    """Of sound, in all."""
    return sum(entry.seconds for entry in entries)


def decibels(entries):
    """The mean loudness, 0 dB being full scale."""
    power = fmean(entry.loudness ** 2 for entry in entries)
    return max(10 * np.log10(power), QUIETEST) if power else QUIETEST


def table(entries):
    """Lines of text: of each label recordings, seconds, a recording's length, loudness."""
    labels = by_label(entries)
    if len(labels) < 2:
        labels = {"all": entries}
    width = max(5, *(columns(printable(label)) for label in list(labels)[:SHOWN]))
    lines = [f"{'label':{width}}  recordings   seconds  each (shortest, median, longest)  loudness"]
    for label, own in list(labels.items())[:SHOWN]:
        lengths = [entry.seconds for entry in own]
        each = f"{min(lengths):.2f}, {median(lengths):.2f}, {max(lengths):.2f} s"
        lines.append(f"{padded(printable(label), width)}  {len(own):10,}  {seconds(own):8,.0f}  "
                     f"{each:>33}  {decibels(own):5.1f} dB")
    if len(labels) > SHOWN:
        rest = [entry for own in list(labels.values())[SHOWN:] for entry in own]
        lines.append(f"and {len(labels) - SHOWN} more, {len(rest):,} recordings, "
                     f"{seconds(rest):,.0f} seconds")
    return lines


def sparse(entries, share=0.1):
    """A warning for each label that has less than that share of the labels' mean."""
    labels = by_label(entries)
    if len(labels) < 2:
        return []
    enough = share * seconds(entries) / len(labels)
    return [f"label {printable(label)} has {seconds(own):.1f} seconds in {len(own)} "
            f"{'recording' if len(own) == 1 else 'recordings'}, next to nothing beside the others; "
            "the network will not learn it" for label, own in labels.items()
            if seconds(own) < enough]


def draw(entries, path):
    """A picture: seconds of each label, lengths and loudness of the recordings."""
    # Here, since it takes long to import; the object-oriented form needs no display.
    from matplotlib.figure import Figure
    labels = dict(list(by_label(entries).items())[:SHOWN])
    figure = Figure(figsize=(10, max(3.0, 0.9 + 0.22 * len(labels))), layout="constrained")
    of_labels, lengths, loudness = figure.subplots(1, 3)
    label_counts = {
        str(label or "all"): [seconds(entry for entry in own if entry.held_back == held_back)
                              for held_back in (False, True)]
        for label, own in labels.items()}
    draw_label_counts(of_labels, label_counts, "seconds")
    of_labels.set(title="sound of each label")
    lengths.hist([entry.seconds for entry in entries], bins=40)
    lengths.set(xlabel="seconds", ylabel="recordings", title="length")
    loudness.hist([decibels([entry]) for entry in entries], bins=40)
    loudness.set(xlabel="dB of full scale", ylabel="recordings", title="loudness")
    for axes in (of_labels, lengths, loudness):
        axes.grid(alpha=0.3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
