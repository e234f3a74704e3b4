"""Transcripts are found where the common corpora put them, and bad ones give a line."""

import pytest

from common.errors import UserError
from datasets.text.transcripts import Transcripts, unused_warnings


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_a_text_beside_its_recording(tmp_path):
    write(tmp_path, deep__a_DOT_wav="", deep__a_DOT_txt=" Hello,\nworld. ")
    assert Transcripts(tmp_path).text_of(tmp_path / "deep/a.wav") == "Hello, world."


@pytest.mark.parametrize("recording", ["wav/p225/p225_001.wav",
                                       "wav48/p225/p225_001.wav", "wav/p225/p225_001_mic2.flac"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_folder_of_texts_of_vctk(tmp_path, recording, depth):
    write(tmp_path, txt__p225__p225_001_DOT_txt="Please call Stella.")
    path = write(tmp_path, **{recording.replace("/", "__").replace(".", "_DOT_"): ""}) / recording
    root = path.parents[2 - depth]
    assert Transcripts(root).text_of(path) == "Please call Stella."


def test_the_table_of_ljspeech(tmp_path):
    write(tmp_path, metadata_DOT_csv="LJ001-0001|In 1455|In fourteen fifty-five\nLJ001-0002|in|\n"
          "LJ001-0003|being|being\n", wavs__LJ001_0001_DOT_wav="")
    transcripts = Transcripts(tmp_path / "wavs")
    assert transcripts.text_of(tmp_path / "wavs/LJ001-0001.wav") == "In fourteen fifty-five"
    assert transcripts.text_of(tmp_path / "wavs/LJ001-0003.wav") == "being"


def test_lines_of_names_and_texts(tmp_path):
    write(tmp_path, transcripts_DOT_txt="; a comment\n\ndigits/1: one\nletters/1: el\n"
          "bye: Goodbye: (beep) see you [laughs]!\nbeep: [beep]\n")
    transcripts = Transcripts(tmp_path)
    assert transcripts.text_of(tmp_path / "digits/1.wav") == "one"
    assert transcripts.text_of(tmp_path / "letters/1.wav") == "el"
    assert transcripts.text_of(tmp_path / "deep/bye.ogg") == "Goodbye: see you !"
    with pytest.raises(UserError, match="beep.wav: its transcript in .* has no words"):
        transcripts.text_of(tmp_path / "beep.wav")
    with pytest.raises(UserError, match="2.wav: has no transcript, 2.txt is missing, and no line"):
        transcripts.text_of(tmp_path / "digits/2.wav")
    paths = [tmp_path / "digits/1.wav", tmp_path / "bye.wav", tmp_path / "beep.wav"]
    assert transcripts.unused(paths) == ["letters/1"]
    warning, = unused_warnings(transcripts, paths)
    assert warning.endswith("transcripts.txt: 1 of its lines name no recording, the first: "
                            "letters/1")


def test_a_table_that_is_named(tmp_path):
    write(tmp_path, elsewhere_DOT_txt="a: yes", transcripts_DOT_txt="a: no")
    named = Transcripts(tmp_path, tmp_path / "elsewhere.txt")
    assert named.text_of(tmp_path / "a.wav") == "yes"
    assert named.files_of(tmp_path / "a.wav") == [tmp_path / "elsewhere.txt"]


@pytest.mark.parametrize("content, line", [
    (b"a: \xff\xfe", "is not UTF-8 (byte 3)"), ("a|b\n", "has no line of the form NAME: TEXT"),
    ("", "has no line")])
def test_tables_that_are_none(tmp_path, content, line):
    write(tmp_path, transcripts_DOT_txt=content)
    with pytest.raises(UserError) as error:
        Transcripts(tmp_path)
    assert f"transcripts.txt: {line}" in str(error.value)


def test_texts_that_are_not_utf8(tmp_path):
    write(tmp_path, a_DOT_txt="é".encode("latin-1"), b_DOT_txt="\ufeffHello")
    with pytest.raises(UserError, match="a.txt: is not UTF-8"):
        Transcripts(tmp_path).text_of(tmp_path / "a.wav")
    assert Transcripts(tmp_path).text_of(tmp_path / "b.wav") == "Hello"
