"""A corpus whose preparation was interrupted equals one whose preparation was not."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import count

import numpy as np
import pytest
import soundfile
from test_preprocess import SCRIPT, contents, preprocess

from common.errors import UserError
from datasets.audio.encoding import EncodingConfig
from datasets.audio.features import make_features
from datasets.audio.labels import Labelling
from datasets.corpus import journal
from datasets.corpus import writer as corpus_writer
from datasets.corpus.builder import build_corpus
from datasets.corpus.journal import Journal
from datasets.corpus.reader import CorpusPart

RATE = 8000
SLOWLY = """
import os, runpy, sys, time
from datasets.corpus import journal
journal.SECONDS = {seconds}
add = journal.Journal.add
def slowly(*args):
    add(*args)
    time.sleep(0.05)
    while os.path.exists({hold!r}):
        time.sleep(0.01)
journal.Journal.add = slowly
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def data(tmp_path):
    """Eleven recordings of half a second or less, and a file that is no sound."""
    generator = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / f"data/{number % 2}/{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.uniform(-1, 1, 4000 - 10 * number), RATE)
    (tmp_path / "data/0/02.wav").write_bytes(b"no sound")
    return tmp_path / "data"


def flags(data, out):
    """Shards of three recordings, on one worker."""
    return ["--data", data, "--output", out, "--workers", 1, "--flush_every", 6]


def begin(data, out, seconds, hold="no such file"):
    """Start a slow run that syncs its journal every `seconds`, and waits while `hold` exists."""
    argv = [str(SCRIPT), *map(str, flags(data, out))]
    code = SLOWLY.format(seconds=seconds, argv=argv, hold=str(hold))
    return subprocess.Popen([sys.executable, "-c", code], cwd=SCRIPT.parent,
                            stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 30
        time.sleep(0.005)


def notes(out):
    path = out / ".vctk_progress.temporary"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def written(out):
    return sum(path.stat().st_size for path in out.glob(".vctk_*.npy.temporary"))


@pytest.fixture
def whole(data, tmp_path):
    """The corpus of an uninterrupted run, and what the run prints."""
    code, out, err = preprocess(*flags(data, tmp_path / "whole"), cwd=tmp_path)
    assert code == 0 and "11 recordings read" in out and "02.wav" in err
    return contents(tmp_path / "whole"), out.splitlines()[1:-1], err


@pytest.mark.parametrize("reached", [1, 3, 4, 9])
def test_a_killed_run_continues(data, tmp_path, whole, reached):
    out = tmp_path / "out"
    run = begin(data, out, seconds=0)
    wait_for(lambda: notes(out) >= reached)
    run.kill()
    run.communicate()
    done = notes(out)
    assert reached <= done < 12 and not [*out.glob("vctk*")]
    code, said, err = preprocess(*flags(data, out), cwd=tmp_path)
    first, _, others = err.partition("\n")
    assert first == (f"going on after {done} of 12 recordings that an interrupted run had prepared")
    assert (code, said.splitlines()[1:-1], others) == (0, *whole[1:])
    assert contents(out) == whole[0]


def test_ctrl_c_loses_nothing_that_was_written(data, tmp_path, whole):
    out = tmp_path / "out"
    run = begin(data, out, seconds=999)
    wait_for(lambda: written(out) > 5 * 4000)
    run.send_signal(signal.SIGINT)
    assert run.communicate()[1] == "stopped\n" and run.returncode == 130
    done = notes(out)
    assert 5 <= done < 12 and not [*out.glob(".vctk_recordings*")]
    code, _, err = preprocess(*flags(data, out), cwd=tmp_path)
    assert code == 0 and err.startswith(f"going on after {done} of 12 recordings")
    assert contents(out) == whole[0]


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))


def test_a_run_continues_once_a_full_disk_has_room(data, tmp_path, whole):
    out = tmp_path / "out"
    assert preprocess(*flags(data / "1", out), cwd=tmp_path)[0] == 0
    before = contents(out)
    run = subprocess.run([sys.executable, SCRIPT, *map(str, flags(data, out))], text=True,
                         capture_output=True, preexec_fn=limited)
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert run.stderr.startswith(f"error: --output {out}: File too large; make room there")
    assert before.items() <= contents(out).items()
    code, _, err = preprocess(*flags(data, out), cwd=tmp_path)
    assert code == 0 and err.startswith("going on after 3 of 12 recordings")
    assert contents(out) == whole[0]


def built(data, out, features=None, silence_threshold=0.0, **changes):
    """The same in this process."""
    paths = {path.relative_to(data).as_posix(): path for path in sorted(data.rglob("*.wav"))}
    settings = dict(validation=0.1, strict=False, workers=1, labels="folder", stacks_num=5,
                    layers_num=10, target_length=1600, flush_every=6)
    config = EncodingConfig(Labelling(data, ("folder", )), RATE, 256,
                            silence_threshold=silence_threshold, features=features)
    return build_corpus(paths, config, out, data=str(data), **settings | changes)


def interrupted(after, data, out, **changes):
    """The same, with Ctrl+C after so many recordings."""
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        add = Journal.add

        def then_stop(journal, note):
            add(journal, note)
            if len(journal.pending) == after:
                raise KeyboardInterrupt

        patch.setattr(Journal, "add", then_stop)
        built(data, out, **changes)


@pytest.mark.parametrize("features, unit", [
    (None, "recordings"), (make_features("mel", [], RATE, 0.0125, 20), "each")])
def test_a_run_killed_before_any_disk_operation_continues(data, tmp_path, monkeypatch, features,
                                                          unit):
    """At each fsync and each renaming, in turns, until one run gets through."""
    for path in [*data.rglob("*.wav")][:5]:
        path.unlink()
    built(data, tmp_path / "whole", features, validation_of=unit)
    monkeypatch.setattr(journal, "SECONDS", 0)
    for moment in count():
        out = tmp_path / str(moment)
        child = os.fork()
        if not child:
            left = [moment]

            def until_then(call, left=left):
                def counted(*args):
                    if not left[0]:
                        os._exit(7)
                    left[0] -= 1
                    return call(*args)
                return counted

            monkeypatch.setattr(os, "fsync", until_then(os.fsync))
            monkeypatch.setattr(os, "replace", until_then(os.replace))
            built(data, out, features, validation_of=unit)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        result = built(data, out, features, validation_of=unit)
        assert contents(out) == contents(tmp_path / "whole"), moment
        assert len(result.entries) + len(result.problems) == 7
        if not os.waitstatus_to_exitcode(status):
            break
    assert moment > 20


def test_changed_recordings_are_prepared_again(data, tmp_path, capfd):
    out = tmp_path / "out"

    interrupted(5, data, out)
    built(data, out, layers_num=3)
    assert json.loads((out / "vctk_manifest.json").read_text())["layers_num"] == 3
    interrupted(5, data, out)
    soundfile.write(data / "0/00.wav", np.zeros(700), RATE)
    built(data, out)
    built(data, tmp_path / "again")
    assert contents(out) == contents(tmp_path / "again")
    assert "going on" not in capfd.readouterr().err
    # What is there does not fit the notes: somebody has removed or cut a shard.
    for damage in (lambda path: path.unlink(), lambda path: os.truncate(path, 200)):
        interrupted(6, data, out)
        damage(out / ".vctk_train_00000.npy.temporary")
        built(data, out)
        assert contents(out) == contents(tmp_path / "again")
    assert "going on" not in capfd.readouterr().err
    # A line that was being written when the power failed.
    interrupted(6, data, out)
    with open(out / ".vctk_progress.temporary", "ab") as file:
        file.write(b'[null, "0"')
    built(data, out)
    assert "going on after 6 of 12" in capfd.readouterr().err
    assert contents(out) == contents(tmp_path / "again")


def test_a_continued_strict_run_stays_strict(data, tmp_path):
    out = tmp_path / "out"
    run = begin(data, out, seconds=0)
    wait_for(lambda: notes(out) >= 5)
    run.kill()
    run.communicate()
    code, said, err = preprocess(*flags(data, out), "--strict", cwd=tmp_path)
    assert (code, said) == (2, "") and "02.wav: not a recording" in err.splitlines()[-1]


def test_two_runs_at_once_into_one_folder_are_refused(data, tmp_path):
    out, hold = tmp_path / "out", tmp_path / "hold"
    hold.touch()
    run = begin(data, out, seconds=0, hold=hold)
    wait_for(lambda: written(out))
    code, said, err = preprocess(*flags(data, out), cwd=tmp_path)
    assert (code, said) == (2, "") and err.count("\n") == 1
    hold.unlink()
    assert err.startswith(f"error: --output {out}: another preprocess.py is writing there")
    assert run.wait() == 0 and len(contents(out)) > 4
    run.stderr.close()


def test_a_disk_that_fills_up_in_the_final_step(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    built(data, out)
    before = contents(out)

    def full(file):
        if "manifest" in str(file.name):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(corpus_writer, "flush_to_disk", full)
        with pytest.raises(UserError, match="output .*No space left on device; make room"):
            built(data, out)
    assert before.items() <= contents(out).items()
    built(data, out)
    assert contents(out) == before


def test_parts_continue_independently(data, tmp_path, capfd):
    out, again = tmp_path / "out", tmp_path / "again"
    for number in (1, 2):
        built(data, again, part=CorpusPart(number, 2))
    interrupted(4, data, out, part=CorpusPart(1, 2))
    built(data, out, part=CorpusPart(2, 2))
    assert "going on" not in capfd.readouterr().err
    built(data, out, part=CorpusPart(1, 2))
    assert "going on after 4 of 6" in capfd.readouterr().err
    assert contents(out) == contents(again)
