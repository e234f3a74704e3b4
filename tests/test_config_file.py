"""--config with odd content: one line that names the file or the flag, and no file changes."""

import argparse
import json
import math
from contextlib import suppress
from pathlib import Path

import pytest

import infer_pixelcnn
import infer_wavenet
import preprocess
import train_pixelcnn
import train_wavenet
from cli.arguments import parse
from cli.config_file import flags_of
from common.errors import UserError

SCRIPTS = [train_pixelcnn, train_wavenet, infer_pixelcnn, infer_wavenet, preprocess]
HUGE = 10 ** 30


def flags_with_a_type(script, monkeypatch):
    """The long names of the flags of a script that are not any text."""
    parsers = []
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args",
                      lambda parser, _: parsers.append(parser))
        with suppress(AttributeError):  # some look at the flags, which are none here
            script.arguments()
    return [action.option_strings[-1][2:] for action in parsers[0]._actions if action.type]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_flag_refuses_what_is_out_of_its_range(call, tmp_path, monkeypatch, script):
    flags = flags_with_a_type(script, monkeypatch)
    assert len(flags) > 8
    needed = {"model": ["none"]} if script.__name__.startswith("infer") else {}
    for flag in flags:
        for value in (HUGE, -HUGE, math.nan, math.inf, "text", "1" * 5000, {"a": 1}, [[1]], "\0",
                      "\ud800"):
            if (script, flag, value) == (preprocess, "validation", "text"):
                continue  # a regular expression
            Path("config.json").write_text(json.dumps({**needed, flag: value}))
            code, out, err = call(script, "--config", "config.json")
            line, = err.splitlines()
            assert (code, out) == (2, "") and flag in line, (flag, value, line)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("content, named", [
    ('{"out": "a\\u0000b"}', "out"), ('{"out": "\\ud800"}', "out"), ('{"out": {"a": "b"}}', "out"),
    ('{"out": [["a"]]}', "out"), ('{"out": [null]}', "out"), ('{"data": [true]}', "data"),
    ('{"workers": 257}', "workers"), ('{"workers": 1.0}', "workers"),
    ('{"workers": true}', "workers"),
    ('{"stats": 5}', "stats"), ('{"stats": "a\\nb"}', "stats"), ('{"opt\\nimizer": 1}', "opt"),
    ('{"optimizer": "a\\nb"}', "optimizer"), ('{"a\\nb": {}}', "none for train_pixelcnn"),
    ('{"\\ud800": {}}', "none for"), ('{"height": 65536}', "height"),
    ('{"epoch": ' + "1" * 5000 + "}", "no JSON"),
    ('{"epoch": ' + "[" * 500 + "]" * 500 + "}", "epoch"),
    ("[" * 100_000, "deep"), ('{"epoch": ' * 100_000, "deep"), ("[]", "object"), ("NaN", "object"),
    ("", "no JSON"), ("\udcff", "no JSON"), ('{"epoch": }', "no JSON")])
def test_odd_content_is_refused(call, tmp_path, content, named):
    Path("config.json").write_bytes(content.encode(errors="surrogateescape"))
    code, out, err = call(train_pixelcnn, "--config", "config.json")
    line, = err.splitlines()
    assert (code, out) == (2, "") and any(word in line for word in named.split("|")), line
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


def test_a_config_that_a_run_wrote_is_read(tmp_path):
    settings = {"gpu": -1, "seed": 2 ** 63 - 1, "out": "d\udcff", "snapshot_every": "1000",
                "keep_every": None, "stats": False, "start_label": ["a=b"], "learning_rate": 1e-3,
                "epoch": 2 ** 31 - 1, "init_from": "model"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    parser = argparse.ArgumentParser("train_wavenet.py")
    train_wavenet.add_training(parser, batchsize=4, epoch=2, learning_rate=1)
    args = parse(parser, ["--config", str(tmp_path / "config.json")])
    assert (args.seed, args.out, args.start_label) == (2 ** 63 - 1, "d\udcff", ["a=b"])
    with pytest.raises(UserError, match="half"):
        (tmp_path / "config.json").write_text('{"half": 1}')
        flags_of(tmp_path / "config.json", parser)
