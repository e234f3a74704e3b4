"""Recordings with odd headers, irregular files, and kinds that are not read."""

import errno
import os
import struct

import numpy as np
import pytest
import soundfile
import soxr
from test_audio import write_wav
from test_preprocess import preprocess, tone

from common.errors import UserError
from datasets.audio import recordings as audio
from datasets.audio.recordings import Excerpt, find_recordings, read_recording


@pytest.mark.parametrize("rate", [1, 999, 768_001])
def test_impossible_rates_are_refused(tmp_path, rate):
    soundfile.write(tmp_path / "x.wav", np.zeros(900), rate)
    with pytest.raises(UserError, match=f"x.wav: its header claims {rate} samples a second"):
        read_recording(tmp_path / "x.wav", 8000)


@pytest.mark.parametrize("rate", ["999", "768001"])
def test_preprocess_names_the_flag_of_an_impossible_rate(tmp_path, rate):
    code, _, err = preprocess("--rate", rate, cwd=tmp_path)
    assert code == 2 and f"--rate: {rate} is not from 1000 to 768000" in err


def test_blocks_stay_short_whatever_is_resampled(tmp_path):
    path = tmp_path / "x.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 9000)
    soundfile.write(path, samples, 1000, subtype="FLOAT")
    blocks = [*audio.recording_blocks(path, 768_000)]
    assert max(map(len, blocks)) < 1_000_000 and sum(map(len, blocks)) == 9000 * 768
    whole = soxr.ResampleStream(1000, 768_000, 1, dtype="float32", quality="HQ").resample_chunk(
        samples.astype(np.float32), last=True)
    assert np.abs(np.concatenate(blocks) - whole).max() < 1e-6


def test_many_channels_are_read_in_short_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 10_000)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 300))
    soundfile.write(tmp_path / "x.wav", samples, 8000, subtype="FLOAT")
    blocks = [*audio.recording_blocks(tmp_path / "x.wav", 8000)]
    assert max(map(len, blocks)) == 10_000 // 300
    assert np.allclose(np.concatenate(blocks), samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "NMS_ADPCM_16", "ULAW", "IMA_ADPCM"])
def test_codecs_of_telephones_are_read_though_some_cannot_seek(tmp_path, subtype):
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(440, 8000, 2), 8000, subtype=subtype)
    whole = read_recording(path, 8000)
    assert np.abs(whole[1000:8000] - tone(440, 8000, 2)[1000:8000]).max() < 0.2
    assert np.array_equal(read_recording(path, 8000, Excerpt(0.5, 1, 1)), whole[4000:12000])


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, tone(440, 8000, 2), 8000)
    whole = read_recording(path, 8000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert np.array_equal(read_recording(path, 8000), whole)
    assert np.array_equal(read_recording(path, 8000, Excerpt(0.5, 1, 1)), whole[4000:12000])


def test_a_wav_with_data_but_size_0_in_its_header(tmp_path):
    path = write_wav(tmp_path / "x.wav", data_size=0)
    assert (read_recording(path, 8000) == np.arange(1000) / 32768).all()


def test_a_wav_without_samples_may_have_other_chunks_behind(tmp_path):
    path = write_wav(tmp_path / "x.wav")
    empty = path.read_bytes()[:-2000]
    path.write_bytes(empty[:-4] + bytes(4) + b"LIST" + struct.pack("<I", 3) + b"abc")
    with pytest.raises(UserError, match="x.wav: holds no samples"):
        read_recording(path, 8000)


def make(path, kind):
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.symlink_to(path.name)


@pytest.mark.parametrize("kind, reason", [
    ("folder", "is a folder"), ("pipe", "is a named pipe"), ("device", "is a device"),
    ("loop", "can't be read \\(too many levels of symbolic links\\)")])
def test_messages_give_the_true_reason(tmp_path, kind, reason):
    make(tmp_path / "x.wav", kind)
    with pytest.raises(UserError, match=f"x.wav: {reason}.*; "):
        read_recording(tmp_path / "x.wav", 8000)


def test_a_recording_without_read_permission(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "x.wav")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match="x.wav: can't be read \\(permission denied\\); "):
        read_recording(path, 8000)
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UserError, match="data .*x.wav: can't be read \\(permission denied\\)"):
        find_recordings(path)


@pytest.mark.parametrize("labels", ["none", "genre"])
def test_pipes_and_devices_among_recordings_are_left_out(tmp_path, labels):
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/good.flac", tone(440, 8000), 8000)
    import mutagen
    tags = mutagen.File(tmp_path / "data/good.flac")
    tags["genre"] = "rock"
    tags.save()
    make(tmp_path / "data/a.wav", "pipe")
    make(tmp_path / "data/b.wav", "device")
    code, out, err = preprocess("--data", "data", "--output", "out", "--labels", labels,
                                cwd=tmp_path)
    assert code == 0 and "1 recordings read" in out and "2 left out" in out
    assert "left out: data/a.wav: is a named pipe" in err
    assert "left out: data/b.wav: is a device" in err


def test_the_left_out_list_is_complete(tmp_path):
    (tmp_path / "data/s").mkdir(parents=True)
    for number in range(2):
        soundfile.write(tmp_path / f"data/s/{number}.wav", tone(440, 8000), 8000)
    bad = [f"s/bad{number:02}.wav" for number in range(14)] + ["s/two\nlines.wav"]
    others = ["s/film.MKV", "s/x.webm", "s/y.m4b"]
    for name in [*bad, *others]:
        (tmp_path / "data" / name).write_bytes(b"no sound")
    (tmp_path / "data/notes.txt").touch()
    code, out, err = preprocess("--data", "data", "--output", "out", cwd=tmp_path)
    assert code == 0 and "15 left out" in out
    assert "what is left out is in out/vctk_left_out.txt" in out.splitlines()[-1]
    assert ("warning: 3 files of kinds that are not read passed over: m4b mkv webm; convert them "
            "to wav or flac\n") in err
    lines = [line.split("\t") for line in
             (tmp_path / "out/vctk_left_out.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == [*bad[:-1], "s/two\\nlines.wav", *others]
    assert {reason for _, reason in lines[15:]} == {"of a kind that is not read"}
    assert all(reason.startswith("not a recording that can be decoded (")
               for _, reason in lines[:15])
    for name in [*bad, *others]:
        (tmp_path / "data" / name).unlink()
    code, out, err = preprocess("--data", "data", "--output", "out", cwd=tmp_path)
    assert (code, err) == (0, "") and "vctk_left_out" not in out
    assert not (tmp_path / "out/vctk_left_out.txt").exists()


def test_a_folder_with_only_skipped_kinds(tmp_path):
    (tmp_path / "x.webm").touch()
    with pytest.raises(UserError, match="no recordings below it; .*\\(1 file of kinds .*: webm; "):
        find_recordings(tmp_path)


def test_folders_that_share_a_name_are_reported(tmp_path):
    for folder in ("anna/one", "bert/one", "bert/two"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        soundfile.write(tmp_path / "data" / folder / "x.wav", tone(440, 8000), 8000)
    code, out, err = preprocess("--data", "data", "--output", "out", cwd=tmp_path)
    assert code == 0 and "labels: one, two\n" in out
    assert err == ("warning: label one is that of 2 folders, anna/one, bert/one; if they are not "
                   "alike, give --labels '(.+)/', which takes whole paths for labels\n")
    code, out, err = preprocess("--data", "data", "--output", "out", "--labels", "(.+)/",
                                cwd=tmp_path)
    assert (code, err) == (0, "") and "labels: anna/one, bert/one, bert/two\n" in out
