"""The run's curves as pictures, drawn anew from the log."""

import re
from pathlib import Path

from datasets.files import replacing

OF_LABEL = re.compile(r"validation/label/(.+)/bits/dim")


class PlotReport:
    """Draws `loss.png` (bits/dim by iteration) and `speed.png` (samples a second) in `out`.

    And where the log has validation for each label, `labels.png`.
    Dashed lines mark where the run was resumed, red dotted ones where that was for a crash.
    """

    def __init__(self, out):
        self.out = Path(out)

    def __call__(self, trainer):
        log = trainer.log
        self._draw("loss.png", "bits/dim", log, {
            "training": "main/bits/dim", "validation": "validation/main/bits/dim"})
        self._draw("speed.png", f"{trainer.unit} a second", log, {"speed": "samples_per_second"})
        of_labels = {match[1]: match[0] for entry in log for key in entry
                     if (match := OF_LABEL.fullmatch(key))}
        if of_labels:
            self._draw("labels.png", "validation bits/dim", log, of_labels)

    def _draw(self, name, unit, log, curves):
        # Here, since it takes long to import; the object-oriented form needs no display.
        from matplotlib.figure import Figure
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for label, key in curves.items():
            points = [(entry["iteration"], entry[key]) for entry in log if key in entry]
            if points:
                style = {"marker": ".", "markersize": 9} if label != "training" else {}
                axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2, **style)
        styles = {"resumed": ("grey", "--"), "restarted after a crash": ("tab:red", ":")}
        for label, (color, linestyle) in styles.items():
            iterations = [entry["resumed_at"] for entry in log if "resumed_at" in entry
                          and ("restart" in entry) == (label != "resumed")]
            for i, iteration in enumerate(iterations):
                axes.axvline(iteration, color=color, linestyle=linestyle, linewidth=1.2,
                             label=None if i else label)
        axes.set(xlabel="iteration", ylabel=unit)
        if name == "speed.png":
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(ncols=1 + (len(curves) + len(styles)) // 12, fontsize="small")
        with replacing(self.out / name) as temporary:
            figure.savefig(temporary, dpi=110)
