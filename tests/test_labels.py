from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.labels import find_label, label_of


@pytest.mark.parametrize("name, speaker", [
    ("p225_001.wav", "p225"), ("p225_001_mic1.flac", "p225"), ("s5_001.wav", "s5"),
    ("0_george_12.wav", "george"), ("9_yweweler_0.wav", "yweweler"),
    ("1034-121119-0000.flac", "1034"), ("LJ001-0001.wav", "LJ001"),
    ("3_4_5.wav", "3"), ("hello.wav", "hello"), ("_x.wav", "_x")])
def test_speaker_from_the_file_name(name, speaker):
    assert label_of(Path("root/any", name), Path("root"), "speaker") == speaker


def test_folder_is_the_immediate_parent():
    assert label_of(Path("root/a/b/x.wav"), Path("root"), "folder") == "b"
    assert label_of(Path("root/x.wav"), Path("root"), "folder") == "root"


def test_files_in_the_root_have_its_resolved_name(tmp_path, monkeypatch):
    (tmp_path / "p225").mkdir()
    monkeypatch.chdir(tmp_path / "p225")
    assert label_of(Path("x.wav"), Path("."), "folder") == "p225"


def test_no_labels():
    assert label_of(Path("root/a/p225_001.wav"), Path("root"), "none") is None


def test_find_label_by_name_and_by_number():
    names = ["anna", "bert", "7"]
    assert find_label(names, "bert") == 1
    assert find_label(names, "0") == 0
    assert find_label(["2", "0", "1"], "0") == 1  # a name wins over a number
    assert find_label([str(digit) for digit in range(10)], "7") == 7


@pytest.mark.parametrize("wanted", ["3", "-1", "carl", "", "1.0"])
def test_unknown_label_names_the_flag_and_the_choices(wanted):
    with pytest.raises(UserError, match="--label .*0 anna, 1 bert") as error:
        find_label(["anna", "bert"], wanted)
    assert "\n" not in str(error.value)


def test_a_long_list_of_labels_is_shortened():
    with pytest.raises(UserError) as error:
        find_label([f"p{number}" for number in range(225, 335)], "nobody")
    assert len(str(error.value)) < 400 and "109 p334" in str(error.value)


def test_a_model_without_labels():
    with pytest.raises(UserError, match="--label 0.*without labels"):
        find_label([], "0")
