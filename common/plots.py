"""Helpers for plots that several modules draw: bars of label counts, and how a figure is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import atomic_write
from common.fonts import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_figure(path: str | Path, figure: Figure, tight: bool = False) -> None:
    """Write a figure as the PNG `path`.

    tight: crop or extend the picture to what is drawn, text beyond the axes included.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", bbox_inches="tight" if tight else None)


def draw_label_counts(axes: Axes, label_counts: Mapping[str, Sequence[float]], unit: str) -> None:
    """Draw bars: how much of each label there is to train on, and how much is held back.

    label_counts: {label: (training, validation)}, in `unit`.
    """
    training, validation = zip(*label_counts.values(), strict=True)
    bars = range(len(label_counts))
    axes.barh(bars, training, label="training")
    axes.barh(bars, validation, left=training, label="validation")
    # A name may contain dollar signs, which must not start a formula.
    axes.set_yticks(bars, list(map(legible, label_counts)), parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel=unit)
    axes.grid(alpha=0.3)
    axes.set_xlim(0, 1.35 * max(map(sum, label_counts.values())))  # room for the legend
    axes.legend(fontsize="small", loc="lower right")
