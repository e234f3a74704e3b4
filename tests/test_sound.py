"""Sound written as wav and drawn as plots."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from datasets.errors import UserError
from sampling.sound import FLOOR, plot_sound, read_codes, spectrogram, write_wav


def tone(seconds, hertz, rate):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_wav_read_back(tmp_path):
    samples = np.array([-1, -0.5, 0, 1e-3, 0.5, 1])
    write_wav(tmp_path / "a.wav", samples, 11025)
    read, rate = soundfile.read(tmp_path / "a.wav")
    info = soundfile.info(tmp_path / "a.wav")
    assert rate == 11025 and (info.format, info.subtype, info.channels) == ("WAV", "PCM_16", 1)
    assert np.abs(read - samples).max() <= 1 / 32767
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_wav_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        write_wav(tmp_path / "file/a.wav", np.zeros(5), 8000)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_spectrogram_of_a_tone(rate):
    decibels, step = spectrogram(tone(1, 1000, rate), rate)
    frequencies, times = decibels.shape
    peak = decibels[:, times // 2].argmax() * rate / 2 / (frequencies - 1)
    assert abs(peak - 1000) < 32
    assert abs((times - 1) * step - 1) < 0.05
    assert decibels.max() == 0 and decibels.min() == FLOOR


@pytest.mark.filterwarnings("error")  # such as matplotlib's, for axes without extent
@pytest.mark.parametrize("samples", [
    np.zeros(1), np.zeros(300), np.ones(2), tone(0.0005, 1000, 8000), tone(0.5, 300, 8000)],
    ids=["one", "silence", "two", "four", "half a second"])
def test_plot_of_any_length(tmp_path, samples):
    plot_sound(tmp_path / "a.png", samples.astype(np.float32), 8000, "title")
    with Image.open(tmp_path / "a.png") as plot:
        assert plot.size == (990, 605)


def test_the_prime_is_marked(tmp_path):
    samples = tone(0.5, 300, 8000)
    plot_sound(tmp_path / "a.png", samples, 8000, "title")
    plot_sound(tmp_path / "b.png", samples, 8000, "title", prime_seconds=0.25)
    plain, marked = (np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
                     for name in ("a.png", "b.png"))
    changed = np.abs(plain - marked).sum(-1) > 0
    assert changed[60:250, 100:450].mean() > 0.3  # the first half of the waveform
    assert changed[150:250, 520:780].mean() < 0.01  # not the second, but for the legend above


def test_a_recording_as_codes(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.25, 300, 16000), 16000)
    codes = read_codes(tmp_path / "a.wav", 8000, 256)
    assert codes.shape == (2000,) and codes.dtype == np.int64
    assert read_codes(None, 8000, 256).shape == (0,)
