"""Frames of features that condition sound: log-mel spectra of it, or arrays stored next to it.

Those of what a recording says (kind "text") hold a log-mel frame too: see `datasets.text.frames`.

Frame f covers the samples from f · hop up to (f + 1) · hop. So a recording of n samples has
ceil(n / hop) frames, and frame t // hop conditions sample t.

A log-mel frame's value holds at the centre of the samples that it covers. It is computed from a
window around that centre, with zeros beyond the recording's ends: the amplitudes of the spectrum
under a Hann window (a sine at full scale gives 1), averaged over triangles of equal width on the
mel scale, from 0 Hz to half the rate; then the natural logarithm, scaled so that [ln FLOOR, 0]
becomes [-1, 1]. (A square wave is louder than a sine and slightly exceeds 1.)
"""

import math
import warnings
from collections.abc import Iterable
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from common.errors import UserError
from common.files import os_errors_as_lines
from datasets.arrays import InvalidArrayError, map_array
from datasets.audio.recordings import recording_blocks

KINDS = ("none", "mel", "npy", "text")
TEXT_WIDTH = 9  # numbers in a text frame before its log-mel frame
MIN_WINDOW = 0.032  # seconds under a mel frame's window
FLOOR = 1e-5  # amplitude, -100 dB of full scale; anything quieter counts as this
LONGEST_TEXT_HOP = 0.02  # seconds; the shortest phonemes last 0.03
FRAMES_PER_CHUNK = 64  # mel frames computed together
MAX_WIDTH, MAX_HOP = 2 ** 20, 2 ** 22  # numbers in a frame, samples that a frame covers


class Features(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the frames are, in plain values that a manifest or a model file can hold.

    kind: "mel", "text", or "npy" for arrays from files. width: numbers in a frame. hop: samples
    that a frame covers, at `rate` Hz. window: samples that a mel frame is computed from; floor: see
    FLOOR; both 0 for "npy". Check what a file says with common.headers.
    """

    kind: Literal["mel", "npy", "text"]
    width: Annotated[int, Meta(ge=1, le=MAX_WIDTH)]
    hop: Annotated[int, Meta(ge=1, le=MAX_HOP)]
    rate: Annotated[int, Meta(ge=1, le=1_000_000)]
    window: Annotated[int, Meta(ge=0, le=4 * MAX_HOP)] = 0
    floor: Annotated[float, Meta(ge=0, lt=1)] = 0.0

    def __post_init__(self):
        if self.kind != "npy" and not (self.hop <= self.window and self.floor > 0):
            raise ValueError(f"of kind {self.kind} with a window shorter than hop, or a floor of 0")
        if self.kind == "text" and self.width <= TEXT_WIDTH:
            raise ValueError("of kind text without a mel spectrum")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return msgspec.structs.asdict(self)

    @property
    def mel(self) -> "Features":
        """The log-mel frames that text frames hold."""
        return msgspec.structs.replace(self, kind="mel", width=self.width - TEXT_WIDTH)

    def count(self, samples: Any) -> Any:
        """Return how many frames cover that many samples (a number, or an array of numbers)."""
        return -(-samples // self.hop)

    def summary(self) -> str:
        """Describe the features in words."""
        return (f"{self.kind}, {self.width} numbers for every {self.hop} samples "
                f"({1000 * self.hop / self.rate:.4g} ms)")


def make_features(kind: str, paths: Iterable[Path], rate: int, hop_seconds: float,
                  bins: int) -> Features | None:
    """Return the Features for the recordings at `paths`; None for the kind "none".

    bins: of the mel spectra. "npy" takes the width of the first usable array that belongs to one of
    the recordings. Raises UserError for values out of range, or if there is no usable array.
    """
    if kind == "none":
        return None
    if rate * hop_seconds < 1:
        raise UserError(f"{hop_seconds:g}: shorter than a sample; give at least {1 / rate:.3g}",
                        parameter="hop_seconds")
    if rate * hop_seconds > MAX_HOP:
        raise UserError(f"{hop_seconds:g}: too long; give at most {MAX_HOP / rate:.6g}",
                        parameter="hop_seconds")
    hop = round(rate * hop_seconds)
    if kind == "npy":
        return Features("npy", _first_width(paths), hop, rate)
    window = 2 ** math.ceil(math.log2(max(rate * MIN_WINDOW, 2 * hop)))
    features = Features("mel", bins, hop, rate, window, FLOOR)
    # A click holds all frequencies. Computing it also loads librosa before workers fork, so that
    # they share its memory.
    click = np.zeros(window, np.float32)
    click[window // 2] = window
    if (compute_features(click, features).max(axis=0) == -1).any():
        raise UserError(f"{bins}: too many to be told apart at rate {rate} Hz; give fewer",
                        parameter="bins")
    if kind == "text":
        if hop_seconds > LONGEST_TEXT_HOP:
            raise UserError(f"{hop_seconds:g}: too long for phonemes; give at most "
                            f"{LONGEST_TEXT_HOP:g}", parameter="hop_seconds")
        return msgspec.structs.replace(features, kind=kind, width=TEXT_WIDTH + bins)
    return features


def compute_features(source: np.ndarray | str | PathLike[str], features: Features) -> np.ndarray:
    """Return all frames of one recording, (frames, width) float32, as `features` describes.

    source: samples, float32 (n,), at features.rate; or the path of a recording; or the path of a
    .npy with the frames themselves. Raises UserError for a file that can't be used.
    """
    blocks: Iterable[np.ndarray]
    if isinstance(source, np.ndarray):
        blocks = [source]
    elif Path(source).suffix.lower() == ".npy":
        frames = _map_frames(source, features)
        if not len(frames):
            raise UserError(f"{source}: holds no frames; make it again")
        return _as_finite_float32(source, frames)
    elif features.kind != "mel":
        raise UserError(f"{source}: the features wanted can't be computed from sound; give them as "
                        f"a .npy with an array (frames, {features.width})")
    else:
        blocks = recording_blocks(source, features.rate)
    mel = MelFrames(features)
    return np.concatenate([*map(mel.add, blocks), mel.end()])


def frame_encoder(path: Path, features: Features) -> "MelFrames | StoredFrames":
    """Return the encoder that makes the frames of the recording at `path` from its samples."""
    return MelFrames(features) if features.kind == "mel" else StoredFrames(path, features)


class MelFrames:
    """Encodes samples as log-mel frames, block by block; block sizes don't change the result.

    A copy (copy.copy) saves the state; it doesn't change when samples are added afterwards.
    """

    def __init__(self, features: Features):
        self.features = features
        self.length = self.made = 0  # samples so far, frames so far
        # Samples that future frames need: at first, the zeros before the recording.
        self.waiting = np.zeros(features.window // 2 - features.hop // 2, np.float32)

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Return the frames that the next `samples`, (n,), complete: (frames, width) float32."""
        self.length += len(samples)
        self.waiting = np.concatenate([self.waiting, samples], dtype=np.float32)
        return self._complete()

    def end(self) -> np.ndarray:
        """Return the remaining frames after the last sample: (frames, width)."""
        left = self.features.count(self.length) - self.made
        padding = self.features.window + FRAMES_PER_CHUNK * self.features.hop
        self.waiting = np.pad(self.waiting, (0, padding))
        return self._complete()[:left]

    def _complete(self) -> np.ndarray:
        """Compute frames of the waiting samples, in chunks of FRAMES_PER_CHUNK.

        Chunks have a fixed size, because the rounding of a matrix product may depend on its size.
        """
        step = FRAMES_PER_CHUNK * self.features.hop
        needed = step - self.features.hop + self.features.window
        found = [np.empty((0, self.features.width), np.float32)]
        while len(self.waiting) >= needed:
            found.append(_log_mel(self.waiting[:needed], self.features))
            self.waiting = self.waiting[step:]
            self.made += FRAMES_PER_CHUNK
        return np.concatenate(found)


def _log_mel(samples: np.ndarray, features: Features) -> np.ndarray:
    """Return one frame for each window that fits into the `samples`: (frames, width)."""
    import librosa  # here, because it takes a second
    spectrum = librosa.stft(samples, n_fft=features.window, hop_length=features.hop, window="hann",
                            center=False)
    amplitudes = np.abs(spectrum) * (4 / features.window)  # the window's sum is half its length
    mel = np.maximum(mel_filterbank(features) @ amplitudes, features.floor)
    return np.ascontiguousarray(1 - np.log(mel.T) * (2 / math.log(features.floor)))


@lru_cache
def mel_filterbank(features: Features) -> np.ndarray:
    """Return the triangles of a mel spectrum, each with weights that sum to 1: (width, bins)."""
    import librosa
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty triangles: make_features() reports them
        return librosa.filters.mel(sr=features.rate, n_fft=features.window, n_mels=features.width,
                                   fmin=0, fmax=features.rate / 2, norm=1)


class StoredFrames:
    """Reads frames from the .npy of the recording at `path`, with the interface of MelFrames.

    Raises UserError, at the latest in `end()`, if there is no such file, or if it doesn't fit the
    recording.
    """

    def __init__(self, path: Path, features: Features):
        self.path, self.features = features_path(path), features
        self.frames = _map_frames(self.path, features)
        self.length = self.made = 0

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Return the frames that begin in the next `samples`, (n,): (frames, width) float32."""
        self.length += len(samples)
        begin, self.made = self.made, self.features.count(self.length)
        return _as_finite_float32(self.path, self.frames[begin:self.made])

    def end(self) -> np.ndarray:
        """Check that the recording used all frames; return (0, width)."""
        if len(self.frames) != self.made:
            raise UserError(f"{self.path}: holds {len(self.frames)} frames, but the recording's "
                            f"{self.length} samples are covered by {self.made} of "
                            f"{self.features.hop}; make it again, or remove the recording")
        return self.frames[:0].astype(np.float32)


def features_path(path: str | PathLike[str]) -> Path:
    """Return where the features of the recording at `path` are stored: NAME.npy."""
    return Path(path).with_suffix(".npy")


def _first_width(paths: Iterable[Path]) -> int:
    """Return the width of the first array that belongs to one of the recordings at `paths`."""
    first = None
    for path in paths:
        try:
            return _map_frames(features_path(path)).shape[1]
        except UserError as error:
            first = first or error
    raise UserError("npy: there are none that can be used beside the recordings, the first: "
                    f"{first}", parameter="features")


def _map_frames(path: str | PathLike[str], features: Features | None = None) -> np.ndarray:
    """Return the array (frames, width) in a .npy as a memory map; UserError if it is none."""
    try:
        with os_errors_as_lines(path, "can't be read", "make it readable", missing="missing; put "
                                "the features of the recording there, or remove that"):
            frames = map_array(path)
    except InvalidArrayError as error:
        raise _not_frames(path, error) from None
    if frames.dtype.kind != "f" or frames.ndim != 2 or not frames.shape[1]:
        raise _not_frames(path, f"it holds {frames.dtype} {frames.shape}")
    if features and frames.shape[1] != features.width:
        raise UserError(f"{path}: has {frames.shape[1]} numbers in a frame instead of "
                        f"{features.width}; make all features alike")
    if frames.shape[1] > MAX_WIDTH:
        raise UserError(f"{path}: has {frames.shape[1]} numbers in a frame; give at most "
                        f"{MAX_WIDTH}")
    return frames


def _not_frames(path: str | PathLike[str], reason: object) -> UserError:
    """Return the UserError for a file at `path` that holds no frames."""
    return UserError(f"{path}: not a .npy with an array (frames, width) of floating-point numbers "
                     f"({reason}); write it with numpy.save")


def _as_finite_float32(path: str | PathLike[str], frames: np.ndarray) -> np.ndarray:
    """Convert `frames` of the file at `path` to float32; UserError if they are not finite."""
    with np.errstate(over="ignore"):
        frames = np.array(frames, np.float32)
    if not np.isfinite(frames).all():
        raise UserError(f"{path}: holds NaN or infinite numbers; make it again")
    return frames
