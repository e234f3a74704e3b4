"""Ogg and mp3 as people have them: without lengths, joined, cut, and with other streams in them."""

import os
import struct
import sys

import numpy as np
import pytest
import soundfile
import soxr
from test_preprocess import preprocess

from common.errors import UserError
from datasets.audio import recordings as audio
from datasets.audio.features import compute_features, make_features
from datasets.audio.lossy import find_streams
from datasets.audio.opening import Sound
from datasets.audio.recordings import Excerpt, read_recording
from datasets.corpus.reader import Corpus

RATE = 16000
FRAME = 576  # samples in an mp3 frame at this rate


def noise(seconds=4.0, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (round(RATE * seconds), channels))


def encoded(path, samples, rate=RATE, variable=True):
    """The bytes of a file of the kind that its ending names."""
    kind = {"mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
    how = {}
    if path.suffix == ".mp3":
        how = {"bitrate_mode": "VARIABLE" if variable else "CONSTANT", "compression_level": 0.5}
    soundfile.write(path, samples, rate, format=kind[path.suffix[1:]][0],
                    subtype=kind[path.suffix[1:]][1], **how)
    return path.read_bytes()


def without_tag(content):
    """An mp3 of this rate without the frame that holds its length."""
    bitrates = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    assert b"Xing" in content[:64]
    return content[72000 * bitrates[content[2] >> 4] // RATE + (content[2] >> 1 & 1):]


def pages(content):
    """The pages of an ogg: [(begin, end)]."""
    found, begin = [], 0
    while begin < len(content):
        assert content[begin:begin + 4] == b"OggS"
        count = content[begin + 26]
        end = begin + 27 + count + sum(content[begin + 27:begin + 27 + count])
        found.append((begin, end))
        begin = end
    return found


def written(path, *contents):
    path.write_bytes(b"".join(contents))
    return path


def notes_of(path, rate=RATE, excerpt=Excerpt()):  # noqa: B008 - immutable
    """The samples, and the notes about them."""
    notes = []
    blocks = [*audio.recording_blocks(path, rate, excerpt, notes.append)]
    return np.concatenate(blocks), notes


@pytest.mark.parametrize("order", [1, -1])
def test_an_mp3_without_a_tag_is_read_to_its_end(tmp_path, order):
    loud, quiet = noise(), 0.002 * noise()
    tagged = encoded(tmp_path / "x.mp3", np.concatenate([loud, quiet][::order]))
    path = written(tmp_path / "y.mp3", without_tag(tagged))
    samples, notes = notes_of(path)
    assert notes == [] and 0 <= len(samples) - 2 * 4 * RATE < 4 * FRAME
    # A tag tells how many samples of the first frame the encoder put in front.
    whole = read_recording(tmp_path / "x.mp3", RATE)
    delay = len(samples) - len(whole)
    shifts = [np.abs(samples[shift:shift + len(whole)][:5000] - whole[:5000]).max()
              for shift in range(delay)]
    assert min(shifts) < 1e-4


@pytest.mark.parametrize("variable", [True, False])
def test_blocks_of_an_mp3_have_no_seams(tmp_path, monkeypatch, variable, capfd):
    path = tmp_path / "x.mp3"
    encoded(path, noise(3), variable=variable)
    whole = read_recording(path, RATE)
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 777)
    assert np.array_equal(read_recording(path, RATE), whole)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["ogg", "opus", "mp3"])
def test_all_streams_of_a_chain_are_read_each_at_its_rate(tmp_path, ending):
    names = [tmp_path / f"{number}.{ending}" for number in range(3)]
    contents = [encoded(names[0], noise(3)), encoded(names[1], noise(2, channels=2), rate=24000),
                encoded(names[2], noise(1))]
    chain = written(tmp_path / f"chain.{ending}", *contents)
    each = [read_recording(name, 8000) for name in names]
    samples, notes = notes_of(chain, 8000)
    assert notes == [] and np.array_equal(samples, np.concatenate(each))
    assert len(samples) == pytest.approx(8000 * (3 + 2 * RATE / 24000 + 1), abs=9)


def test_a_chain_of_one_rate_is_resampled_without_seams(tmp_path):
    content = encoded(tmp_path / "x.ogg", noise(2))
    chain = written(tmp_path / "chain.ogg", content, content)
    one = read_recording(tmp_path / "x.ogg", RATE)
    expected = soxr.ResampleStream(RATE, 8000, 1, dtype="float32", quality="HQ").resample_chunk(
        np.concatenate([one, one]), last=True)
    assert np.abs(read_recording(chain, 8000) - expected).max() < 1e-6


def test_an_mp3_may_continue_after_the_length_in_its_tag(tmp_path):
    first, second = encoded(tmp_path / "a.mp3", noise(2)), encoded(tmp_path / "b.mp3", noise(3))
    bare = written(tmp_path / "b.mp3", without_tag(second))
    tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    for between in (b"", tag, b"TAG" + bytes(125), b"\xff" * 3000):
        path = written(tmp_path / "c.mp3", tag, first, between, bare.read_bytes())
        samples, notes = notes_of(path)
        assert notes == []
        assert len(samples) == 2 * RATE + len(read_recording(bare, RATE))


def test_an_mp3_that_begins_in_the_middle_of_a_frame(tmp_path):
    content = without_tag(encoded(tmp_path / "x.mp3", noise(2)))
    bare = read_recording(written(tmp_path / "y.mp3", content), RATE)
    path = written(tmp_path / "z.mp3", content[50:])
    samples, notes = notes_of(path)
    assert notes == [] and len(samples) == len(bare) - FRAME
    assert np.abs(samples[5000:] - bare[5000 + FRAME:]).max() < 1e-4


def test_an_mp3_in_a_wav(tmp_path):
    content = without_tag(encoded(tmp_path / "x.mp3", np.concatenate([noise(), 0.002 * noise()])))
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 1393)
    body = (b"WAVEfmt " + struct.pack("<I", len(form)) + form
            + b"fact" + struct.pack("<II", 4, 8 * RATE)
            + b"data" + struct.pack("<I", len(content)) + content)
    path = written(tmp_path / "x.wav", b"RIFF" + struct.pack("<I", len(body)), body)
    bare = read_recording(written(tmp_path / "y.mp3", content), RATE)
    assert np.array_equal(read_recording(path, RATE), bare)


@pytest.mark.parametrize("ending", ["ogg", "opus", "mp3"])
def test_a_recording_shorter_than_its_header_says_is_used_to_its_end(tmp_path, ending):
    content = encoded(tmp_path / f"x.{ending}", noise(20))
    whole = read_recording(tmp_path / f"x.{ending}", RATE)
    if ending == "mp3":
        cut = content[:len(content) // 2]
    else:  # pages are missing in the middle
        places = pages(content)
        half = len(places) // 2
        cut = content[:places[half][0]] + content[places[half + 2][0]:]
    samples, notes = notes_of(written(tmp_path / f"cut.{ending}", cut))
    assert 0.3 * len(whole) < len(samples) < len(whole)
    assert np.abs(samples[:5000] - whole[:5000]).max() < 1e-4
    note, = notes
    assert f"cut.{ending}: ends early, {len(whole) - len(samples):,} of {len(whole):,} " in note


def test_pages_behind_the_end_of_an_ogg_stream(tmp_path):
    content = encoded(tmp_path / "x.ogg", noise(20))
    whole = read_recording(tmp_path / "x.ogg", RATE)
    begin, end = pages(content)[-1]
    empty = bytearray(content[begin:begin + 26] + b"\1\0")
    number, = struct.unpack("<I", empty[18:22])
    empty[6:14], empty[18:22] = struct.pack("<q", len(whole) + 700), struct.pack("<I", number + 1)
    empty[22:26] = bytes(4)
    checksum = 0
    for byte in empty:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = checksum << 1 ^ (0x104C11DB7 if checksum >> 31 else 0)
    empty[22:26] = struct.pack("<I", checksum)
    samples, notes = notes_of(written(tmp_path / "y.ogg", content, empty))
    assert np.array_equal(samples, whole)
    assert "y.ogg: ends early, 700 of 320,700 samples" in notes[0] and len(notes) == 1


def test_a_damaged_stream_in_a_chain_is_reported(tmp_path):
    content = encoded(tmp_path / "x.ogg", noise(2))
    damaged = bytearray(content)
    damaged[pages(content)[1][0] + 26] ^= 255  # so that one does not see where the page ends
    chain = written(tmp_path / "chain.ogg", content, damaged, content)
    samples, notes = notes_of(chain)
    assert len(samples) == 4 * RATE
    assert len(notes) == 1 and "chain.ogg: 1 of its 3 streams can't be decoded" in notes[0]


@pytest.mark.parametrize("kind", ["ogg", "opus", "bare.mp3", "chain.ogg"])
def test_an_excerpt_equals_the_same_cut_of_the_whole(tmp_path, kind):
    path = tmp_path / f"x.{kind.rpartition('.')[2]}"
    content = encoded(path, noise(4))
    if kind == "bare.mp3":
        written(path, without_tag(content))
    if kind == "chain.ogg":
        written(path, content, encoded(tmp_path / "y.ogg", noise(2)))
    whole = read_recording(path, RATE)
    length = len(whole) / RATE
    part = read_recording(path, RATE, Excerpt(1.5, 2, 3))
    assert np.array_equal(part, whole[24000:56000])
    assert np.array_equal(read_recording(path, RATE, Excerpt(3.5)), whole[56000:])
    assert np.array_equal(read_recording(path, RATE, Excerpt(0, 1, length)), whole[:RATE])
    for excerpt, told in ((Excerpt(minimum=length + 0.01), "shorter than min_seconds"),
                          (Excerpt(0, 1, length + 0.01), "shorter than min_seconds"),
                          (Excerpt(length), "over before offset_seconds")):
        with pytest.raises(UserError, match=rf"{path}: [\d.]+ seconds long, {told}"):
            read_recording(path, RATE, excerpt)


def test_an_excerpt_over_streams_of_several_rates(tmp_path):
    chain = written(tmp_path / "x.opus", encoded(tmp_path / "a.opus", noise(2)),
                    encoded(tmp_path / "b.opus", noise(3), rate=24000))  # 2 seconds
    whole = read_recording(chain, RATE)
    part = read_recording(chain, RATE, Excerpt(1.5, 1, 4))
    assert np.array_equal(part[:8000], whole[24000:32000]) and len(part) == RATE
    assert np.abs(part[8000:-99] - whole[32000:40000 - 99]).max() < 1e-4
    assert len(read_recording(chain, RATE, Excerpt(2.5))) == 1.5 * RATE


def test_features_cover_all_decoded_samples(tmp_path):
    features = make_features("mel", [], RATE, 0.0125, 20)
    content = encoded(tmp_path / "x.ogg", noise(2))
    chain = written(tmp_path / "chain.ogg", content, content)
    assert len(compute_features(chain, features)) == features.count(4 * RATE)


def test_files_that_only_look_like_mp3(tmp_path):
    random = np.random.default_rng(0).bytes(300_000)
    for name, content in (("a.mp3", random), ("b.mp3", b"ID3\4\0\0\0\0\1\0" + random),
                          ("c.mp3", b"\xff\xfb\x90\0" * 9), ("d.mp3", b""), ("e.mp3", b"\xff" * 99),
                          ("f.ogg", b"OggS"), ("g.ogg", b"OggS" + bytes(99)),
                          ("h.ogg", b"OggS\0\2" * 999)):
        with pytest.raises(UserError, match=f"{name}: not a recording that can be decoded"):
            read_recording(written(tmp_path / name, content), RATE)
    assert find_streams(written(tmp_path / "x.wav", b"RIFF")) is None


def test_notes_of_decoders_are_silenced(tmp_path, capfd):
    content = encoded(tmp_path / "x.mp3", noise(2))
    (tmp_path / "data").mkdir()
    path = written(tmp_path / "data/x.mp3", content, content)
    soundfile.SoundFile(path).close()
    assert "Xing stream size off" in capfd.readouterr().err  # there is something to be silent of
    with Sound(path) as sound:
        sound.read(99 * RATE)
    read_recording(path, RATE)
    print("heard again", file=sys.stderr)
    os.write(2, b"and here\n")
    assert capfd.readouterr().err == "heard again\nand here\n"
    code, _, err = preprocess("--data", "data", "--output", "out", cwd=tmp_path)
    assert (code, err) == (0, "")


def test_preprocess_reports_short_recordings_and_strict_refuses_them(tmp_path):
    (tmp_path / "data").mkdir()
    content = encoded(tmp_path / "data/a.mp3", noise(4))
    written(tmp_path / "data/short.mp3", content[:len(content) // 2])
    code, out, err = preprocess("--data", "data", "--output", "out", cwd=tmp_path)
    assert code == 0 and "2 recordings read" in out and "0 left out" in out
    assert "1 recording has less than its header says; used as far as it goes\n" in out
    assert err.startswith("used as far as it goes: data/short.mp3: ends early, ")
    assert err.count("\n") == 1 and not (tmp_path / "out/vctk_left_out.txt").exists()
    assert len(Corpus(tmp_path / "out").train.recordings) == 1
    code, out, err = preprocess("--data", "data", "--output", "two", "--strict", cwd=tmp_path)
    assert (code, out) == (2, "") and err.startswith("error: data/short.mp3: ends early, ")
    assert err.endswith("; copy it again, or remove it\n") and err.count("\n") == 1
