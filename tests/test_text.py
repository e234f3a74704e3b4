"""Names in any script, and malicious names, in tables, messages and pictures."""

import warnings

import numpy as np
import pytest

from common import fonts
from common.file_names import distinct_file_names
from common.fonts import legible
from common.text import display_width, for_terminal, printable
from datasets.corpus.builder import Entry
from datasets.corpus.summary import draw_summary, sparse_label_warnings, summary_table
from sampling.output.sound_plots import plot_sound
from training.extensions.label_embeddings import figure_of
from training.extensions.plots import figure_of_data, figure_of_labels

NAMES = ["plain", "p225 $x$", "你好世界", "مرحبا", "🎸🥁", "naïve e\u0301", "a\nb\tc\r",
         "\x1b[31mred\x1b[0m\x07", "\u202egnp.exe\u2066", "नमस्ते", "ภาษาไทย", "\udcff", "", "—" * 40,
         "long " * 50]


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name, expected", [
    ("a\nb\tc\r\x00\x7f\x9b", "a\\nb\\tc\\r\\x00\\x7f\\x9b"), ("\x1b[2J", "\\x1b[2J"),
    ("\u202ea\u2066b\u2028\ufeff", "\\u202ea\\u2066b\\u2028\\ufeff"), ("\udcff", "\\udcff"),
    ("你好 مرحبا é", "你好 مرحبا é"), ("👨\u200d👩 नमस\u200cते", "👨\u200d👩 नमस\u200cते"),
    ("C:\\n", "C:\\n")])
def test_invisible_characters_are_escaped(name, expected):
    assert printable(name) == expected and printable(expected) == expected


def test_a_program_may_end_lines_and_draw_bars():
    bar = "\r 50%|█████     | 1/2\x1b[A\n"
    assert for_terminal(bar) == bar
    assert for_terminal("\x1b[A\x1b[1A\x9b2J\x08") == "\x1b[A\\x1b[1A\\x9b2J\\x08"


def entries():
    return [Entry(name, 60.0 - 5 * number * (number < 10), 0.1, False)
            for number, name in enumerate(NAMES)]


def test_a_table_stays_a_table():
    head, *lines = summary_table(entries())
    assert len(lines) == len(NAMES) and all(line == printable(line) for line in lines)
    ends = {display_width(line.partition("  " + " " * 9 + "1 ")[0]) for line in lines}
    assert len(ends) == 1 and len({display_width(line) for line in lines}) == 1
    assert head.index("recordings") - 2 == ends.pop()


def test_warnings_are_lines():
    few = [Entry("a", 100.0, 0.1, False), Entry("b\n\x1b[2J", 0.5, 0.1, False)]
    line, = sparse_label_warnings(few)
    assert line.startswith("label b\\n\\x1b[2J has 0.5 seconds")


def test_pictures_of_any_name_are_drawn_without_a_warning(tmp_path, monkeypatch):
    from matplotlib import rcParams
    monkeypatch.setitem(rcParams, "font.family", rcParams["font.family"])
    draw_summary(entries(), tmp_path / "overview.png")
    plot_sound(tmp_path / "sound.png", np.zeros(400, np.float32), 8000, "a 你好 \x1b\n مرحبا.wav")
    points = np.random.default_rng(0).normal(size=(len(NAMES), 4))
    figure_of(points, NAMES).savefig(tmp_path / "embeddings.png", bbox_inches="tight")
    log = [{"iteration": n, f"validation/label/{name}/bits/dim": n + number / 3}
           for number, name in enumerate(NAMES) for n in (1, 2)]
    figure_of_labels(log).savefig(tmp_path / "labels.png")

    class Counted:
        def label_counts(self, count):
            return range(1, count + 1)

    figure_of_data("seconds", NAMES, Counted(), None).savefig(tmp_path / "data.png")


def test_a_character_that_no_font_has_is_escaped(monkeypatch):
    monkeypatch.setattr(fonts, "_draws", lambda path, character: character != "你")
    fonts._has_font.cache_clear()
    assert legible("a你é\n") == "a\\u4f60é\\n"
    fonts._has_font.cache_clear()


def test_another_font_is_registered_with_matplotlib(monkeypatch):
    from matplotlib import rcParams
    monkeypatch.setitem(rcParams, "font.family", ["DejaVu Sans Mono"])
    fonts._has_font.cache_clear()
    default = fonts._draws
    monkeypatch.setattr(fonts, "_draws", lambda path, character: character != "ℳ" and
                        default(path, character) or "STIX" in path)
    assert legible("ℳ") == "ℳ"
    assert any("STIX" in family for family in rcParams["font.family"])
    fonts._has_font.cache_clear()


def test_names_of_files_are_short_enough():
    names = distinct_file_names(["好" * 200, "𠀀" * 200, "x" * 200])
    assert all(len(name.encode()) <= 160 for name in names) and names[2] == "x" * 80
