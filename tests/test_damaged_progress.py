"""If an interrupted run left damaged or foreign files, preprocess.py starts afresh."""

import json

import pytest
from test_continued_builds import built, data, interrupted
from test_preprocess import contents

PROGRESS = ".vctk_progress.temporary"
GOOD = [None, "0", 4000, 0, 0, 0.5, None, None]


def note(**places):
    """A record as a run leaves it, with some values changed."""
    names = ("codes", "label", "length", "clipped", "silent", "loudness", "problem", "frames")
    return [places.get(name, value) for name, value in zip(names, GOOD, strict=True)]


NOTES = {
    "empty": [], "an object": {}, "a number": 7, "null": None, "short": [None], "text": "12345678",
    "long": [*GOOD, None, None], "a file of codes": note(codes="/etc/passwd"),
    "a file of frames": note(frames="/etc/passwd"), "a label's kind": note(label=3),
    "no label": note(label=None), "no text": note(label="\ud800"),
    "length as text": note(length="4000"), "negative": note(length=-1), "none": note(length=0),
    "a huge length": note(length=10 ** 30), "NaN": note(loudness=float("nan")),
    "loud": note(loudness=1e300), "loudness as text": note(loudness="x"),
    "a broken count": note(clipped=0.5), "a list": note(silent=[]), "a problem": note(problem=1)}
LINES = {"no JSON": b"x\n", "deep": b"[" * 100_000 + b"\n", "bytes": b"\xff\xfe\n",
         "figures": b"[" + b"9" * 5000 + b"]\n"}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Two recordings, and the corpus that they make."""
    folder = tmp_path_factory.mktemp("few")
    recordings = data.__wrapped__(folder)
    for path in sorted(recordings.rglob("*.wav"))[3:]:
        path.unlink()
    (recordings / "0/02.wav").unlink(missing_ok=True)
    built(recordings, folder / "whole")
    return recordings, contents(folder / "whole")


@pytest.fixture
def starts_afresh(few, tmp_path, capfd):
    """A function that takes what to do to an interrupted run's folder."""
    def check(damage):
        interrupted(1, few[0], tmp_path / "out")
        damage(tmp_path / "out")
        built(few[0], tmp_path / "out")
        assert "going on" not in capfd.readouterr().err
        assert contents(tmp_path / "out") == few[1]

    return check


def replaced(*lines):
    """Return a function that replaces the records that a run left."""
    def damage(out):
        first = (out / PROGRESS).read_bytes().splitlines(keepends=True)[0]
        (out / PROGRESS).write_bytes(first + b"".join(lines))
    return damage


def test_the_reference_record_is_valid(few, tmp_path, capfd):
    interrupted(1, few[0], tmp_path / "out")
    replaced(json.dumps(GOOD).encode() + b"\n")(tmp_path / "out")
    built(few[0], tmp_path / "out")
    assert "going on after 1 of 2" in capfd.readouterr().err
    assert contents(tmp_path / "out") == few[1]


@pytest.mark.parametrize("wrong", NOTES.values(), ids=NOTES)
def test_a_wrong_record_discards_the_journal(starts_afresh, wrong):
    starts_afresh(replaced(json.dumps(wrong).encode() + b"\n"))


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_that_is_no_record(starts_afresh, line):
    starts_afresh(replaced(line))


def test_more_records_than_recordings(starts_afresh):
    starts_afresh(replaced(*[json.dumps(note(problem="x")).encode() + b"\n"] * 9))


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 99, b"{}\n[]\n"])
def test_a_journal_of_another_task(starts_afresh, content):
    starts_afresh(lambda out: (out / PROGRESS).write_bytes(content))


def test_links_are_not_followed(starts_afresh, tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("mine")
    folder.mkdir()

    def link(out):
        (out / PROGRESS).unlink()
        (out / PROGRESS).symlink_to(victim)
        (out / ".vctk_x.temporary").symlink_to(folder)

    starts_afresh(link)
    assert victim.read_text() == "mine" and folder.is_dir()


def test_a_shard_that_is_a_link_is_not_continued(starts_afresh, tmp_path):
    victim, shard = tmp_path / "victim", ".vctk_train_00000.npy.temporary"

    def link(out):
        (out / shard).rename(victim)
        (out / shard).symlink_to(victim)
        victim.write_bytes(before := victim.read_bytes() + b"more")
        link.before = before

    starts_afresh(link)
    assert victim.read_bytes() == link.before
