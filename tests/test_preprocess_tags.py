"""preprocess.py: labels from the tags in files."""

import pytest
from mutagen.id3 import APIC, ID3
from test_preprocess import preprocess, tagged

from datasets.corpus.reader import Corpus


@pytest.mark.parametrize("ending", ["mp3", "flac", "ogg", "wav", "aiff"])
def test_labels_from_tags_with_sub_genres_folded(tmp_path, ending):
    genres = ["Metalcore", "Progressive Rock", "Trip-Hop", "Polka", "post-hardcore"]
    for number, genre in enumerate(genres):
        tagged(tmp_path / f"data/{number}.{ending}", genre=genre, date=f"{1969 + number}-05-01")
    tagged(tmp_path / f"data/none.{ending}")
    for flags, labels, left_out in (
            (["genre", "--genres", "metal,rock,Hardcore,hip"], ["hardcore", "metal", "rock"], 3),
            (["genre"], sorted(genre.casefold() for genre in genres), 1),
            (["year"], ["1969", "1970", "1971", "1972", "1973"], 1)):
        code, out, err = preprocess("--data", "data", "--output", "out", "--labels", *flags,
                                    cwd=tmp_path)
        assert code == 0 and f"{left_out} left out" in out
        assert f"none.{ending}: its tags hold no {flags[0]}" in err
        assert ("polka, is none of --genres metal,rock,hardcore,hip" in err) == (left_out == 3)
        assert Corpus(tmp_path / "out").label_names == labels


def test_labels_from_expressions_then_tags_then_folders(tmp_path):
    for name, tags in (("songs/one/guitar.ogg", {"genre": "Death Metal"}),
                       ("songs/one/song.ogg", {"genre": "Death Metal"}), ("electronic/a.ogg", {}),
                       ("tales/b.ogg", {"genre": "Romantic Classical"})):
        tagged(tmp_path / "data" / name, **tags)
    code, _, err = preprocess("--data", "data", "--output", "out", "--labels", r"(guitar)\.ogg",
                              "genre", "folder", "--genres", "metal,classical", "--validation", 0,
                              cwd=tmp_path)
    assert (code, err) == (0, "")
    corpus = Corpus(tmp_path / "out")
    labels = {recording.name: corpus.label_names[recording.label]
              for recording in corpus.train.recordings}
    assert labels == {"electronic/a.ogg": "electronic", "songs/one/guitar.ogg": "guitar",
                      "songs/one/song.ogg": "metal", "tales/b.ogg": "classical"}


def test_unusable_tags_are_reported(tmp_path):
    tagged(tmp_path / "good.flac", date="2001")
    tagged(tmp_path / "text.flac", date="last year")
    tagged(tmp_path / "cut.mp3", date="2001")
    whole = (tmp_path / "cut.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[:30])
    tagged(tmp_path / "blob.mp3", date="2001")
    tags = ID3(tmp_path / "blob.mp3")
    tags.delall("TDRC")
    tags.add(APIC(encoding=3, mime="image/png", type=3, desc="", data=b"\0\1\2"))
    tags.save()
    code, out, err = preprocess("--data", ".", "--output", "out", "--labels", "year", cwd=tmp_path)
    assert code == 0 and "1 recordings read" in out
    assert "text.flac: the year in its tags is 'last year'" in err
    assert "cut.mp3: " in err and "blob.mp3: its tags hold no year" in err
