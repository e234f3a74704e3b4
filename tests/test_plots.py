"""Plots of a run, drawn from its log alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from common.plots import save_figure
from datasets.corpus.reader import Recording, Split
from datasets.corpus.windows import Windows
from datasets.images.dataset import ImageCodes
from sampling.output.sound_plots import figure_of_sound
from training.extensions import plots
from training.extensions.plots import (
    figure_of_data,
    figure_of_labels,
    figure_of_loss,
    figure_of_speed,
    trend,
)


def log_of(count):
    """A log whose loss falls along a line, with some noise, and is validated now and then."""
    noise = np.random.default_rng(0).normal(size=count) * 0.05
    log = [{"epoch": i // 5, "iteration": 10 * i, "main/bits/dim": 4 - i / count + noise[i],
            "samples_per_second": 50 + 100 * noise[i]} for i in range(count)]
    for entry in log[::5]:
        entry["validation/main/bits/dim"] = entry["main/bits/dim"]
    return log


def curves(figure):
    """{name: (iterations, values)} of what is in a figure's legend."""
    lines = figure.axes[0].get_legend_handles_labels()
    return {name: line.get_data() for line, name in zip(*lines, strict=True)}


def test_a_long_run_has_trends_of_loss_and_speed():
    log = log_of(100)
    loss, speed = curves(figure_of_loss(log)), curves(figure_of_speed(log, "images"))
    assert list(loss) == ["training", "training, trend", "validation"]
    assert list(speed) == ["speed", "speed, trend"]
    line = [4 - i / 100 for i in range(100)]
    raw, smooth = (np.abs(np.subtract(loss[name][1], line)).mean()
                   for name in ("training", "training, trend"))
    assert smooth < raw / 2
    assert list(loss["training"][1]) == [entry["main/bits/dim"] for entry in log]


def test_a_short_run_has_no_trend():
    assert list(curves(figure_of_loss(log_of(9)))) == ["training", "validation"]


@pytest.mark.parametrize("count", [10, 11, 25, 40])
def test_the_trend_of_a_line_is_the_line_up_to_its_ends(count):
    line = [7 - 0.3 * i for i in range(count)]
    assert trend(line) == pytest.approx(line)


def test_short_epochs_are_not_all_drawn_but_the_last_is(tmp_path, monkeypatch):
    drawn, now = [], 0.0

    def draw_slowly(path, _):
        nonlocal now
        now += 0.5
        drawn.append((path.name, len(trainer.log)))

    monkeypatch.setattr(plots, "save_figure", draw_slowly)
    monkeypatch.setattr(plots.time, "monotonic", lambda: now)
    trainer, report = SimpleNamespace(log=[], unit="images"), plots.PlotReport(tmp_path)
    for epoch in range(95):  # of 0.6 s
        trainer.log = log_of(epoch + 1)
        now += 0.6
        report(trainer)
    assert [count for name, count in drawn if name == "loss.png"] == [1, 35, 69]
    for _ in range(2):  # the second time there is nothing left to draw
        report.finalize()
    assert drawn[6:] == [("loss.png", 95), ("speed.png", 95)]


def test_labels_are_drawn_if_the_log_has_them():
    log = log_of(3)
    assert figure_of_labels(log) is None
    log[2]["validation/label/a/b c/bits/dim"] = 3.5
    (iterations, values), = curves(figure_of_labels(log)).values()
    assert (list(iterations), list(values)) == ([20], [3.5])


def test_the_axis_of_the_speed_starts_at_0():
    assert figure_of_speed(log_of(4), "images").axes[0].get_ylim()[0] == 0


def test_crashes_and_other_resumptions_have_different_marks():
    log = log_of(7)
    log[1] |= {"resumed_at": 10}
    log[3] |= {"resumed_at": 30, "restart": 1}
    log[5] |= {"resumed_at": 50, "restart": 2}
    axes = figure_of_loss(log).axes[0]
    marks = [(line.get_xdata()[0], line.get_color(), line.get_linestyle())
             for line in axes.get_lines() if len(line.get_xdata()) == 2 and
             line.get_xdata()[0] == line.get_xdata()[1]]
    assert marks == [(10, "grey", "--"), (30, "tab:red", ":"), (50, "tab:red", ":")]
    assert axes.get_legend_handles_labels()[1] == [
        "training", "validation", "resumed", "restarted after a crash"]


def bars(figure):
    """{label: (training, validation)} as drawn."""
    axes, = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    return dict(zip(names, zip(*([bar.get_width() for bar in container]
                                 for container in axes.containers), strict=True), strict=True))


def test_the_data_of_each_label():
    training, held_back = (
        ImageCodes(np.zeros((len(labels), 1, 2, 2), np.uint8), np.array(labels), 2)
        for labels in ([0, 2, 2, 2, 1], [2, 0]))
    assert bars(figure_of_data("images", ["cat", "dog", "fox"], training, held_back)) == {
        "fox": (3, 1), "cat": (1, 1), "dog": (1, 0)}
    unlabelled = ImageCodes(np.zeros((7, 1, 2, 2), np.uint8), None, 2)
    assert bars(figure_of_data("images", [], unlabelled, None)) == {"all": (7, 0)}
    sound = Split([Recording("a", 1, 0, 0, 20), Recording("b", 0, 0, 20, 5),
                  Recording("c", 1, 0, 25, 1)], [np.zeros(26, np.uint8)])
    assert bars(figure_of_data("samples", ["p1", "p2"], Windows(sound, 4, 3, 256), None)) == {
        "p2": (21, 0), "p1": (5, 0)}


@pytest.mark.parametrize("name", ["$x_{$", "a$b", "$ $", "A$AP $$"])
def test_any_label_name_is_drawn_literally(tmp_path, name):
    log = log_of(3)
    log[2] |= {f"validation/label/{label}/bits/dim": 3.5 for label in (name, "other")}
    figure = figure_of_labels(log)
    assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} == {name, "other"}
    save_figure(tmp_path / "labels.png", figure)
    data = ImageCodes(np.zeros((3, 1, 2, 2), np.uint8), np.array([0, 0, 1]), 2)
    save_figure(tmp_path / "data.png", figure_of_data("images", [name, "other"], data, None))
    save_figure(tmp_path / "sound.png", figure_of_sound(np.ones(9), 8000, name))


def test_of_many_labels_the_largest_are_drawn():
    many = ImageCodes(np.zeros((100, 1, 2, 2), np.uint8), np.arange(100) % 37, 2)
    figure = figure_of_data("images", [str(n) for n in range(37)], many, None)
    assert len(bars(figure)) == 30 and "the largest 30 of 37" in figure.axes[0].get_title()
