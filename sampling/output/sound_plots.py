"""Plot sound: its waveform, and its spectrogram below."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.files import atomic_write
from common.fonts import legible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Slow imports stand in the functions that need them.

PLOTTED_SECONDS = 60  # of a longer sound: around the end of the prime, else its beginning
WINDOW = 0.032  # seconds of a spectrum: 256 samples at 8 kHz, 512 at 16 kHz
FLOOR = -80  # dB relative to the loudest; shown as black, with everything below
SIZE, SIZE_ON_PAGE = (9, 5.5), (6, 3.4)  # inches


class WavExcerpt(NamedTuple):
    """At most PLOTTED_SECONDS of a wav, with the end of its prime in the first half.

    samples: (length,), float32, at `rate` Hz. prime_seconds: how much of the excerpt is prime.
    drawn_seconds: of the whole wav, without the prime. caption: which part it is, in words; empty
    for the whole wav.
    """

    samples: np.ndarray
    rate: int
    prime_seconds: float
    drawn_seconds: float
    caption: str


def read_excerpt(path: Path | str, prime_seconds: float) -> WavExcerpt:
    """Read the excerpt to show of the wav `path`, whose first `prime_seconds` are its prime."""
    import soundfile

    with soundfile.SoundFile(path) as wav:
        rate, seconds = wav.samplerate, wav.frames / wav.samplerate
        before = max(0, min(prime_seconds - PLOTTED_SECONDS / 2, seconds - PLOTTED_SECONDS))
        wav.seek(int(before * rate))
        samples = wav.read(PLOTTED_SECONDS * rate, dtype="float32")
    caption = ""
    if before:
        caption = f"{PLOTTED_SECONDS} s from {before:.3g} s on"
    elif seconds > PLOTTED_SECONDS:
        caption = f"the first {PLOTTED_SECONDS} s"
    return WavExcerpt(samples, rate, prime_seconds - before, seconds - prime_seconds, caption)


def plot_wav(path: Path | str, title: str, prime_seconds: float = 0) -> None:
    """Plot the wav `path`, or an excerpt of it, as a PNG beside it: see `plot_sound`."""
    excerpt = read_excerpt(path, prime_seconds)
    plot_sound(Path(path).with_suffix(".png"), excerpt.samples, excerpt.rate,
               ", ".join(filter(None, [title, excerpt.caption])), excerpt.prime_seconds)


def show_wav(path: Path | str, prime_seconds: float = 0) -> tuple[bytes, bytes, str]:
    """Prepare the wav `path`, or an excerpt of it, for a page.

    Returns its plot as PNG, the excerpt as wav, and its length in words, without the prime.
    """
    import soundfile

    excerpt = read_excerpt(path, prime_seconds)
    picture, wav = io.BytesIO(), io.BytesIO()
    figure_of_sound(excerpt.samples, excerpt.rate, "", excerpt.prime_seconds,
                    SIZE_ON_PAGE).savefig(picture, dpi=80)
    soundfile.write(wav, excerpt.samples, excerpt.rate, format="WAV", subtype="PCM_16")
    length = f"{excerpt.drawn_seconds:.3g} s"
    if excerpt.caption:
        length += f" (here {excerpt.caption})"
    return picture.getvalue(), wav.getvalue(), length


def plot_sound(path: Path | str, samples: np.ndarray, rate: int, title: str,
               prime_seconds: float = 0) -> None:
    """Write the `figure_of_sound` as PNG. Raises UserError if `path` can't be written."""
    with atomic_write(Path(path)) as temporary:
        figure_of_sound(samples, rate, title, prime_seconds).savefig(temporary, dpi=110,
                                                                     format="png")


def figure_of_sound(samples: np.ndarray, rate: int, title: str, prime_seconds: float = 0,
                    size: tuple[float, float] = SIZE) -> "Figure":
    """Plot the waveform of `samples`, and its spectrogram below.

    samples: floats in [-1, 1], (length,), at `rate` Hz. prime_seconds: length of the prime, which
    is marked unless it is 0. size: in inches.
    """
    # Figure, unlike pyplot, needs no display.
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


def spectrogram(samples: np.ndarray, rate: int) -> tuple[np.ndarray, float]:
    """Compute the power of `samples` over frequency and time, in dB relative to its maximum.

    Windows overlap by three quarters; a sound shorter than a window is one window.

    samples: (length,) at `rate` Hz. Returns dB (frequencies from 0 to rate / 2, times from 0 on),
    and the seconds from one time to the next.
    """
    from scipy import signal

    window = min(2 ** round(np.log2(WINDOW * rate)), len(samples))
    hop = max(1, window // 4)
    _, _, amplitudes = signal.stft(samples, rate, nperseg=window, noverlap=window - hop)
    power = np.abs(amplitudes) ** 2
    loudest = power.max()
    relative = power / loudest if loudest > 0 else power
    return 10 * np.log10(np.maximum(relative, 10 ** (FLOOR / 10))), hop / rate
