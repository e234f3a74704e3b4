import struct

import numpy as np
import pytest
import soundfile

from common.errors import UserError
from datasets.audio import recordings as audio
from datasets.audio.recordings import find_recordings, read_recording


def tone(frequency, rate, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_recordings_are_found_below_the_folder_in_order(tmp_path):
    wanted = [touch(tmp_path / name) for name in ("a/x.WAV", "a/z.flac", "b/c/y.mp3", "k.Ogg",
                                                  "m.aif", "n.aiff")]
    for name in ("a/notes.txt", ".hidden.wav", ".cache/x.wav", "wav", "a/x.wav.part"):
        touch(tmp_path / name)
    assert find_recordings(tmp_path) == sorted(wanted)
    assert find_recordings(tmp_path / "a/x.WAV") == [tmp_path / "a/x.WAV"]


def test_links_are_followed_and_loops_survived(tmp_path):
    touch(tmp_path / "data/z/x.wav")
    touch(tmp_path / "elsewhere/y.wav")
    (tmp_path / "data/a").symlink_to(tmp_path / "data/z")  # the same folder under an earlier name
    (tmp_path / "data/z/up").symlink_to(tmp_path)
    (tmp_path / "data/self").symlink_to(tmp_path / "data")
    (tmp_path / "data/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for root in (tmp_path / "data", tmp_path / "link"):
        found = find_recordings(root)
        assert root / "z/x.wav" in found and root / "more/y.wav" in found
        assert sorted(path.name for path in found) == ["x.wav", "y.wav"]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="data .*nowhere: no such folder"):
        find_recordings(tmp_path / "nowhere")
    touch(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="no recordings.*wav flac ogg oga opus mp3 .*m4a"):
        find_recordings(tmp_path)


@pytest.mark.parametrize("ending, subtype, error", [
    ("wav", "PCM_U8", 1 / 128), ("wav", "PCM_16", 1e-4), ("wav", "PCM_24", 1e-6),
    ("wav", "PCM_32", 1e-6), ("wav", "FLOAT", 1e-6), ("flac", "PCM_16", 1e-4),
    ("aiff", "PCM_16", 1e-4), ("ogg", "VORBIS", 0.05), ("mp3", "MPEG_LAYER_III", 0.05)])
def test_all_depths_and_formats_decode_to_the_mean_of_their_channels(
        tmp_path, ending, subtype, error):
    left, right = tone(440, 16000), tone(300, 16000)
    path = tmp_path / f"x.{ending}"
    soundfile.write(path, np.stack([left, right], 1), 16000, subtype=subtype)
    samples = read_recording(path, 16000)
    assert samples.dtype == np.float32 and samples.shape == left.shape
    middle = slice(2000, -2000)  # lossy coders fade in and out
    assert np.abs(samples - (left + right) / 2)[middle].max() < error


@pytest.mark.parametrize("source", [8000, 11025, 44100, 48000])
def test_resampling_keeps_tones_below_the_new_nyquist_and_removes_those_above(tmp_path, source):
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(1000, source, 2), source, subtype="FLOAT")
    samples = read_recording(path, 8000)
    assert abs(len(samples) - 16000) <= 1
    middle = slice(2000, -2000)
    assert np.abs(samples[:16000][middle] - tone(1000, 8000, 2)[:len(samples)][middle]).max() < 1e-3
    if source > 12000:
        soundfile.write(path, tone(5500, source, 2), source, subtype="FLOAT")
        left = np.sqrt(np.mean(read_recording(path, 8000)[middle] ** 2))
        assert 20 * np.log10(left / (0.5 / np.sqrt(2))) < -60


def test_long_recordings_are_decoded_in_blocks_without_seams(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 40000), 44100)
    whole = read_recording(path, 8000)
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 777)
    assert (read_recording(path, 8000) == whole).all()


def write_wav(path, riff_size=None, data_size=None, keep=None, trailer=b""):
    """A 16-bit wav of 1,000 samples with those sizes in its header, cut after `keep` bytes."""
    data = np.arange(1000, dtype="<i2").tobytes()
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # a chunk of odd size is padded
    body = (b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + odd
            + b"data" + struct.pack("<I", len(data) if data_size is None else data_size)
            + data + trailer)
    size = len(body) if riff_size is None else riff_size
    path.write_bytes((b"RIFF" + struct.pack("<I", size) + body)[:keep])
    return path


def test_truncated_wav_is_refused(tmp_path):
    path = write_wav(tmp_path / "x.wav", keep=1000)
    with pytest.raises(UserError, match="x.wav: truncated.* of 2000 bytes") as error:
        read_recording(path, 8000)
    assert "\n" not in str(error.value)
    soundfile.write(tmp_path / "x.aiff", np.zeros(1000), 8000)
    (tmp_path / "y.aiff").write_bytes((tmp_path / "x.aiff").read_bytes()[:1000])
    with pytest.raises(UserError, match="y.aiff: truncated"):
        read_recording(tmp_path / "y.aiff", 8000)


@pytest.mark.parametrize("riff, data", [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (36, 0), (8, 0),
                                        (0x7FFFF024, 0x7FFFF000), (None, None)])
def test_streamed_wav_of_unknown_size_is_read_whole(tmp_path, riff, data):
    samples = read_recording(write_wav(tmp_path / "x.wav", riff, data), 8000)
    assert (samples == np.arange(1000) / 32768).all()


def test_files_that_are_not_recordings(tmp_path):
    cases = {"text.wav": b"no sound at all" * 99, "nothing.wav": b"", "head.wav": b"RIFF\0\0\0\0WA",
             "text.mp3": b"hello" * 99, "text.flac": b"fLaC" + b"x" * 99}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: .*; ") as error:
            read_recording(tmp_path / name, 8000)
        assert "\n" not in str(error.value)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    with pytest.raises(UserError, match="gone.wav: no such file"):
        read_recording(tmp_path / "gone.wav", 8000)


def test_truncated_flac_is_refused(tmp_path):
    soundfile.write(tmp_path / "x.flac", np.random.default_rng(0).uniform(-1, 1, 50000), 8000)
    (tmp_path / "y.flac").write_bytes((tmp_path / "x.flac").read_bytes()[:40000])
    with pytest.raises(UserError, match="y.flac: "):
        read_recording(tmp_path / "y.flac", 8000)


def test_empty_and_non_finite_recordings(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros(0), 8000)
    with pytest.raises(UserError, match="x.wav: holds no samples; "):
        read_recording(path, 8000)
    for wrong in (np.nan, np.inf, -np.inf):
        for rate in (8000, 16000):
            soundfile.write(path, np.array([0.0] * 500 + [wrong] + [0.0] * 500), rate,
                            subtype="FLOAT")
            with pytest.raises(UserError, match="x.wav: holds NaN or infinite"):
                read_recording(path, 8000)
