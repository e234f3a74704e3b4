"""The judge of music distinguishes noise, the classes, and copies of training music."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import judges, judging_music
from benchmarks.music_spectra import (
    BANDS,
    GROUPS,
    MODULATION_EDGES,
    distances,
    music_spectra,
    noise_like,
)
from common.errors import UserError
from datasets.corpus.reader import Corpus
from models.model_file import model_content, save
from models.wavenet import WaveNet, WaveNetConfig

ROOT = Path(__file__).resolve().parents[1]
RATE = 8000


def beats(hertz, seconds=6, seed=0, pitch=440):
    """A tone with noise whose loudness rises and falls so many times a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return ((np.sin(2 * np.pi * pitch * time) + 0.3 * noise)
            * (0.02 + np.sin(np.pi * hertz * time) ** 8) * 0.2)


@pytest.mark.parametrize("hertz", [1.25, 2.5, 6])
def test_a_beat_is_a_peak_of_the_modulation_spectrum(hertz):
    rhythm = music_spectra(beats(hertz), RATE).rhythm.reshape(GROUPS, -1).mean(axis=0)
    assert rhythm.argmax() == np.digitize(hertz, MODULATION_EDGES) - 1


def test_timbre_is_loudness_by_band():
    quiet, loud = (music_spectra(factor * beats(2), RATE).timbre for factor in (0.5, 1))
    assert quiet.shape == (2 * BANDS,)
    change = (loud - quiet)[:BANDS]
    assert change.max() == pytest.approx(20 * np.log10(2), abs=0.1)
    assert abs(loud[:BANDS].argmax() - music_spectra(
        0.1 * np.sin(2 * np.pi * 440 * np.arange(48000) / RATE), RATE).timbre[:BANDS].argmax()) <= 1


def test_noise_of_the_same_spectrum_has_no_rhythm():
    sound = beats(2)
    noise = noise_like(sound, np.random.default_rng(0))
    assert np.allclose(np.abs(np.fft.rfft(noise))[1:-1], np.abs(np.fft.rfft(sound))[1:-1],
                       atol=1e-2)
    music, again, other = ([music_spectra(one, RATE)] for one in (sound, beats(2, seed=1), noise))
    assert distances(music, music) == (0, 0)
    assert distances(music, again)[1] < 0.3 * distances(music, other)[1]


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """A corpus of two classes of beats, and an untrained model of it."""
    folder = tmp_path_factory.mktemp("music")
    for name, hertz, pitch in (("slow", 1.25, 440), ("fast", 5, 700)):
        (folder / "music" / name).mkdir(parents=True)
        for number in range(4):
            soundfile.write(folder / f"music/{name}/{number}.wav",
                            beats(hertz, 20, number, pitch + 5 * number), RATE)
    subprocess.run([sys.executable, ROOT / "preprocess.py", "--data", folder / "music", "--output",
                    folder / "corpus", "--validation", "0.2", "--validation_of", "each",
                    "--stacks_num", "1", "--layers_num", "3", "--workers", "1"],
                   check=True, capture_output=True)
    model = WaveNet(WaveNetConfig(256, 4, 4, stacks_num=1, layers_num=3, labels=2))
    save(folder / "model", model_content("wavenet", model, ["fast", "slow"],
                                         dict(levels=256, rate=RATE)))
    return folder


def run(monkeypatch, capsys, music, *flags):
    """Run the script; return what it prints."""
    monkeypatch.setattr(sys, "argv", ["judging_music.py", "-m", str(music / "model"), "--data",
                                      str(music / "corpus"), "-c", "3", "--seconds", "4",
                                      "--threads", "1", *map(str, flags)])
    judging_music.main()
    return capsys.readouterr().out


def test_noise_is_not_taken_for_music(music, monkeypatch, capsys):
    printed = run(monkeypatch, capsys, music, "--long", 20)
    shares = dict(re.findall(r"^(held-back music|drawn): ([\d.]+)% recognised", printed, re.M))
    assert shares == {"held-back music": "100.0", "drawn": "50.0"}  # all taken for one class
    rows = re.findall(r"^\| (fast|slow) \| (.+) \|$", printed, re.M)
    assert len(rows) == 2
    for _, cells in rows:
        drawn, train, noise, other = (tuple(map(float, cell.split(" / ")))
                                      for cell in cells.split(" | "))
        assert max(train) < 3 < min(drawn[0], noise[1], other[1])
    assert len(re.findall(r"^\| (?:fast|slow), (?:0|10) \| -?[\d.]+ dB", printed, re.M)) == 4


def test_copies_are_recognised_and_near(music, monkeypatch, capsys):
    train = Corpus(music / "corpus").train

    def draw_copies(model, streams, label, length, *more):
        """Yield the beginnings of training recordings of the label, in two blocks."""
        kinds = [recording.label for recording in train.recordings]
        codes = torch.tensor(np.stack([train.codes(kinds.index(kind))[:length]
                                       for kind in label])).long()
        yield from codes.split(length - 100, dim=1)

    monkeypatch.setattr(judges, "sample_sounds", draw_copies)
    printed = run(monkeypatch, capsys, music)
    assert "drawn: 100.0% recognised" in printed
    held_back, drawn = (float(re.search(rf"^{what} excerpts: .* at ([\d.]+) \(median", printed,
                                        re.M)[1]) for what in ("held-back", "drawn"))
    assert drawn == 0 < held_back


def test_excerpts_longer_than_the_music_are_refused(music, monkeypatch, capsys):
    with pytest.raises(UserError, match="--seconds 30: no recording of fast is that long"):
        run(monkeypatch, capsys, music, "--seconds", 30)
