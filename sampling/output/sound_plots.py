"""Plots of sound: its waveform, and its spectrogram below."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import atomic_write
from common.fonts import legible

# What takes long to import is imported where it is needed.

PLOTTED_SECONDS = 60  # of a longer sound, the beginning, or where what was given ends
WINDOW = 0.032  # seconds in a spectrum: 256 samples at 8 kHz, 512 at 16 kHz
FLOOR = -80  # dB below the loudest, from where on all is black
SIZE, SIZE_ON_PAGE = (9, 5.5), (6, 3.4)  # inches


class Part(NamedTuple):
    """Of a wav PLOTTED_SECONDS at the most, in which what was drawn begins in the middle or before.

    samples: (length,), at `rate` Hz. prime_seconds: of them that were given. drawn: seconds of the
    whole wav that were not. said: which part it is, in words; empty for all of it.
    """

    samples: np.ndarray
    rate: int
    prime_seconds: float
    drawn: float
    said: str


def part_of_wav(path, prime_seconds):
    """The `Part` to show of the wav at `path`, whose first `prime_seconds` were given."""
    import soundfile

    with soundfile.SoundFile(path) as wav:
        rate, seconds = wav.samplerate, wav.frames / wav.samplerate
        before = max(0, min(prime_seconds - PLOTTED_SECONDS / 2, seconds - PLOTTED_SECONDS))
        wav.seek(int(before * rate))
        samples = wav.read(PLOTTED_SECONDS * rate, dtype="float32")
    said = (f"{PLOTTED_SECONDS} s from {before:.3g} s on" if before else
            f"the first {PLOTTED_SECONDS} s" if seconds > PLOTTED_SECONDS else "")
    return Part(samples, rate, prime_seconds - before, seconds - prime_seconds, said)


def plot_wav(path, title, prime_seconds=0):
    """Plot the wav at `path`, or a part of it, beside it: see `plot_sound`."""
    part = part_of_wav(path, prime_seconds)
    plot_sound(Path(path).with_suffix(".png"), part.samples, part.rate,
               ", ".join(filter(None, [title, part.said])), part.prime_seconds)


def for_page(path, prime_seconds=0):
    """The wav at `path`, or a part of it, for a page: (picture as PNG, wav, how long it is).

    Its length is in words, and without the `prime_seconds` that were given.
    """
    import soundfile

    part = part_of_wav(path, prime_seconds)
    picture, wav = io.BytesIO(), io.BytesIO()
    figure_of_sound(part.samples, part.rate, "", part.prime_seconds,
                    SIZE_ON_PAGE).savefig(picture, dpi=80)
    soundfile.write(wav, part.samples, part.rate, format="WAV", subtype="PCM_16")
    length = f"{part.drawn:.3g} s" + f" (here {part.said})" * bool(part.said)
    return picture.getvalue(), wav.getvalue(), length


def plot_sound(path, samples, rate, title, prime_seconds=0):
    """Write a PNG of `figure_of_sound`."""
    with atomic_write(Path(path)) as temporary:
        figure_of_sound(samples, rate, title, prime_seconds).savefig(temporary, dpi=110,
                                                                     format="png")


def figure_of_sound(samples, rate, title, prime_seconds=0, size=SIZE):
    """The waveform of `samples`, and its spectrogram below: a matplotlib Figure.

    samples: floats in [-1, 1], (length,), at `rate` Hz. prime_seconds: of the beginning that was
    given, not drawn; it is marked where it is not 0. size: in inches.
    """
    # The object-oriented form, which needs no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    (wave, beside), (spectrum, scale) = figure.subplots(2, 2, sharex="col", width_ratios=(50, 1))
    beside.set_axis_off()
    seconds = len(samples) / rate

    times = np.arange(len(samples)) / rate
    wave.plot(times, samples, linewidth=0.7, marker="." if len(samples) < 50 else None)
    wave.set_title(legible(title, most=100), parse_math=False)  # a name in it may have dollars
    wave.set(ylabel="amplitude", xlim=(0, seconds), ylim=(-1.05, 1.05))
    wave.grid(alpha=0.3)

    decibels, step = spectrogram(samples, rate)
    extent = (-step / 2, (decibels.shape[1] - 0.5) * step, 0, rate / 2)
    image = spectrum.imshow(decibels, extent=extent, origin="lower", aspect="auto", cmap="magma",
                            vmin=FLOOR, vmax=0, interpolation="nearest")
    spectrum.set(xlabel="seconds", ylabel="Hz", xlim=(0, seconds))
    figure.colorbar(image, cax=scale, label="dB")

    if prime_seconds:
        wave.axvspan(0, min(prime_seconds, seconds), color="tab:orange", alpha=0.2, label="given")
        wave.legend(loc="upper right")
        spectrum.axvline(prime_seconds, color="white", linestyle="--", linewidth=1)
    return figure


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
