"""Where scripts run: streams closed or full, terminals that obey names, ranks that are wrong."""

import os
import subprocess
import sys

import pytest
from test_commands import ROOT

SCRIPTS = ("train_pixelcnn.py", "infer_pixelcnn.py", "preprocess.py", "train_wavenet.py",
           "infer_wavenet.py")
FULL = "error: standard output: can't be written (No space left on device)"

# A script that prints, shows a bar, writes a file and ends; or prints names.
STAND_IN = """
import sys, warnings
from tqdm import tqdm
from cli.script import run_script

def main():
    for _ in tqdm(range(3), file=sys.stderr):
        print("x" * 9000)
    warnings.warn("something")
    print("told", file=sys.stderr)
    for name in sys.argv[2:]:
        print(name)
        print(name, file=sys.stderr)
    with open("written", "w") as file:
        file.write(str(file.fileno()))
    return int(sys.argv[1])

run_script(main)
"""


def shell(command, folder, environment=()):
    """(exit code, stdout, stderr) of a line for the shell."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable,
                               **dict(environment)})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def stand_in(tmp_path):
    """A function of shell redirections and an exit code: what became of the script."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)

    def run(redirections, code=0, python=""):
        ended = shell(f"$PYTHON {python} stand_in.py {code} {redirections}", tmp_path)
        assert int((tmp_path / "written").read_text()) > 2
        return ended

    return run


@pytest.mark.parametrize("redirections", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full",
                                          ">&- 2>/dev/full"])
@pytest.mark.parametrize("code", [0, 3])
def test_a_stream_that_is_closed_changes_nothing(stand_in, redirections, code):
    ended, out, err = stand_in(redirections, code)
    assert ended == code and "Error" not in err
    assert ("told" in err) == ("2>" not in redirections)
    assert len(out) == (0 if ">&-" in redirections.split() else 3 * 9001)


@pytest.mark.parametrize("python", ["", "-u"])
@pytest.mark.parametrize("code, expected", [(0, 2), (3, 3)])
def test_a_full_standard_output_is_one_line_at_the_end(stand_in, code, expected, python):
    ended, _, err = stand_in(">/dev/full", code, python)
    assert ended == expected
    assert err.count("error: ") == 1 and err.splitlines()[-1].startswith(FULL)
    assert stand_in(">/dev/full 2>&1", code, python)[0] == expected
    assert stand_in(">/dev/full 2>&-", code, python)[0] == expected


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_into_closed_and_full_streams(script, tmp_path):
    command = f"$PYTHON {ROOT / script}"
    assert shell(f"{command} --help >&-", tmp_path) == (0, "", "")
    code, _, err = shell(f"{command} --help >/dev/full", tmp_path)
    assert code == 2 and err.startswith(FULL) and len(err.splitlines()) == 1
    assert shell(f"{command} --no_such_flag >&- 2>&-", tmp_path) == (2, "", "")
    assert shell(f"{command} --no_such_flag 2>/dev/full", tmp_path) == (2, "", "")


def test_names_do_not_act_on_a_terminal(stand_in):
    _, out, err = stand_in("$'\\e]0;owned\\a\\e[2J' $'\\u202eevil' 'é 你好'")
    for text in (out, err):
        assert "\\x1b]0;owned\\x07\\x1b[2J\n\\u202eevil\né 你好\n" in text and "\x1b" not in text


def test_an_error_is_one_line_whatever_is_in_it(tmp_path):
    code, _, err = shell(f"$PYTHON {ROOT}/preprocess.py --data $'no\\nwhere\\e[2J'", tmp_path)
    assert code == 2 and err.startswith("error: ") and len(err.splitlines()) == 1
    assert "no\\nwhere\\x1b[2J" in err


@pytest.mark.parametrize("redirection, code, why", [
    (">&-", 2, "standard output is closed"), (">/dev/full", 2, "No space left on device")])
def test_raw_samples_into_a_closed_or_full_output(models, tmp_path, redirection, code, why):
    ended, out, err = shell(f"$PYTHON {ROOT}/infer_wavenet.py -m {models}/sound --length 9 -o - "
                            f"{redirection}", tmp_path)
    line, = err.splitlines()
    assert (ended, out) == (code, "") and line.startswith("error: --output -: ") and why in line


@pytest.mark.parametrize("environment, named", [
    ("WORLD_SIZE=2", "WORLD_SIZE=2 in the environment, but no RANK"),
    ("WORLD_SIZE=2 RANK=0", "no MASTER_ADDR"),
    ("WORLD_SIZE=2 RANK=0 MASTER_ADDR=localhost", "no MASTER_PORT"),
    ("WORLD_SIZE=2 RANK=0 MASTER_ADDR=localhost MASTER_PORT=tcp", "MASTER_PORT=tcp"),
    ("WORLD_SIZE=2 RANK=2 MASTER_ADDR=localhost MASTER_PORT=29500", "RANK=2"),
    ("RANK=3", "RANK=3"), ("WORLD_SIZE=1 RANK=3", "RANK=3"), ("RANK=-1", "RANK=-1"),
    ("WORLD_SIZE=two", "WORLD_SIZE=two"), ("WORLD_SIZE=0", "WORLD_SIZE=0"),
    ("WORLD_SIZE=-2", "WORLD_SIZE=-2"), ("LOCAL_RANK=1", "LOCAL_RANK=1"), ("RANK=", "RANK="),
    ("WORLD_SIZE=4 RANK=1 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=2"),
    ("LOCAL_WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2"),
    ("TORCHELASTIC_RESTART_COUNT=x", "TORCHELASTIC_RESTART_COUNT=x")])
def test_ranks_that_contradict_each_other(call, monkeypatch, environment, named):
    import preprocess
    for name, value in (each.split("=") for each in environment.split()):
        monkeypatch.setenv(name, value)
    code, _, err = call(preprocess, "--data", "nowhere")
    line, = err.splitlines()
    assert code == 2 and line.startswith("error: ") and named in line


def test_ranks_that_other_programs_set_are_none_of_ours(call, monkeypatch):
    import preprocess
    monkeypatch.setenv("MASTER_PORT", "tcp://10.0.0.1:6379")
    code, _, err = call(preprocess, "--data", "nowhere")
    assert code == 2 and "--data nowhere" in err
