"""Sound written to wavs and pipes while it is drawn, and plots of sound."""

import io
import os
import resource

import numpy as np
import pytest
import soundfile
from PIL import Image

from cli.arguments import Every
from cli.primes import read_prime
from cli.sound_request import length_of_wav
from common.errors import UserError
from datasets.quantization import mu_law_decode
from sampling.output import sound, sound_plots
from sampling.output.sound import (
    MOST_SAMPLES,
    Pipe,
    WavFiles,
    pcm_table,
)
from sampling.output.sound_plots import FLOOR, plot_sound, plot_wav, show_wav, spectrogram


def tone(seconds, hertz, rate):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def noise(files, n):
    """16-bit samples (files, n)."""
    return np.random.default_rng(n).integers(-2 ** 15, 2 ** 15, (files, n)).astype("<i2")


def read(path):
    """The 16-bit samples of a wav, of which the header must tell no more than there are."""
    samples, _ = soundfile.read(path, dtype="int16")
    data = path.read_bytes()
    riff, announced = (int.from_bytes(data[i:i + 4], "little") for i in (4, 40))
    assert riff == announced + 36 and announced == 2 * len(samples) <= len(data) - 44
    return samples


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_16_bit_samples_of_codes(levels, tmp_path):
    samples = mu_law_decode(np.arange(levels), levels)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="PCM_16")
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    pcm = pcm_table(levels)
    assert pcm.dtype == "<i2" and (pcm[0], pcm[-1]) == (-2 ** 15, 2 ** 15 - 1)
    assert np.abs(pcm.astype(int) - expected).max() <= 1


def test_wavs_are_valid_after_every_flush(tmp_path):
    paths, samples = [tmp_path / "a.wav", tmp_path / "b.wav"], noise(2, 9000)
    paths[0].write_text("what was there before")
    with WavFiles(paths, 11025, Every(1)) as files:
        assert paths[0].read_text() == "what was there before" and not paths[1].exists()
        for begin, end in ((0, 1), (1, 10), (10, 5000), (5000, 9000)):
            files.write(samples[:, begin:end])
            for path, of_file in zip(paths, samples, strict=True):
                assert np.array_equal(read(path), of_file[:end])
    info = soundfile.info(paths[1])
    assert (info.samplerate, info.channels) == (11025, 1)
    assert (info.format, info.subtype) == ("WAV", "PCM_16")


@pytest.mark.parametrize("every, flushed", [
    (Every(3600, in_seconds=True), [100, 100, 100, 100]), (Every(150), [100, 100, 300, 300]),
    (Every(100), [100, 200, 300, 400]), (Every(1, in_seconds=True), [100, 100, 300, 300])])
def test_wavs_are_flushed_at_the_interval(tmp_path, monkeypatch, every, flushed):
    path, samples, clock = tmp_path / "a.wav", noise(1, 400), [10.0]
    monkeypatch.setattr(sound.time, "perf_counter", lambda: clock[0])
    with pytest.raises(KeyboardInterrupt), WavFiles([path], 8000, every) as files:
        for begin, expected in zip(range(0, 400, 100), flushed, strict=True):
            files.write(samples[:, begin:begin + 100])
            assert len(read(path)) == expected  # the first is there to be listened to
            clock[0] += 0.6
        raise KeyboardInterrupt
    assert np.array_equal(read(path), samples[0])


def test_a_wav_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with (pytest.raises(UserError, match="file/a.wav: can't be written"),
          WavFiles([tmp_path / "file/a.wav"], 8000, Every(1)) as files):
        files.write(noise(1, 5))


def test_wavs_after_one_that_cannot_be_written_stay_as_they_were(tmp_path):
    (tmp_path / "file").touch()
    paths = [tmp_path / "a.wav", tmp_path / "file/b.wav", tmp_path / "c.wav"]
    paths[2].write_text("what was there before")
    samples = noise(3, 5)
    with pytest.raises(UserError, match="b.wav"), WavFiles(paths, 8000, Every(1)) as files:
        files.write(samples)
    assert np.array_equal(read(paths[0]), samples[0])
    assert paths[2].read_text() == "what was there before"


def test_a_wav_is_valid_before_its_first_sample(tmp_path):
    with sound._growing_wav(tmp_path / "a.wav", 8000):
        assert len(read(tmp_path / "a.wav")) == 0


def test_a_full_disk_leaves_valid_wavs(tmp_path):
    paths, samples = [tmp_path / "a.wav", tmp_path / "b.wav"], noise(2, 40000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50000, hard))  # as if the disk were that small
    try:
        with (pytest.raises(UserError, match="a.wav: can't be written .*make room"),
              WavFiles(paths, 8000, Every(1)) as files):
            for begin in range(0, 40000, 10000):
                files.write(samples[:, begin:begin + 10000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for path, of_file in zip(paths, samples, strict=True):
        assert np.array_equal(read(path), of_file[:20000])


def test_longest_wav():
    assert length_of_wav(5, 3, 8000) == 5
    assert length_of_wav(None, 3, 8000) == MOST_SAMPLES - 3
    assert length_of_wav(MOST_SAMPLES - 3, 3, 8000) == MOST_SAMPLES - 3
    for samples, given in ((MOST_SAMPLES - 2, 3), (None, MOST_SAMPLES)):
        with pytest.raises(UserError, match="--length: .* 37.3 hours"):
            length_of_wav(samples, given, 8000)


def test_pipe():
    end, begin = os.pipe()
    samples = noise(1, 500)
    with Pipe(begin) as pipe:
        pipe.write(samples)
        assert os.read(end, 4096) == samples.tobytes()
        os.close(end)
        with pytest.raises(BrokenPipeError):
            pipe.write(samples)
    os.close(begin)


def test_a_pipe_to_a_full_disk():
    with open("/dev/full", "wb") as full, pytest.raises(UserError, match="--output -: can't be"):
        Pipe(full.fileno()).write(noise(1, 5))


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


@pytest.mark.parametrize("seconds, given, before, title", [
    (1.5, 1.4, 0, "a"), (2.5, 0.5, 0, "a, the first 2 s"),
    (2.5, 1.25, 0.25, "a, 2 s from 0.25 s on"), (2.5, 2.4, 0.5, "a, 2 s from 0.5 s on"),
    (9, 6, 5, "a, 2 s from 5 s on")])
def test_plot_of_a_long_sound_shows_the_end_of_the_prime(
        tmp_path, monkeypatch, seconds, given, before, title):
    seen = []
    monkeypatch.setattr(sound_plots, "PLOTTED_SECONDS", 2)
    monkeypatch.setattr(sound_plots, "plot_sound", lambda *args: seen.append(args))
    soundfile.write(tmp_path / "a.wav", tone(seconds, 300, 8000), 8000)
    plot_wav(tmp_path / "a.wav", "a", given)
    (path, samples, rate, its_title, prime_seconds), = seen
    assert (path, rate, its_title) == (tmp_path / "a.png", 8000, title)
    assert prime_seconds == pytest.approx(given - before)
    begin = int(before * 8000)
    assert np.abs(samples - tone(seconds, 300, 8000)[begin:begin + 16000]).max() < 1e-4


def test_a_recording_as_codes(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.25, 300, 16000), 16000)
    codes = read_prime(tmp_path / "a.wav", 8000, 256)
    assert codes.shape == (2000,) and codes.dtype == np.uint8
    assert np.array_equal(read_prime(tmp_path / "a.wav", 16000, 256, seconds=0.1),
                          read_prime(tmp_path / "a.wav", 16000, 256)[:1600])


def test_show_wav(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_plots, "PLOTTED_SECONDS", 2)
    samples = tone(2.5, 300, 8000)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="PCM_16")
    picture, wav, length = show_wav(tmp_path / "a.wav", prime_seconds=0.5)
    assert length == "2 s (here the first 2 s)"  # drawn, of 2.5
    played, rate = soundfile.read(io.BytesIO(wav))
    assert rate == 8000 and np.abs(played - samples[:16000]).max() < 1e-4
    with Image.open(io.BytesIO(picture)) as plot:
        assert plot.format == "PNG" and plot.width > 300
