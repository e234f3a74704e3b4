"""What excerpts of music are compared by: timbre and loudness, and rhythm.

Timbre: the mean and the standard deviation over time of each band of a mel spectrum, in dB.
Rhythm: the modulation spectrum, which tells how fast the loudness of a group of bands rises and
falls: power by modulation frequency, in dB. A beat of 120 a minute is a peak at 2 Hz.
"""

from typing import NamedTuple

import librosa
import numpy as np

WINDOW, HOP = 0.032, 0.016  # seconds of a spectrum
FLOOR_DB = -80.0  # relative to full scale
BANDS, GROUPS = 40, 8  # of the mel spectrum; a group is the mean of BANDS / GROUPS
MODULATION_EDGES = 0.4, 0.7, 1.0, 1.5, 2.2, 3.2, 4.7, 7.0, 10.0, 15.0, 30.0  # Hz


class MusicSpectra(NamedTuple):
    """The spectra of an excerpt, in dB.

    timbre: the means and the deviations of the bands, (2 · BANDS,). rhythm: modulation spectra of
    the groups, (GROUPS · (len(MODULATION_EDGES) - 1),).
    """

    timbre: np.ndarray
    rhythm: np.ndarray

    @property
    def vector(self) -> np.ndarray:
        """Both, for a classifier: (128 + …,)."""
        return np.concatenate(self)


def music_spectra(sound: np.ndarray, rate: int) -> MusicSpectra:
    """Return the spectra of samples (n,) at `rate` Hz; at least three seconds of them."""
    decibels = mel_decibels(sound, rate)
    timbre = np.concatenate([decibels.mean(axis=1), decibels.std(axis=1)])
    groups = decibels.reshape(GROUPS, BANDS // GROUPS, -1).mean(axis=1)
    groups = (groups - groups.mean(axis=1, keepdims=True)) * np.hanning(groups.shape[1])
    power = np.abs(np.fft.rfft(groups, axis=1)) ** 2 / groups.shape[1]
    frequencies = np.fft.rfftfreq(groups.shape[1], HOP)
    band = np.digitize(frequencies, MODULATION_EDGES)
    means = [power[:, band == number].mean(axis=1) for number in range(1, len(MODULATION_EDGES))]
    return MusicSpectra(timbre, 10 * np.log10(np.array(means).T + 1e-3).ravel())


def mel_decibels(sound: np.ndarray, rate: int) -> np.ndarray:
    """The mel spectrum of samples (n,) in dB of full scale, not below FLOOR_DB: (BANDS, frames)."""
    power = librosa.feature.melspectrogram(
        y=np.asarray(sound, np.float32), sr=rate, n_fft=round(WINDOW * rate),
        hop_length=round(HOP * rate), n_mels=BANDS)
    full_scale = (round(WINDOW * rate) / 4) ** 2  # of a sine's peak, with the window's mean of 1/2
    return 10 * np.log10(np.maximum(power / full_scale, 10 ** (FLOOR_DB / 10)))


def distances(some: list[MusicSpectra], others: list[MusicSpectra]) -> tuple[float, float]:
    """Return how far two sets of excerpts are apart, in dB: (in timbre, in rhythm).

    The root mean square, over all numbers of the spectra, of the differences between the sets'
    means.
    """
    return tuple(float(np.sqrt(np.mean(np.square(
        np.mean([getattr(spectra, kind) for spectra in some], axis=0)
        - np.mean([getattr(spectra, kind) for spectra in others], axis=0)))))
        for kind in MusicSpectra._fields)  # type: ignore[return-value]


def noise_like(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return noise with the spectrum of a sound (n,), and none of its course in time.

    The amplitudes of its Fourier transform stay, their phases are drawn.
    """
    spectrum = np.fft.rfft(sound)
    phases = np.exp(2j * np.pi * generator.random(len(spectrum)))
    return np.fft.irfft(np.abs(spectrum) * phases, len(sound)).astype(np.float32)
