"""Sound for people: wav files, and plots of the waveform above the spectrogram."""

from pathlib import Path

import numpy as np
import soundfile
from scipy import signal

from datasets.audio import read_recording
from datasets.errors import UserError
from datasets.files import replacing
from datasets.quantization import mu_law_encode

WINDOW = 0.032  # seconds in a spectrum: 256 samples at 8 kHz, 512 at 16 kHz
FLOOR = -80  # dB below the loudest, from where on all is black


def read_codes(path, rate, levels):
    """The recording at `path`, at `rate` Hz, as a network's codes: int64 (P,). None is empty.

    Raises UserError for a file that can't be read as a recording.
    """
    if path is None:
        return np.empty(0, np.int64)
    codes, _ = mu_law_encode(read_recording(path, rate), levels)
    return codes.astype(np.int64)


def write_wav(path, samples, rate):
    """Write `samples`, floats in [-1, 1] (length,), as 16-bit PCM of one channel at `rate` Hz."""
    with replacing(path) as temporary:
        try:
            soundfile.write(temporary, samples, rate, subtype="PCM_16", format="WAV")
        except soundfile.SoundFileError as error:
            raise UserError(f"{path}: can't be written ({error})") from None


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
    window = min(2 ** round(np.log2(WINDOW * rate)), len(samples))
    hop = max(1, window // 4)
    _, _, amplitudes = signal.stft(samples, rate, nperseg=window, noverlap=window - hop)
    power = np.abs(amplitudes) ** 2
    loudest = power.max()
    relative = power / loudest if loudest > 0 else power
    return 10 * np.log10(np.maximum(relative, 10 ** (FLOOR / 10))), hop / rate
