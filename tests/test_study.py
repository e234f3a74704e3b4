"""The study resumes where it stopped, and its table matches the logs of its runs."""

import json
import re
from statistics import mean, stdev

import pytest
from test_commands import write_mnist, write_sounds
from test_readme import FOUND, ROOT

from benchmarks import study, study_runs
from common.errors import UserError

SMALL = (study_runs.Run("digits", unit="nats", published="81.30 nats"),
         study_runs.Run("voice", source="vctk", published_items=2))
CONFIGS = {
    "digits": {"height": 8, "width": 8, "hidden_dim": 6, "blocks_num": 2, "epoch": 1,
               "out": "runs/digits"},
    "voice": {"preprocess": {"stacks_num": 1, "layers_num": 3, "validation": "_2", "workers": 1},
              "train_wavenet": {"hidden_dim": 4, "out_hidden_dim": 4, "epoch": 2}}}


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """A function that writes a config of the small study: (its name, changed flags)."""
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.setattr(study_runs, "CONFIGS", folder)

    def write(name, **changes):
        (folder / f"{name}.json").write_text(json.dumps(CONFIGS[name] | changes))

    for name in CONFIGS:
        write(name)
    return write


@pytest.fixture
def run_study(tmp_path, monkeypatch, capsys, configure):
    """A function that runs the study: (the table's cells by run name, lines on stderr)."""
    write_mnist(tmp_path / "data/MNIST/raw")
    write_sounds(tmp_path / "vctk", [f"p225_{number}.wav" for number in (1, 2)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "RUNS", SMALL)

    def run(*flags):
        monkeypatch.setattr(study.sys, "argv", ["study.py", "--vctk", "vctk", *map(str, flags)])
        study.main()
        printed, errors = capsys.readouterr()
        rows = [[cell.strip() for cell in line.strip("|").split("|")]
                for line in printed.splitlines() if line.startswith("|")][2:]
        return {row[0]: row[1:] for row in rows}, errors.splitlines()

    return run


def link(name):
    """The first cell of a run's row."""
    return f"[{name}](../configs/{name}.json)"


def test_complete_runs_are_in_the_table_and_do_not_run_again(run_study, tmp_path):
    table, commands = run_study("--seeds", 2)
    assert len(commands) == 5
    assert commands[0].startswith("preprocess.py --config configs/voice.json --data vctk ")
    runs = tmp_path / "runs/study"
    nats, bits = ([[entry[key] for entry in json.loads((runs / f"{name}_{seed}/log").read_text())
                    if key in entry] for seed in (0, 1)]
                  for name, key in (("digits", "test/main/nats"),
                                    ("voice", "validation/main/bits/dim")))
    published, ours, size, trained, data = table[link("digits")]
    assert data == "a part, 40 of 60,000: 38; 40" and published == "81.30 nats"
    assert re.fullmatch(r"\d+ s, 1 epoch", trained)
    values = [value for (value, ) in nats]
    assert ours == f"{mean(values):.2f} ± {stdev(values):.2f} nats, 2 seeds"
    assert values[0] != values[1]
    assert int(size.replace(",", "")) > 100
    assert [len(values) for values in bits] == [2, 2]
    values = [min(values) for values in bits]  # the best model's
    assert table[link("voice")][4] == "1; 1"
    assert table[link("voice")][1] == f"{mean(values):.4f} ± {stdev(values):.4f} bits/dim, 2 seeds"

    (runs / "digits_1/log").write_text(json.dumps([{"epoch": 1, "validation/main/nll": 0.7}]))
    again, commands = run_study("--seeds", 2, "--table")
    assert again[link("voice")] == table[link("voice")] and not commands
    assert again[link("digits")][1].endswith("1 seed")
    again, commands = run_study("--seeds", 2)
    assert again == table and len(commands) == 1 and "--seed 1" in commands[0]


def test_a_failing_run_is_named(run_study, configure, tmp_path):
    configure("digits", levels=1)
    with pytest.raises(UserError, match="exit code 2, see runs/study/digits_0/output"):
        run_study("--seeds", 1, "--only", "digits")
    assert "--levels 1" in (tmp_path / "runs/study/digits_0/output").read_text()


def test_a_run_started_with_other_flags_is_refused(run_study, configure, tmp_path):
    run_study("--seeds", 1, "--only", "digits")
    log = (tmp_path / "runs/study/digits_0/log").read_bytes()
    configure("digits", out="elsewhere")  # does not change the result
    table, commands = run_study("--seeds", 1, "--only", "digits")
    assert table and not commands
    for changes in ({"batchsize": 8}, {"epoch": 2}):
        configure("digits", **changes)
        for more in ([], ["--table"]):
            with pytest.raises(UserError, match="runs/study/digits_0: was started with other"):
                run_study("--seeds", 1, *more)
    assert (tmp_path / "runs/study/digits_0/log").read_bytes() == log
    configure("digits")
    (tmp_path / "runs/study/digits_0/flags").write_text("")
    with pytest.raises(UserError, match="was started with other flags"):
        run_study("--seeds", 1)


def test_an_unknown_run_is_refused(run_study):
    with pytest.raises(UserError, match="--only tones: .*digits, voice"):
        run_study("--only", "tones")


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("assets/models/*.pt")))
def test_every_bundled_model_is_in_the_study_and_on_the_pages(name):
    run, = (run for run in study.RUNS if run.name == name)
    command = f"train_{run.kind}.py --config configs/{name}.json"
    assert any(f"{each} ".startswith(f"{command} ") for _, each in FOUND)
