"""The study goes on where it was, and its table is what its runs' logs say."""

import hashlib
import json
import re
import shlex
from statistics import mean, stdev

import pytest
from test_commands import write_mnist, write_sounds
from test_readme import FOUND, ROOT

from benchmarks import study
from datasets.errors import UserError

SMALL = (
    study.Run("digits", "--height 8 --width 8 -d 6 -n 2 -e 1", unit="nats", published="81.30 nats"),
    study.Run("voice", "--hidden_dim 4 --out_hidden_dim 4 -e 2",
              data="vctk --stacks_num 1 --layers_num 3 --validation '_2' --workers 1", whole=2))


@pytest.fixture
def carried_out(tmp_path, monkeypatch, capsys):
    """A function of flags: the table's rows, by name, of cells, and what was run."""
    write_mnist(tmp_path / "data/MNIST/raw")
    write_sounds(tmp_path / "vctk", [f"p225_{number}.wav" for number in (1, 2)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "RUNS", SMALL)

    def run(*flags):
        monkeypatch.setattr(study.sys, "argv", ["study.py", "--vctk", "vctk", *map(str, flags)])
        study.main()
        printed, said = capsys.readouterr()
        rows = [[cell.strip() for cell in line.strip("|").split("|")]
                for line in printed.splitlines() if line.startswith("|")][2:]
        return {row[0]: row[1:] for row in rows}, said.splitlines()

    return run


def test_what_is_complete_is_told_and_not_run_again(carried_out, tmp_path):
    table, typed = carried_out("--seeds", 2)
    assert len(typed) == 5 and typed[0].startswith("preprocess.py ")
    runs = tmp_path / "runs/study"
    nats, bits = ([[entry[key] for entry in json.loads((runs / f"{name}_{seed}/log").read_text())
                    if key in entry] for seed in (0, 1)]
                  for name, key in (("digits", "test/main/nats"),
                                    ("voice", "validation/main/bits/dim")))
    published, whole, ours, data, seeds, size, trained, commit, model = table["digits"]
    assert not whole and data == "38 of 60,000, 40 others"
    assert published == "81.30 nats" and seeds == "2 seeds"
    assert re.fullmatch(r"\d+ s, 1 epoch", trained)
    values = [value for (value, ) in nats]
    assert ours == f"{mean(values):.2f} ± {stdev(values):.2f} nats" and values[0] != values[1]
    assert int(size.replace(",", "")) > 100
    assert commit == (runs / "digits_0/commit").read_text().strip()
    (file, ) = (runs / "digits_0").glob("pixelcnn_*")
    assert model == hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    assert [len(values) for values in bits] == [2, 2]
    values = [min(values) for values in bits]  # the best model's
    assert table["voice"][2:4] == ["", "1 of 2, 1 other"]
    assert table["voice"][1] == f"{mean(values):.4f} ± {stdev(values):.4f} bits/dim"

    (runs / "digits_1/log").write_text(json.dumps([{"epoch": 1, "validation/main/nll": 0.7}]))
    again, typed = carried_out("--seeds", 2, "--table")
    assert again["voice"] == table["voice"] and again["digits"][4] == "1 seed" and not typed
    again, typed = carried_out("--seeds", 2)
    assert again == table and len(typed) == 1 and "--seed 1" in typed[0]


def test_a_run_that_fails_is_named(carried_out, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "RUNS", [SMALL[0]._replace(flags="--levels 1")])
    with pytest.raises(UserError, match="exit code 2, see runs/study/digits_0/output"):
        carried_out("--seeds", 1)
    assert "--levels 1" in (tmp_path / "runs/study/digits_0/output").read_text()


def test_a_run_that_was_begun_by_another_command_is_refused(carried_out, monkeypatch, tmp_path):
    carried_out("--seeds", 1, "--only", "digits")
    kept = (tmp_path / "runs/study/digits_0/log").read_bytes()
    monkeypatch.setattr(study, "RUNS", [SMALL[0]._replace(flags=SMALL[0].flags + " -b 8")])
    for more in ([], ["--table"]):
        with pytest.raises(UserError, match="runs/study/digits_0: was begun by another command"):
            carried_out("--seeds", 1, *more)
    assert (tmp_path / "runs/study/digits_0/log").read_bytes() == kept


def test_a_run_that_is_none_is_refused(carried_out):
    with pytest.raises(UserError, match="--only tones: .*digits, voice"):
        carried_out("--only", "tones")


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("assets/models/*.pt")))
def test_a_model_that_comes_along_is_of_the_study_and_its_command_on_the_pages(name):
    run, = (run for run in study.RUNS if run.name == name)
    flags = set(shlex.split(run.flags))
    assert any(flags <= set(shlex.split(command)) for _, command in FOUND
               if command.startswith(f"train_{run.kind}.py"))
