"""Write sound while it is drawn: to wav files, or to a pipe for a player."""

import os
import time
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from common.files import os_errors_as_lines
from common.moments import Every
from common.signals import Signals
from common.text import printable
from datasets.quantization import decode_sound

if TYPE_CHECKING:
    import torch

MOST_SAMPLES = 2 ** 30 - 2 ** 16  # in a wav: programs disagree on sizes of 2 GiB or more


def pcm_table(levels: int, encoding: str = "mulaw") -> np.ndarray:
    """List the 16-bit sample of each code: (levels,), little-endian on any machine."""
    samples = np.rint(decode_sound(np.arange(levels), levels, encoding) * 2 ** 15)
    return samples.clip(-2 ** 15, 2 ** 15 - 1).astype("<i2")


def check_writable(paths: Iterable[Path]) -> None:
    """Raise UserError if one of these files exists and can't be written. Changes no file."""
    for path in paths:
        if path.exists():
            with _refusing(path), open(path, "ab"):
                pass


class WavFiles:
    """Mono wavs at `rate` Hz that grow while their sounds are drawn.

        with WavFiles(paths, rate, every) as files:
            files.write(samples)

    The files keep what they held until the first write. From then on each is a complete wav at any
    time, even if the process is killed or the disk is full: it holds what was written until the
    interval `every` passed last. When the context ends, it holds all.
    Raises UserError for a file that can't be written.
    """

    def __init__(self, paths: Sequence[Path], rate: int, every: Every):
        self._paths, self._rate, self._every = paths, rate, every
        self._waiting: list[Sequence[np.ndarray]] = []
        self._samples = 0
        self._flushed = 0, 0.0  # samples, seconds
        self._writers: list[Callable[[np.ndarray], None]] = []
        self._opened = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with self._opened:
            self._flush()

    def write(self, samples: Sequence[np.ndarray]) -> None:
        """Append `samples`, 16-bit little-endian, (n,) for each file."""
        self._waiting.append(samples)
        self._samples += max(map(len, samples))
        if not self._writers or self._every.has_passed(self._now(), self._flushed):
            self._flush()

    def _flush(self):
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for number, path in enumerate(self._paths):
            if number == len(self._writers):
                self._writers.append(self._opened.enter_context(_growing_wav(path, self._rate)))
            self._writers[number](np.concatenate([samples[number] for samples in waiting]))
        self._flushed = self._now()

    def _now(self):
        return self._samples, time.perf_counter()


@contextmanager
def _growing_wav(path: Path, rate: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Open a new wav, and yield a function that appends samples (n,), 16-bit little-endian."""
    # Not wave.open(path): where it can't open the file, it prints a second error.
    with _refusing(path), open(path, "wb") as file, wave.open(file, "wb") as wav:
        wav.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        wav.writeframes(b"")  # writes a header that announces no samples yet
        file.flush()

        def append(samples):
            with _refusing(path):
                # wave updates the sizes in the header after each write, soundfile only on closing.
                wav.writeframes(samples.tobytes())
                file.flush()

        yield append


class Pipe:
    """Raw samples for a player, written to the file descriptor `number` at once.

    Raises UserError if they can't be written, BrokenPipeError if nobody reads any more.
    """

    def __init__(self, number: int):
        self._number = number

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def write(self, samples: Sequence[np.ndarray]) -> None:
        """Write `samples`, 16-bit little-endian, (n,) for the only sound."""
        sound, = samples
        left = memoryview(sound.tobytes())
        with _refusing("--output -"):
            while left:
                left = left[os.write(self._number, left):]


def _refusing(path: Path | str) -> AbstractContextManager[None]:
    """Turn an OSError at `path` into a line."""
    return os_errors_as_lines(path, "can't be written", "make room, or choose another output")


def write_sounds(blocks: "Iterable[torch.Tensor]", lengths: Sequence[int | None],
                 output: WavFiles | Pipe, prime: np.ndarray, pcm: np.ndarray, progress: "Progress",
                 signals: Signals) -> None:
    """Write sounds to `output` while they are drawn; a signal ends it early.

    blocks: of codes, (sounds, n) each. lengths: of the sounds, in samples without the prime; None
    for no end. prime: codes (P,) with which each sound starts. pcm: the `pcm_table`.
    """
    with output:
        drawn = 0
        for codes in blocks:
            if len(prime):
                output.write([pcm[prime]] * len(codes))
                prime = prime[:0]
            rows = [sound if length is None else sound[:max(length - drawn, 0)]
                    for sound, length in zip(pcm[codes.numpy()], lengths, strict=True)]
            output.write(rows)
            drawn += codes.shape[1]
            progress.add(sum(map(len, rows)))
            if signals.number:
                break


class Progress:
    """A bar that shows how fast sound is drawn; str(progress) says it in words.

    The clock starts after the first block, which is short, because the sampler loads before it.
    Without a second block, the first one counts.

    total: samples to draw, None for no end. rate: of the sound, in Hz. name: what the bar shows.
    Attribute `seconds`: how long it took so far.
    """

    def __init__(self, total: int | None, rate: int, name: str | None = None):
        self._bar = tqdm(total=total, unit="sample", unit_scale=True, disable=None,
                         desc=name and printable(name))
        self._rate, self._samples = rate, 0
        self._began, self.seconds = time.perf_counter(), 0.0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def add(self, samples: int) -> None:
        """Count the samples of another block, summed over the sounds of a batch."""
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
        """Return the factor of real time: below 1 in two digits, below 10 in tenths, else whole."""
        times = self._samples / self._rate / self.seconds
        return f"{times:.2g}" if times < 1 else f"{times:,.{1 if times < 10 else 0}f}"
