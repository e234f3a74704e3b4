from pathlib import Path

import pytest

from cli.labels import find_label
from common.errors import UserError
from datasets.audio.labels import Labelling, shared_label_warnings, speaker_of
from datasets.audio.tags import match_genre


@pytest.mark.parametrize("name, speaker", [
    ("p225_001.wav", "p225"), ("p225_001_mic1.flac", "p225"), ("s5_001.wav", "s5"),
    ("0_george_12.wav", "george"), ("9_yweweler_0.wav", "yweweler"),
    ("1034-121119-0000.flac", "1034"), ("LJ001-0001.wav", "LJ001"),
    ("3_4_5.wav", "3"), ("hello.wav", "hello"), ("_x.wav", "_x")])
def test_speaker_from_the_file_name(name, speaker):
    assert speaker_of(Path("root/any", name)) == speaker


def test_folder_is_the_immediate_parent():
    assert Labelling(Path("root"), ("folder", )).label_of(Path("root/a/b/x.wav")) == "b"
    assert Labelling(Path("root"), ("folder", )).label_of(Path("root/x.wav")) == "root"


def test_files_in_the_root_have_its_resolved_name(tmp_path, monkeypatch):
    (tmp_path / "p225").mkdir()
    monkeypatch.chdir(tmp_path / "p225")
    assert Labelling(Path("."), ("folder", )).label_of(Path("x.wav")) == "p225"


def test_the_first_kind_that_gives_a_label_wins():
    labelling = Labelling(Path("root"), (r"(guitar)\.ogg", r"/(\d+)_", "folder"))
    assert labelling.label_of(Path("root/a/guitar.ogg")) == "guitar"
    assert labelling.label_of(Path("root/a/7_song.ogg")) == "7"
    assert labelling.label_of(Path("root/a/song.ogg")) == "a"
    with pytest.raises(UserError, match="root/a/song.ogg: no label"):
        Labelling(Path("root"), labelling.kinds[:2]).label_of(Path("root/a/song.ogg"))


def test_folders_of_one_name_are_told_where_folders_give_the_label():
    paths = [Path("root", name) for name in ("a/live/1.ogg", "b/live/2.ogg", "c/live/guitar.ogg")]
    warnings = {kinds: shared_label_warnings(Labelling(Path("root"), kinds), paths) for kinds in
                [("folder",), (r"(guitar)\.", "folder"), (r"(\w+)\.", "folder"), (r"(\w)\.",)]}
    first, second, *others = warnings.values()
    assert "3 folders, a/live, b/live, c/live" in first[0]
    assert "2 folders, a/live, b/live;" in second[0]
    assert others == [[], []]


def test_no_labels():
    assert Labelling(Path("root"), ("none", )).label_of(Path("root/a/p225_001.wav")) is None


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


@pytest.mark.parametrize("genre, label", [
    ("Metalcore", "metal"), ("Heavy Metal", "metal"), ("post-hardcore", "hardcore"),
    ("progressive ROCK", "rock"), ("Hip-Hop", "hip"), ("rock opera", "rock"), ("techno", None),
    ("metal hardcore", "hardcore"), ("hardcore metal", "metal"), ("", None), ("Rock/Pop", "rock"),
    ("Музыка rock", "rock")])
def test_sub_genres_are_folded_by_their_last_word(genre, label):
    assert match_genre(genre, ("metal", "hip", "rock", "core", "hardcore")) == label


def test_the_first_group_of_a_regular_expression_in_the_path_below_the_root():
    labelling = Labelling(Path("root"), (r"(\w+)/take(\d)?", ))
    assert labelling.label_of(Path("root/a/b/take.wav")) == "b"
    assert labelling.label_of(Path("root/日本/take1.wav")) == "日本"
    with pytest.raises(UserError, match="root/x.wav: no label"):
        labelling.label_of(Path("root/x.wav"))
