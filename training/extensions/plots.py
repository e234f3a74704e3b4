"""A run's curves as pictures, drawn from its log, and its label counts."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.fonts import legible
from common.plots import draw_label_counts, save_figure
from training.extensions.extension import Extension

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from training.trainer import Trainer

Log = Sequence[Mapping[str, Any]]  # see `training.extensions.log_report.LogReport`

LABEL_KEY = re.compile(r"validation/label/(.+)/bits/dim")
MAX_BARS = 30  # labels in data.png
MIN_POINTS_FOR_TREND = 10
TREND_WINDOW = 0.1  # of the points
PAUSE_FACTOR = 20  # after drawing, how many times as long as it took no plot is drawn


class PlotReport(Extension):
    """Draws `loss.png`, `speed.png` and, where labels are validated, `labels.png` in `out`.

    See `figure_of_loss`, `figure_of_speed` and `figure_of_labels`. Where epochs are so short that
    drawing would take more than a twentieth of the time, some are skipped, but never the last.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self.paused_until = 0.0  # by time.monotonic()
        self.not_drawn: Trainer | None = None  # whose log has entries that are not drawn yet

    def __call__(self, trainer: Trainer) -> None:
        """Draw, unless the pause is not over."""
        self.not_drawn = trainer
        if time.monotonic() >= self.paused_until:
            self.finalize()

    def finalize(self) -> None:
        """Draw what is not drawn yet."""
        trainer, self.not_drawn = self.not_drawn, None
        if not trainer:
            return
        began = time.monotonic()
        save_figure(self.out / "loss.png", figure_of_loss(trainer.log))
        save_figure(self.out / "speed.png", figure_of_speed(trainer.log, trainer.unit))
        if labels := figure_of_labels(trainer.log):
            save_figure(self.out / "labels.png", labels)
        now = time.monotonic()
        self.paused_until = now + PAUSE_FACTOR * (now - began)


def figure_of_loss(log: Log) -> Figure:
    """Plot bits/dim of training and validation over iterations."""
    return draw_curves(log, "bits/dim", {"training": "main/bits/dim",
                                         "validation": "validation/main/bits/dim"},
                       smoothed=("training",))


def figure_of_speed(log: Log, unit: str) -> Figure:
    """Plot images or samples (`unit`) per second over iterations."""
    figure = draw_curves(log, f"{unit} a second", {"speed": "samples_per_second"},
                         smoothed=("speed",))
    figure.axes[0].set_ylim(bottom=0)
    return figure


def figure_of_labels(log: Log) -> Figure | None:
    """Plot each label's validation over iterations; None if the log has none."""
    keys = {match[1]: match[0] for entry in log for key in entry
            if (match := LABEL_KEY.fullmatch(key))}
    return draw_curves(log, "validation bits/dim", keys) if keys else None


def figure_of_data(unit: str, label_names: Sequence[str], training_set: Any,
                   validation_set: Any) -> Figure:
    """Draw how much data each label has; with many labels, only those with most.

    training_set, validation_set: datasets with `label_counts`, in `unit`; the second may be None.
    """
    from matplotlib.figure import Figure
    names = label_names or ["all"]
    label_counts = [split.label_counts(len(names)) if split is not None else [0] * len(names)
                    for split in (training_set, validation_set)]
    rows = zip(names, *label_counts, strict=True)
    largest = sorted(rows, key=lambda row: -row[1] - row[2])[:MAX_BARS]
    figure = Figure(figsize=(8, max(2.5, 1 + 0.22 * len(largest))), layout="constrained")
    axes = figure.subplots()
    draw_label_counts(axes, {name: counts for name, *counts in largest}, unit)
    title = f"{unit} of each label"
    if len(names) > MAX_BARS:
        title += f", the largest {MAX_BARS} of {len(names)}"
    axes.set(title=title)
    return figure


def draw_curves(log: Log, unit: str, curves: Mapping[str, str],
                smoothed: Sequence[str] = ()) -> Figure:
    """Plot values of the log, in `unit`, over iterations.

    Dashed lines mark where the run was resumed, red dotted ones where it was resumed after a
    crash.

    curves: {name: key in the log}. smoothed: names of curves that are drawn pale, with their trend
    on top, if they have enough points.
    """
    # Imported here, because it takes long; the object-oriented form needs no display.
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, key in curves.items():
        entries = [entry for entry in log if key in entry]
        if entries:
            _draw_curve(axes, name, [entry["iteration"] for entry in entries],
                        [entry[key] for entry in entries], name in smoothed)
    resumptions = [entry for entry in log if "resumed_at" in entry]
    _mark_iterations(axes, "resumed", [entry["resumed_at"] for entry in resumptions
                                       if "restart" not in entry], "grey", "--")
    _mark_iterations(axes, "restarted after a crash", [entry["resumed_at"] for entry in resumptions
                                                       if "restart" in entry], "tab:red", ":")
    axes.set(xlabel="iteration", ylabel=unit)
    axes.grid(alpha=0.3)
    if axes.lines:
        legend = axes.legend(ncols=1 + (len(curves) + 2) // 12, fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)  # a label's name may contain dollar signs
    return figure


def _mark_iterations(axes: Axes, name: str, iterations: Sequence[int], color: str,
                     linestyle: str) -> None:
    """Draw vertical lines, with one entry in the legend."""
    for i, iteration in enumerate(iterations):
        axes.axvline(iteration, color=color, linestyle=linestyle, linewidth=1.2,
                     label=name if i == 0 else None)


def _draw_curve(axes: Axes, name: str, iterations: Sequence[int], values: Sequence[float],
                smoothed: bool) -> None:
    has_trend = smoothed and len(values) >= MIN_POINTS_FOR_TREND
    # Markers where points are few, as those of validation, once per epoch.
    style: dict[str, Any] = {}
    if not smoothed or len(values) == 1:
        style = {"marker": ".", "markersize": 9}
    name = legible(name)
    line, = axes.plot(iterations, values, label=name, linewidth=1.2,
                      alpha=0.35 if has_trend else 1, **style)
    if has_trend:
        axes.plot(iterations, trend(values), label=f"{name}, trend", linewidth=1.6,
                  color=line.get_color())


def trend(values: Sequence[float]) -> list[float]:
    """Return the moving average of `values`, as long as they are.

    The window is centred. Towards the ends it becomes shorter: otherwise the trend of a falling
    curve would end above the curve.
    """
    widest = max(round(TREND_WINDOW * len(values) / 2), 1)
    sums = [0.0, *accumulate(values)]
    half_widths = [min(widest, i, len(values) - 1 - i) for i in range(len(values))]
    return [(sums[i + half + 1] - sums[i - half]) / (2 * half + 1)
            for i, half in enumerate(half_widths)]
