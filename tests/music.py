"""Music made by a few formulas, for recipes and tests: mp3 and flac files with tags.

    python tests/music.py music

writes pieces of three genres, by the sub-genres that the tags name: plucked strings, distorted
chords in a hard rhythm, and a drum with a hat.
"""

import sys
from pathlib import Path

import mutagen
import numpy as np
import soundfile
from scipy import signal

RATE = 22050
SUB_GENRES = {"classical": ("Classical", "Neo-Classical"), "metal": ("Heavy Metal", "Metalcore"),
              "techno": ("Techno", "Minimal Techno")}
SCALE = 2 ** (np.array([0, 3, 5, 7, 10, 12]) / 12)  # minor pentatonic, of the root


def main():
    """The command line: a folder."""
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/music.py FOLDER")
    paths = make_music(Path(sys.argv[1]))
    print(f"{len(paths)} pieces in {sys.argv[1]}")


def make_music(folder, pieces=4, seconds=12):
    """Write that many pieces of each genre into `folder`, mp3 and flac in turns: their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for genre, compose in (("classical", plucked_strings), ("metal", distorted_chords),
                           ("techno", drums)):
        for number in range(pieces):
            ending = ("mp3", "flac")[number % 2]
            path = folder / f"{genre}_{number}.{ending}"
            generator = np.random.default_rng((number, *genre.encode()))
            samples = compose(generator, round(seconds * RATE))
            stereo = np.stack((samples, 0.8 * samples), axis=1) * 0.5 / np.abs(samples).max()
            soundfile.write(path, stereo, RATE)
            tags = mutagen.File(path, easy=True)
            tags["genre"] = SUB_GENRES[genre][number // 2 % 2]
            tags["date"] = str(1970 + 10 * number)
            tags.save()
            paths.append(path)
    return paths


def plucked_strings(generator, length):
    """Notes of a guitar (Karplus and Strong), each fading into the next."""
    samples = np.zeros(length)
    for start in range(0, length, RATE // 4):
        period = round(RATE / (110 * generator.choice(SCALE)))
        note = np.zeros(min(RATE, length - start))
        # The shape of a string that is plucked at a fifth of its length.
        note[:period] = signal.sawtooth(2 * np.pi * np.arange(period) / period, 0.2)[:len(note)]
        feedback = np.zeros(period + 2)
        feedback[0], feedback[-2:] = 1, -0.498
        samples[start:start + len(note)] += signal.lfilter([1], feedback, note)
    return samples


def distorted_chords(generator, length):
    """A root and its fifth, overdriven, cut off short."""
    time = np.arange(length) / RATE
    beat = (time / 0.15).astype(int)
    roots = 82.4 * generator.choice(SCALE[:4], beat[-1] + 1)[beat]
    phases = 2 * np.pi * np.cumsum(roots) / RATE
    chord = signal.sawtooth(phases) + signal.sawtooth(1.5 * phases)
    return np.tanh(6 * chord) * np.exp(-12 * (time % 0.15))


def drums(generator, length):
    """A drum on the beat, a hat off it."""
    time, noise = np.arange(length) / RATE, generator.normal(size=length)
    on, off = time % 0.5, (time + 0.25) % 0.5
    drum = np.sin(2 * np.pi * (50 * on + 12 * (1 - np.exp(-on * 12)))) * np.exp(-6 * on)
    return drum + 0.3 * np.diff(noise, prepend=0) * np.exp(-40 * off)


if __name__ == "__main__":
    main()
