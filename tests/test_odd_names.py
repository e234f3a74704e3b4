"""Odd names and values in models, logs and settings: no file elsewhere, no HTML injected."""

import json
import math
from pathlib import Path

import pytest
import torch
from test_page import Page

import infer_pixelcnn
import infer_wavenet
from common.file_names import distinct_file_names
from models.model_file import load, model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling.output import page
from training.extensions.label_embeddings import LabelEmbeddings
from training.extensions.tensorboard import Board

MARKUP = "<script>alert('x')</script>\"&"
NAMES = ["", ".", "..", "../up", "/root", "a/b", "a\\b", "a\0b\n\x1b[31m", "-rf", MARKUP, "名" * 90,
         "x" * 5000, "x" * 4999, "con", "CON", "\u202e", "a\tb"]


def test_distinct_file_names_are_valid_and_differ():
    parts = distinct_file_names(NAMES)
    assert len({part.casefold() for part in parts}) == len(NAMES)
    for part in [*parts, *(distinct_file_names([name])[0] for name in NAMES)]:
        assert part.strip(".") and len(part.encode()) <= 110 and part.isprintable()
        assert not set(part) & set('/\\<>"&\0\n:')
    assert distinct_file_names(["p225", "a.b-c_d", "é名", ".5"]) == ["p225", "a.b-c_d", "é名", ".5"]


@pytest.mark.parametrize("kind", ["pixelcnn", "wavenet"])
def test_labels_of_any_name_stay_in_the_output_folder(call, tmp_path, kind):
    torch.manual_seed(0)
    names = NAMES if kind == "pixelcnn" else NAMES[:3] + NAMES[9:12]  # plots take their time
    if kind == "pixelcnn":
        model = PixelCNN(PixelCNNConfig(2, 1, 2, 2, 1, labels=len(names)))
        data, script, flags = dict(levels=2, channels=1, height=2, width=2), infer_pixelcnn, ()
    else:
        model = WaveNet(WaveNetConfig(4, 2, 2, 1, 1, labels=len(names)))
        data, script, flags = dict(levels=4, rate=8000), infer_wavenet, ("--length", 9)
    (tmp_path / "in").mkdir()
    save("in/model", model_content(kind, model, names, data))
    code, _, err = call(script, "-m", "in/model", "--label", "all", "-c", 1, *flags,
                        "-o", "in/out/")
    assert code == 0, err
    shown = Page(tmp_path / "in/out/index.html")
    assert len(shown.links) == len(names) and all(link.parent == tmp_path / "in/out"
                                                  and link.is_file() for link in shown.links)
    assert MARKUP + "\n" in shown.text and shown.others == []
    assert "<script" not in shown.path.read_text()
    assert len(list((tmp_path / "in/out").iterdir())) == len(names) + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def write_page(file):
    """The page of a model that has drawn nothing, out.html."""
    found = load(file, "wavenet")
    facts = page.model_facts(Path(file), found.content, found.model)
    page.write_page("out.html", [page.Column("model", Path(file), {"drawn": "", **facts}, {})], {})


LOGS = [[3, None, "a", [1], {}], [{"iteration": 7, "validation/main/bits/dim": value}
                                  for value in (None, "low", [1], {}, True, math.nan, MARKUP)],
        [{"iteration": {}}], {"a": 1}, "text", 3]


@pytest.mark.parametrize("log", [*map(json.dumps, LOGS), '[{"iteration": 7, "validation/main/bits/'
                                 'dim": 1' + "0" * 500 + "}]", "[" * 100_000, "\0", ""])
def test_page_with_any_log(models, tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/wavenet_7").write_bytes((models / "sound").read_bytes())
    Path("run/log").write_text(log)
    write_page("run/wavenet_7")
    assert "<script" not in Path("out.html").read_text()


@pytest.mark.parametrize("settings", [
    *map(json.dumps, [
        {MARKUP: MARKUP, "a": [[MARKUP]], "b": {"c": MARKUP}, "d": None, "e": math.nan, "": ""},
        {"half\ud800": "\udcff\ud800"}, {"large": 10 ** 4000, "long": "x" * 10 ** 6}]),
    '{"a": ' + "[" * 900 + "]" * 900 + "}", "[" * 100_000])
def test_page_with_any_settings(models, tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/wavenet_7").write_bytes((models / "sound").read_bytes())
    Path("run/config.json").write_text(settings)
    write_page("run/wavenet_7")
    text = Path("out.html").read_text()
    assert "<script" not in text and "x" * 1001 not in text


def test_the_projector_has_a_line_for_each_label(tmp_path):
    model = PixelCNN(PixelCNNConfig(2, 1, 2, 2, 1, labels=len(NAMES)))
    LabelEmbeddings(tmp_path, Board(tmp_path), NAMES)(type("Run", (), {"eval_model": model}))
    rows = (tmp_path / "tensorboard/labels/metadata.tsv").read_text().split("\n")
    assert len(rows) == len(NAMES) + 1 and rows[-1] == "" and all(rows[:-1])
    assert not any("\t" in row for row in rows)
