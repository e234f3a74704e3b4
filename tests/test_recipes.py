"""The two recipes of docs/recipes.md as typed, and the music they use."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from music import make_music
from test_page import Page

ROOT = Path(__file__).resolve().parent.parent


def commands(heading):
    """The shell commands below a heading of docs/recipes.md, a script that ends where one fails.

    What a command prints is shown between blank lines after it, and begins with a digit or a word
    in lower case that is none of a command.
    """
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.split(f"# {heading}\n")[1], maxsplit=1, flags=re.M)[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.M)
    typed = [block for block in blocks if re.match(r"    (python|mkdir|\()", block)]
    return "set -e\n" + "\n".join(typed) + "wait\n"


@pytest.fixture(params=[pytest.param("as typed", marks=pytest.mark.slow), "in short"])
def play(request, tmp_path):
    """A function that runs a recipe in a folder with the repository's files: what it printed.

    In short, a training ends after 30 updates, and other things in the script are replaced.
    """
    def run(heading, shorter=()):
        script = commands(heading).replace("python ", f"{sys.executable} ")
        if request.param == "in short":
            for long, short in (("train_wavenet.py", "train_wavenet.py --iterations 30"), *shorter):
                assert long in script
                script = script.replace(long, short)
        for name in ("assets", "configs", "tests"):
            (tmp_path / name).symlink_to(ROOT / name)
        script = re.sub(r"(preprocess|train_wavenet|infer_wavenet)\.py", rf"{ROOT}/\1.py", script)
        (tmp_path / "recipe.sh").write_text(script)
        done = subprocess.run(["bash", "recipe.sh"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def log_of(run):
    return json.loads((run / "log").read_text())


@pytest.mark.slow  # in small it is in test_transfer.py
def test_one_speaker_is_swapped_for_music(play, tmp_path):
    play("Swap a speaker for music")
    log = log_of(tmp_path / "runs/mixed")
    first = log[0]
    assert first["iteration"] == 0
    before, after = ({name: entry[f"validation/label/{name}/bits/dim"] for name in
                      ("george", "guitar", "lucas", "nicolas")} for entry in (first, log[-1]))
    assert after["guitar"] < before["guitar"] - 0.1  # it is learned
    # The speakers that stay are known from the start, from other takes than then.
    known = log_of(tmp_path / "runs/speakers")[-1]
    for name in ("george", "lucas", "nicolas"):
        assert abs(before[name] - known[f"validation/label/{name}/bits/dim"]) < 0.5
    page = Page(tmp_path / "samples/swap/index.html")
    names = {"george", "lucas", "nicolas", "jackson", "guitar"}
    assert names <= set(page.text.splitlines()) and len(page.sounds) == 8
    assert (tmp_path / "runs/mixed/labels.png").stat().st_size > 10_000
    for number in (0, 1):
        samples, rate = soundfile.read(tmp_path / f"samples/primed/sample_{number}.wav")
        assert (len(samples), rate) == (20_000, 8000)  # half a second given, two drawn
        assert (tmp_path / f"samples/primed/sample_{number}.png").exists()


@pytest.mark.skipif(not shutil.which("pkill"), reason="pkill is not installed")
def test_music_by_genre_with_a_crash(play, tmp_path):
    said = play("Train on music by genre, with a crash", (
        ("snapshot_iter_800", "snapshot_iter_20"), ("--keep_every 400", "--keep_every 10"),
        ("--length 2s", "--length 0.1s"), ("sleep 1;", "sleep 0.01;")))
    assert "the training died (SIGKILL); restart 1 of 3" in said
    run = tmp_path / "runs/genres"
    log = log_of(run)
    restarted, = (entry for entry in log if "restart" in entry)
    assert restarted["resumed_at"] > 0 and "reached" in log[-1]["stopped_by"]
    snapshots = len(list(run.glob("snapshot_iter_*")))
    assert snapshots >= 3
    page = Page(tmp_path / "samples/genres/index.html")
    assert {"metal", "classical", "techno"} <= set(page.text.splitlines())
    assert len(page.sounds) == 3 * snapshots
    assert len(page.pictures) == 3 * snapshots + 5  # and the run's


def test_made_music(tmp_path):
    paths = make_music(tmp_path, pieces=2, seconds=2)
    assert [path.name for path in paths] == [
        f"{genre}_{number}.{ending}" for genre in ("classical", "metal", "techno")
        for number, ending in enumerate(("mp3", "flac"))]
    loud = []
    for path in paths:
        samples, rate = soundfile.read(path)
        assert samples.shape[1] == 2 and abs(len(samples) / rate - 2) < 0.1
        loud.append(np.sqrt(np.mean(samples ** 2)))
        assert mutagen.File(path, easy=True)["genre"][0]
    assert min(loud) > 0.01
    again = make_music(tmp_path / "again", pieces=2, seconds=2)
    for one, other in zip(paths, again, strict=True):
        assert np.array_equal(soundfile.read(one)[0], soundfile.read(other)[0])
