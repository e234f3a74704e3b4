"""Sound for people: samples written as they are drawn, to wav files or to a player, and plots."""

import os
import time
import wave
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.errors import UserError
from datasets.files import replacing
from datasets.quantization import mu_law_decode, mu_law_encode

# What only some sounds need is imported where they need it, so that the first one begins soon.

FLUSH_SECONDS = 0.5  # from one writing to wav files to the next
MOST_SAMPLES = 2 ** 30 - 2 ** 16  # in a wav: from 2 GiB on programs read its size in many ways
PLOTTED_SECONDS = 60  # of a longer sound, the beginning
WINDOW = 0.032  # seconds in a spectrum: 256 samples at 8 kHz, 512 at 16 kHz
FLOOR = -80  # dB below the loudest, from where on all is black


def read_codes(path, rate, levels):
    """The recording at `path`, at `rate` Hz, as a network's codes: int64 (P,). None is empty.

    Raises UserError for a file that can't be read as a recording.
    """
    if path is None:
        return np.empty(0, np.int64)
    from datasets.audio import read_recording

    codes, _ = mu_law_encode(read_recording(path, rate), levels)
    return codes.astype(np.int64)


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

        with WavFiles(paths, rate) as files:
            files.write(samples)

    The first write opens the files; until then, what they held is there. From then on each is at
    any time a whole wav, of what was written up to FLUSH_SECONDS before, even if the process is
    killed or the disk is full. All of it is there when the context ends, however it does.
    Raises UserError for a file that can't be written.
    """

    def __init__(self, paths, rate):
        self._paths, self._rate = paths, rate
        self._waiting, self._flushed = [], 0.0
        self._adders, self._opened = [], ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with self._opened:
            self._flush()

    def write(self, samples):
        """Add `samples`, 16-bit little-endian (files, n)."""
        self._waiting.append(samples)
        if not self._adders or time.perf_counter() - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def _flush(self):
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for number, path in enumerate(self._paths):
            if number == len(self._adders):
                self._adders.append(self._opened.enter_context(_growing_wav(path, self._rate)))
            self._adders[number](np.concatenate([samples[number] for samples in waiting]))
        self._flushed = time.perf_counter()


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
        """Write `samples`, 16-bit little-endian (1, n)."""
        left = memoryview(samples.tobytes())
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


def record(blocks, output, given, pcm, progress, signals):
    """Write sounds to `output`, WavFiles or a Pipe, while they are drawn; a signal ends it early.

    blocks: of codes, (sounds, n) each. given: codes (P,) that each sound begins with. pcm: of
    `pcm_of_codes`. progress: a Progress. signals: a `training.signals.Signals`.
    """
    with output:
        for codes in blocks:
            if len(given):
                output.write(np.broadcast_to(pcm[given], (len(codes), len(given))))
                given = given[:0]
            output.write(pcm[codes.numpy()])
            progress.add(codes.numel())
            if signals.number:
                break


class Progress:
    """How fast sound is made: a bar while it is, and as text, str(progress), how fast it was.

    The time begins with the first block, of a sample or so: before, the sampler is made ready. It
    is counted only if there is no second block.

    total: samples to come, None for no end. rate: of them in a second of sound.
    """

    def __init__(self, total, rate):
        self._bar = tqdm(total=total, unit="sample", unit_scale=True, disable=None)
        self._rate, self._samples = rate, 0
        self._began, self._seconds = time.perf_counter(), 0.0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def add(self, samples):
        """Count the samples of another block, of all sounds that are drawn at once."""
        first = self._samples == 0
        self._samples += samples
        self._seconds = time.perf_counter() - self._began
        if first:
            self._began += self._seconds
            self._bar.unpause()
        else:
            self._bar.set_postfix_str(f"{self._times()}x real time", refresh=False)
        self._bar.update(samples)

    def __str__(self):
        sound = self._samples / self._rate
        sound_seconds = f"{sound:,.0f}" if sound >= 100 else f"{sound:.3g}"
        return (f"{sound_seconds} s of sound in {self._seconds:.1f} s, "
                f"{self._samples / self._seconds:,.0f} samples/s, {self._times()} times real time")

    def _times(self):
        """To a tenth; from 10 on to a whole, below 1 to two digits."""
        times = self._samples / self._rate / self._seconds
        return f"{times:.2g}" if times < 1 else f"{times:,.{1 if times < 10 else 0}f}"


def plot_wav(path, title, prime_seconds=0):
    """Plot the wav at `path`, or its first PLOTTED_SECONDS, beside it: see `plot_sound`."""
    import soundfile

    with soundfile.SoundFile(path) as wav:
        rate, most = wav.samplerate, PLOTTED_SECONDS * wav.samplerate
        if wav.frames > most:
            title = f"{title}, the first {PLOTTED_SECONDS} s"
        samples = wav.read(most, dtype="float32")
    plot_sound(Path(path).with_suffix(".png"), samples, rate, title,
               min(prime_seconds, PLOTTED_SECONDS))


def plot_sound(path, samples, rate, title, prime_seconds=0):
    """Write a PNG of the waveform of `samples`, and its spectrogram below.

    samples: floats in [-1, 1], (length,), at `rate` Hz. prime_seconds: of the beginning that was
    given, not drawn; it is marked where it is not 0.
    """
    # Here, since it takes long to import; the object-oriented form needs no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    (wave, beside), (spectrum, scale) = figure.subplots(2, 2, sharex="col", width_ratios=(50, 1))
    beside.set_axis_off()
    seconds = len(samples) / rate

    times = np.arange(len(samples)) / rate
    wave.plot(times, samples, linewidth=0.7, marker="." if len(samples) < 50 else None)
    wave.set(title=title, ylabel="amplitude", xlim=(0, seconds), ylim=(-1.05, 1.05))
    wave.grid(alpha=0.3)

    decibels, step = spectrogram(samples, rate)
    extent = (-step / 2, (decibels.shape[1] - 0.5) * step, 0, rate / 2)
    image = spectrum.imshow(decibels, extent=extent, origin="lower", aspect="auto", cmap="magma",
                            vmin=FLOOR, vmax=0, interpolation="nearest")
    spectrum.set(xlabel="seconds", ylabel="Hz", xlim=(0, seconds))
    figure.colorbar(image, cax=scale, label="dB")

    if prime_seconds:
        wave.axvspan(0, prime_seconds, color="tab:orange", alpha=0.2, label="given")
        wave.legend(loc="upper right")
        spectrum.axvline(prime_seconds, color="white", linestyle="--", linewidth=1)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def spectrogram(samples, rate):
    """The power of `samples` over frequency and time, in dB below its highest value.

    Windows overlap by three quarters; a sound shorter than a window is one window.

    samples: (length,) at `rate` Hz. Returns dB (frequencies from 0 to rate / 2, times), and the
    seconds from one time to the next, of which the first is 0.
    """
    from scipy import signal

    window = min(2 ** round(np.log2(WINDOW * rate)), len(samples))
    hop = max(1, window // 4)
    _, _, amplitudes = signal.stft(samples, rate, nperseg=window, noverlap=window - hop)
    power = np.abs(amplitudes) ** 2
    loudest = power.max()
    relative = power / loudest if loudest > 0 else power
    return 10 * np.log10(np.maximum(relative, 10 ** (FLOOR / 10))), hop / rate
