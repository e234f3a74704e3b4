"""A run's curves as pictures, drawn from its log."""

import re
import time
from itertools import accumulate
from pathlib import Path

from common.files import atomic_write
from common.fonts import legible
from datasets.corpus.summary import SHOWN, draw_label_counts

OF_LABEL = re.compile(r"validation/label/(.+)/bits/dim")
FEWEST_SMOOTHED = 10  # points that a trend is drawn for
REST = 20  # times as long as drawing takes, until a run's curves are drawn again
SMOOTHED = 0.1  # of the points, how many the trend is a mean over


class PlotReport:
    """Draws `loss.png`, `speed.png` and, if there is validation of labels, `labels.png` in `out`.

    See `figure_of_loss`, `figure_of_speed` and `figure_of_labels`. Where epochs are so short that
    it would take more than a part in REST of the time, some are left out, but not the last.
    """

    def __init__(self, out):
        self.out = Path(out)
        self.resting_until = 0.0  # time.monotonic()
        self.behind = None  # the trainer whose log has more than was drawn

    def __call__(self, trainer):
        self.behind = trainer
        if time.monotonic() >= self.resting_until:
            self.finish()

    def finish(self):
        """Draw what is not drawn yet."""
        trainer, self.behind = self.behind, None
        if not trainer:
            return
        began = time.monotonic()
        save(self.out / "loss.png", figure_of_loss(trainer.log))
        save(self.out / "speed.png", figure_of_speed(trainer.log, trainer.unit))
        if labels := figure_of_labels(trainer.log):
            save(self.out / "labels.png", labels)
        now = time.monotonic()
        self.resting_until = now + REST * (now - began)


def save(path, figure):
    """Write a figure as the PNG `path`."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def figure_of_loss(log):
    """bits/dim in training and validation by iteration: a matplotlib Figure.

    log: the run's, a list of dictionaries: see `training.extensions.reports.LogReport`.
    """
    return draw_curves(log, "bits/dim", {"training": "main/bits/dim",
                                         "validation": "validation/main/bits/dim"},
                       smoothed=("training",))


def figure_of_speed(log, unit):
    """Images or samples, as `unit` says, a second by iteration: a matplotlib Figure."""
    figure = draw_curves(log, f"{unit} a second", {"speed": "samples_per_second"},
                         smoothed=("speed",))
    figure.axes[0].set_ylim(bottom=0)
    return figure


def figure_of_labels(log):
    """Each label's validation by iteration: a matplotlib Figure, or None if the log has none."""
    of_labels = {match[1]: match[0] for entry in log for key in entry
                 if (match := OF_LABEL.fullmatch(key))}
    return draw_curves(log, "validation bits/dim", of_labels) if of_labels else None


def figure_of_data(unit, label_names, training_set, validation_set):
    """How much there is of each label, or of the SHOWN that have most: a matplotlib Figure.

    training_set, validation_set: datasets with `label_counts`, in `unit`; the second may be None.
    """
    from matplotlib.figure import Figure
    names = label_names or ["all"]
    label_counts = [part.label_counts(len(names)) if part is not None else [0] * len(names)
               for part in (training_set, validation_set)]
    rows = zip(names, *label_counts, strict=True)
    largest = sorted(rows, key=lambda row: -row[1] - row[2])[:SHOWN]
    figure = Figure(figsize=(8, max(2.5, 1 + 0.22 * len(largest))), layout="constrained")
    axes = figure.subplots()
    draw_label_counts(axes, {name: of_parts for name, *of_parts in largest}, unit)
    axes.set(title=f"{unit} of each label" + f", the largest {SHOWN} of {len(names)}"
             * (len(names) > SHOWN))
    return figure


def draw_curves(log, unit, curves, smoothed=()):
    """A matplotlib Figure of values in the log by iteration, `unit` being what they are in.

    Dashed lines mark where the run was resumed, red dotted ones where that was for a crash.

    curves: {name: key in the log}. smoothed: names of those that are drawn pale, their trend over
    them, where there are points enough for one.
    """
    # Here, since it takes long to import; the object-oriented form needs no display.
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, key in curves.items():
        points = [(entry["iteration"], entry[key]) for entry in log if key in entry]
        if points:
            _draw_curve(axes, name, *zip(*points, strict=True), name in smoothed)
    styles = {"resumed": ("grey", "--"), "restarted after a crash": ("tab:red", ":")}
    for name, (color, linestyle) in styles.items():
        iterations = [entry["resumed_at"] for entry in log if "resumed_at" in entry
                      and ("restart" in entry) == (name != "resumed")]
        for i, iteration in enumerate(iterations):
            axes.axvline(iteration, color=color, linestyle=linestyle, linewidth=1.2,
                         label=None if i else name)
    axes.set(xlabel="iteration", ylabel=unit)
    axes.grid(alpha=0.3)
    if axes.lines:
        legend = axes.legend(ncols=1 + (len(curves) + len(styles)) // 12, fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)  # a label's name may have dollars in it
    return figure


def _draw_curve(axes, name, iterations, values, smoothed):
    has_trend = smoothed and len(values) >= FEWEST_SMOOTHED
    # A point each where there are few, as of validation, once an epoch.
    style = {} if smoothed and len(values) > 1 else {"marker": ".", "markersize": 9}
    name = legible(name)
    line, = axes.plot(iterations, values, label=name, linewidth=1.2,
                      alpha=0.35 if has_trend else 1, **style)
    if has_trend:
        axes.plot(iterations, trend(values), label=f"{name}, trend", linewidth=1.6,
                  color=line.get_color())


def trend(values):
    """The moving average of `values` over a tenth of them: a list as long.

    A mean is over as many values before as after. Towards the ends it is over fewer, lest the
    trend of a curve that falls be drawn above its end.
    """
    most, sums = max(round(SMOOTHED * len(values) / 2), 1), [0, *accumulate(values)]
    reaches = [min(most, i, len(values) - 1 - i) for i in range(len(values))]
    return [(sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1)
            for i, reach in enumerate(reaches)]
