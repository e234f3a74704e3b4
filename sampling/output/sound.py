"""Sound for people: samples written as they are drawn, to wav files or to a player."""

import os
import time
import wave
from contextlib import ExitStack, contextmanager

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.text import printable
from datasets.quantization import mu_law_decode, mu_law_encode

# What only some sounds need is imported where they need it, so that the first one begins soon.

MOST_SAMPLES = 2 ** 30 - 2 ** 16  # in a wav: from 2 GiB on programs read its size in many ways


def read_codes(path, rate, levels, seconds=0):
    """The recording at `path`, at `rate` Hz, as a network's codes: uint8 or uint16 (P,).

    seconds: of its beginning, 0 for all of it. Raises UserError for a file that can't be read as a
    recording.
    """
    from datasets.audio.recordings import Excerpt, read_recording

    return mu_law_encode(read_recording(path, rate, Excerpt(seconds=seconds)), levels)[0]


def pcm_of_codes(levels):
    """The 16-bit sample that each code stands for: (levels,), little-endian on any machine."""
    samples = np.rint(mu_law_decode(np.arange(levels), levels) * 2 ** 15)
    return samples.clip(-2 ** 15, 2 ** 15 - 1).astype("<i2")


def length_of_wav(samples, given, rate):
    """`samples`, if a wav that begins with `given` others can hold them; None: all it can hold.

    Raises UserError if it can't.
    """
    room = MOST_SAMPLES - given
    if room < (samples or 1):
        raise UserError(f"--length: a wav holds {MOST_SAMPLES:,} samples, that is "
                        f"{MOST_SAMPLES / rate / 3600:.3g} hours, a given beginning included; give "
                        f"a shorter length, or --output -")
    return samples or room


def check_writable(paths):
    """Raises UserError if one of these files is there and can't be written. Changes none."""
    for path in paths:
        if path.exists():
            with _refusing(path), open(path, "ab"):
                pass


class WavFiles:
    """Wavs of one channel at `rate` Hz that grow while their sounds are drawn.

        with WavFiles(paths, rate, every) as files:
            files.write(samples)

    The first write opens the files; until then, what they held is there. From then on each is at
    any time a whole wav, of what was written before the last time that `every` had passed, a
    `cli.arguments.Every` of samples or seconds, even if the process is killed or the disk is
    full. All of it is there when the context ends, however it does.
    Raises UserError for a file that can't be written.
    """

    def __init__(self, paths, rate, every):
        self._paths, self._rate, self._every = paths, rate, every
        self._waiting, self._samples = [], 0
        self._flushed = 0, 0.0  # samples, moment
        self._adders, self._opened = [], ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with self._opened:
            self._flush()

    def write(self, samples):
        """Add `samples`, 16-bit little-endian, of each file (n,)."""
        self._waiting.append(samples)
        self._samples += max(map(len, samples))
        if not self._adders or self._every.has_passed(self._now(), self._flushed):
            self._flush()

    def _flush(self):
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for number, path in enumerate(self._paths):
            if number == len(self._adders):
                self._adders.append(self._opened.enter_context(_growing_wav(path, self._rate)))
            self._adders[number](np.concatenate([samples[number] for samples in waiting]))
        self._flushed = self._now()

    def _now(self):
        return self._samples, time.perf_counter()


@contextmanager
def _growing_wav(path, rate):
    """A function that adds samples (n,), 16-bit little-endian, to a new wav at `path`."""
    # A file of our own, since wave.open(path) complains a second time where it can't open one.
    with _refusing(path), open(path, "wb") as file, wave.open(file, "wb") as wav:
        wav.setparams((1, 2, rate, 0, "NONE", None))
        wav.writeframes(b"")  # a header that doesn't announce samples before they are there
        file.flush()

        def add(samples):
            with _refusing(path):
                # Once the samples are written, wave brings the sizes in the header up to date.
                # soundfile does so when it closes a file, before that only by private means.
                wav.writeframes(samples.tobytes())
                file.flush()

        yield add


class Pipe:
    """Raw samples for a player, at the file descriptor `number`, as soon as they are drawn.

    Raises UserError if they can't be written, but BrokenPipeError if nobody reads them any more.
    """

    def __init__(self, number):
        self._number = number

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def write(self, samples):
        """Write `samples`, 16-bit little-endian: of the one sound (n,)."""
        sound, = samples
        left = memoryview(sound.tobytes())
        with _refusing("--output -"):
            while left:
                left = left[os.write(self._number, left):]


@contextmanager
def _refusing(path):
    """Raises the UserError for an OSError at `path`, unless it is BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror or error}); make room, or "
                        f"choose another output") from None


def record(blocks, lengths, output, given, pcm, progress, signals):
    """Write sounds to `output`, WavFiles or a Pipe, while they are drawn; a signal ends it early.

    blocks: of codes, (sounds, n) each. lengths: samples after which a sound is at its end, None for
    none. given: codes (P,) that each sound begins with. pcm: of `pcm_of_codes`. progress: a
    Progress. signals: a `common.signals.Signals`.
    """
    with output:
        drawn = 0
        for codes in blocks:
            if len(given):
                output.write([pcm[given]] * len(codes))
                given = given[:0]
            rows = [sound if length is None else sound[:max(length - drawn, 0)]
                    for sound, length in zip(pcm[codes.numpy()], lengths, strict=True)]
            output.write(rows)
            drawn += codes.shape[1]
            progress.add(sum(map(len, rows)))
            if signals.number:
                break


class Progress:
    """How fast sound is made: a bar while it is, and as text, str(progress), how fast it was.

    The time begins with the first block, of a sample or so: before, the sampler is made ready. It
    is counted only if there is no second block.

    total: samples to come, None for no end. rate: of them in a second of sound. name: of what is
    drawn, for the bar. Its `seconds` are the time.
    """

    def __init__(self, total, rate, name=None):
        self._bar = tqdm(total=total, unit="sample", unit_scale=True, disable=None,
                         desc=name and printable(name))
        self._rate, self._samples = rate, 0
        self._began, self.seconds = time.perf_counter(), 0.0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def add(self, samples):
        """Count the samples of another block, of all sounds that are drawn at once."""
        first = self._samples == 0
        self._samples += samples
        self.seconds = time.perf_counter() - self._began
        if first:
            self._began += self.seconds
            self._bar.unpause()
        else:
            self._bar.set_postfix_str(f"{self._times()}x real time", refresh=False)
        self._bar.update(samples)

    def __str__(self):
        sound = self._samples / self._rate
        sound_seconds = f"{sound:,.0f}" if sound >= 100 else f"{sound:.3g}"
        seconds = f"{self.seconds:.1f}" if self.seconds >= 1 else f"{self.seconds:.2g}"
        return (f"{sound_seconds} s of sound in {seconds} s, "
                f"{self._samples / self.seconds:,.0f} samples/s, {self._times()} times real time")

    def _times(self):
        """To a tenth; from 10 on to a whole, below 1 to two digits."""
        times = self._samples / self._rate / self.seconds
        return f"{times:.2g}" if times < 1 else f"{times:,.{1 if times < 10 else 0}f}"
