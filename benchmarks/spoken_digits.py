"""Spoken digits, recognised: what benchmarks judge sounds by."""

from pathlib import Path

import librosa
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

FRAME, STEP = 0.032, 0.008  # seconds, of spectra
LEAST = -80  # dB of full scale
PLACES, BANDS = 16, 24  # of the picture of a digit that is classified


def spectra(sound, rate):
    """Of the samples: (frequencies, times), in dB of full scale."""
    frame = round(FRAME * rate)
    amplitudes = np.abs(librosa.stft(sound, n_fft=frame, hop_length=round(STEP * rate)))
    return 20 * np.log10(np.maximum(amplitudes * (4 / frame), 10 ** (LEAST / 20)))


def picture(sound, rate):
    """What a digit is recognised by: its mel spectrum at some places from beginning to end.

    Relative to its mean, so that loudness is not told.
    """
    mel = librosa.feature.melspectrogram(y=sound, sr=rate, n_fft=round(FRAME * rate),
                                         hop_length=round(STEP * rate), n_mels=BANDS)
    log = np.log(mel + 1e-6)
    places = np.linspace(0, log.shape[1] - 1, PLACES)
    stretched = np.array([np.interp(places, np.arange(log.shape[1]), band) for band in log])
    return (stretched - stretched.mean()).ravel()


def classifier(pictures, spoken):
    """What tells digits apart, trained on `pictures` of recordings and what is spoken in them."""
    return make_pipeline(StandardScaler(), SVC(C=10)).fit(pictures, spoken)


def digits(part):
    """What is said in the recordings of a corpus part, whose names begin with it."""
    return [Path(recording.name).name[0] for recording in part.recordings]
