"""Features that sound is conditioned on: log-mel spectra of it, or files that lie beside it.

Frame f covers the samples from f · hop up to (f + 1) · hop. So a recording of n samples has
ceil(n / hop) frames, and the one that conditions sample t is frame t // hop.

A log-mel frame is computed of the samples around the middle of those that it covers, with zeros
beyond the recording's ends: the amplitudes of their spectrum under a Hann window (1 is a sine at
full scale), averaged over triangles that are equally wide on the mel scale, from 0 Hz to half the
rate; of these the natural logarithm, of which [ln FLOOR, 0] is brought to [-1, 1]. (A square wave
is louder than a sine, and goes a little beyond.)
"""

import math
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from common.errors import UserError
from datasets.arrays import NoArrayError, map_array
from datasets.audio.recordings import recording_blocks

KINDS = ("none", "mel", "npy")
WINDOW = 0.032  # seconds under a mel frame's window, at least
FLOOR = 1e-5  # the amplitude, -100 dB of full scale, that what is quieter is taken for
AT_ONCE = 64  # mel frames
WIDEST, LONGEST = 2 ** 20, 2 ** 22  # numbers in a frame, samples that one covers


class Features(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What frames are, in plain values that a manifest or a model file can hold (`as_dict()`).

    kind: "mel", or "npy" for those from files. width: numbers in a frame. hop: samples that a
    frame covers, at `rate` Hz. window: samples that a mel frame is computed of; floor: see FLOOR;
    0 for the other kind. What a file says of them is to be checked with common.headers.
    """

    kind: Literal["mel", "npy"]
    width: Annotated[int, Meta(ge=1, le=WIDEST)]
    hop: Annotated[int, Meta(ge=1, le=LONGEST)]
    rate: Annotated[int, Meta(ge=1, le=1_000_000)]
    window: Annotated[int, Meta(ge=0, le=4 * LONGEST)] = 0
    floor: Annotated[float, Meta(ge=0, lt=1)] = 0.0

    def __post_init__(self):
        if self.kind == "mel" and not (self.hop <= self.window and self.floor > 0):
            raise ValueError("of kind mel with a window shorter than hop, or a floor of 0")

    def as_dict(self):
        """Its fields by name."""
        return msgspec.structs.asdict(self)

    def count(self, samples):
        """How many frames cover so many samples (a number, or an array of them)."""
        return -(-samples // self.hop)

    def told(self):
        """In words."""
        return (f"{self.kind}, {self.width} numbers for every {self.hop} samples "
                f"({1000 * self.hop / self.rate:.4g} ms)")


def describe(kind, paths, rate, hop_seconds, bins):
    """The Features that recordings at `paths` are to have; None for the kind "none".

    bins: the width of "mel". That of "npy" is the width of the first of the recordings that has an
    array beside it. Raises UserError where these flags can't be followed.
    """
    if kind == "none":
        return None
    if rate * hop_seconds < 1:
        raise UserError(f"--hop_seconds {hop_seconds:g}: shorter than a sample; give at least "
                        f"{1 / rate:.3g}")
    if rate * hop_seconds > LONGEST:
        raise UserError(f"--hop_seconds {hop_seconds:g}: too long; give at most "
                        f"{LONGEST / rate:.6g}")
    hop = round(rate * hop_seconds)
    if kind == "npy":
        return Features(kind, _first_width(paths), hop, rate)
    window = 2 ** math.ceil(math.log2(max(rate * WINDOW, 2 * hop)))
    features = Features(kind, bins, hop, rate, window, FLOOR)
    # A click holds all frequencies. It also loads librosa, in time for workers to share the memory.
    click = np.zeros(window, np.float32)
    click[window // 2] = window
    if (features_of(click, features).max(axis=0) == -1).any():
        raise UserError(f"--bins {bins}: too many to be told apart at --rate {rate}; give fewer")
    return features


def features_of(source, features):
    """The frames of one recording as a whole, as `features` (Features) says: (frames, width).

    source: samples, float32 (n,), at features.rate; the path of a recording; or that of a .npy with
    the frames themselves. Raises UserError for a file that can't be used.
    """
    if isinstance(source, np.ndarray):
        blocks = [source]
    elif Path(source).suffix.lower() == ".npy":
        frames = _mapped(source, features)
        if not len(frames):
            raise UserError(f"{source}: holds no frames; make it anew")
        return _checked(source, frames)
    elif features.kind == "npy":
        raise UserError(f"{source}: the features wanted can't be computed from sound; give them as "
                        f"a .npy with an array (frames, {features.width})")
    else:
        blocks = recording_blocks(source, features.rate)
    mel = MelFrames(features)
    return np.concatenate([*map(mel.add, blocks), mel.end()])


def frames_of(path, features):
    """What makes the frames of the recording at `path` while its samples come."""
    return MelFrames(features) if features.kind == "mel" else GivenFrames(path, features)


class MelFrames:
    """Log-mel frames of samples that come block by block; the same however the blocks are cut.

    A copy (copy.copy) is a place to go on from again, whatever has been added since.
    """

    def __init__(self, features):
        self.features = features
        self.length = self.made = 0  # samples so far, frames so far
        # What no frame has been made of yet that needs it: at first, what is before the recording.
        self.waiting = np.zeros(features.window // 2 - features.hop // 2, np.float32)

    def add(self, samples):
        """The next `samples`, (n,): all frames that they complete, (frames, width) float32."""
        self.length += len(samples)
        self.waiting = np.concatenate([self.waiting, samples], dtype=np.float32)
        return self._complete()

    def end(self):
        """No more samples: the frames that are left, (frames, width)."""
        left = self.features.count(self.length) - self.made
        self.waiting = np.pad(self.waiting, (0, self.features.window + AT_ONCE * self.features.hop))
        return self._complete()[:left]

    def _complete(self):
        """Frames of the samples that wait, AT_ONCE together, as long as there are enough.

        Always so many, because the rounding of a matrix product may depend on its size.
        """
        step = AT_ONCE * self.features.hop
        needed = step - self.features.hop + self.features.window
        found = [np.empty((0, self.features.width), np.float32)]
        while len(self.waiting) >= needed:
            found.append(_log_mel(self.waiting[:needed], self.features))
            self.waiting = self.waiting[step:]
            self.made += AT_ONCE
        return np.concatenate(found)


def _log_mel(samples, features):
    """As many frames as there are windows in the `samples`, the first from the first on."""
    import librosa  # here, since it takes a second
    spectrum = librosa.stft(samples, n_fft=features.window, hop_length=features.hop, window="hann",
                            center=False)
    amplitudes = np.abs(spectrum) * (4 / features.window)  # the window's sum is half its length
    mel = np.maximum(triangles(features) @ amplitudes, features.floor)
    return np.ascontiguousarray(1 - np.log(mel.T) * (2 / math.log(features.floor)))


@lru_cache
def triangles(features):
    """The triangles of a mel spectrum, the weights in each summing up to 1: (width, spectrum)."""
    import librosa
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty ones: describe() tells them
        return librosa.filters.mel(sr=features.rate, n_fft=features.window, n_mels=features.width,
                                   fmin=0, fmax=features.rate / 2, norm=1)


class GivenFrames:
    """The frames in the .npy beside the recording at `path`, as MelFrames are made.

    Raises UserError, at last in `end()`, if there is no such file, or it is none of features of the
    recording.
    """

    def __init__(self, path, features):
        self.path, self.features = beside(path), features
        self.frames = _mapped(self.path, features)
        self.length = self.made = 0

    def add(self, samples):
        """The next `samples`, (n,): all frames that begin in them, (frames, width) float32."""
        self.length += len(samples)
        begin, self.made = self.made, self.features.count(self.length)
        return _checked(self.path, self.frames[begin:self.made])

    def end(self):
        """No more samples, and no more frames: (0, width)."""
        if len(self.frames) != self.made:
            raise UserError(f"{self.path}: holds {len(self.frames)} frames, but the recording's "
                            f"{self.length} samples are covered by {self.made} of "
                            f"{self.features.hop}; make it anew, or remove the recording")
        return self.frames[:0].astype(np.float32)


def beside(path):
    """Where the features of the recording at `path` are given."""
    return Path(path).with_suffix(".npy")


def _first_width(paths):
    """The width of the first array that lies beside one of the recordings at `paths`."""
    first = None
    for path in paths:
        try:
            return _mapped(beside(path)).shape[1]
        except UserError as error:
            first = first or error
    raise UserError(f"--features npy: there are none that can be used beside the recordings, the "
                    f"first: {first}")


def _mapped(path, features=None):
    """The array (frames, width) in a .npy, as a memory map; UserError if there is none."""
    try:
        frames = map_array(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; put the features of the recording there, or remove "
                        "that") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); make it readable") from None
    except NoArrayError as error:
        raise _no_frames(path, error) from None
    if frames.dtype.kind != "f" or frames.ndim != 2 or not frames.shape[1]:
        raise _no_frames(path, f"it holds {frames.dtype} {frames.shape}")
    if features and frames.shape[1] != features.width:
        raise UserError(f"{path}: has {frames.shape[1]} numbers in a frame instead of "
                        f"{features.width}; make all features alike")
    if frames.shape[1] > WIDEST:
        raise UserError(f"{path}: has {frames.shape[1]} numbers in a frame; give at most {WIDEST}")
    return frames


def _no_frames(path, reason):
    """The UserError for a file at `path` that holds no frames."""
    return UserError(f"{path}: not a .npy with an array (frames, width) of floating-point numbers "
                     f"({reason}); write it with numpy.save")


def _checked(path, frames):
    """`frames` of the file at `path` as float32; UserError where they are not finite."""
    with np.errstate(over="ignore"):
        frames = np.array(frames, np.float32)
    if not np.isfinite(frames).all():
        raise UserError(f"{path}: holds NaN or infinite numbers; make it anew")
    return frames
