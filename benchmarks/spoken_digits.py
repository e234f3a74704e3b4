"""Spectra of spoken digits and a classifier of them, to judge samples with."""

from collections.abc import Sequence
from pathlib import Path

import librosa
import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from datasets.corpus.reader import Split
from datasets.quantization import silence

FRAME, HOP = 0.032, 0.008  # seconds of the spectra
FLOOR_DB = -80  # relative to full scale
TIMES, BANDS = 16, 24  # size of the classifier's mel spectrum
ENDING = 0.05  # seconds of nothing but the code of silence; in recordings it lasts 3 ms at most


def spectrogram(sound: np.ndarray, rate: int) -> np.ndarray:
    """The spectrogram (frequencies, times) of samples (n,), in dB relative to full scale."""
    frame = round(FRAME * rate)
    amplitudes = np.abs(librosa.stft(sound, n_fft=frame, hop_length=round(HOP * rate)))
    return 20 * np.log10(np.maximum(amplitudes * (4 / frame), 10 ** (FLOOR_DB / 20)))


def first_ending(codes: np.ndarray, levels: int, rate: int) -> int | None:
    """Where a sound of codes (n,) ends: the number of the first of ENDING seconds of silence.

    None for a sound that does not end. preprocess.py --silence_after adds endings.
    """
    size = round(ENDING * rate)
    sounding = np.flatnonzero(codes != silence(levels))
    gaps = np.diff(sounding, prepend=-1, append=len(codes)) > size
    return int([-1, *sounding][gaps.argmax()]) + 1 if gaps.any() else None


def digit_features(sound: np.ndarray, rate: int) -> np.ndarray:
    """The log mel spectrum of samples (n,) at TIMES equally spaced times: (BANDS * TIMES,).

    The mean is subtracted, so loudness does not count.
    """
    mel = librosa.feature.melspectrogram(y=sound, sr=rate, n_fft=round(FRAME * rate),
                                         hop_length=round(HOP * rate), n_mels=BANDS)
    log = np.log(mel + 1e-6)
    times = np.linspace(0, log.shape[1] - 1, TIMES)
    stretched = np.array([np.interp(times, np.arange(log.shape[1]), band) for band in log])
    return (stretched - stretched.mean()).ravel()


def train_classifier(features: Sequence[np.ndarray] | np.ndarray,
                     digits: Sequence[str]) -> Pipeline:
    """Train a support vector machine on the `digit_features` of recordings and their digits."""
    return make_pipeline(StandardScaler(), SVC(C=10)).fit(features, digits)


def digit_labels(split: Split) -> list[str]:
    """The digit of each recording of a split: the first character of its file name."""
    return [Path(recording.name).name[0] for recording in split.recordings]
