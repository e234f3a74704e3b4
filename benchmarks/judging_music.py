"""Judge the music that a WaveNet draws by class.

    python benchmarks/judging_music.py -m MODEL --data CORPUS
    python benchmarks/judging_music.py -m MODEL --data CORPUS --long 120

CORPUS is the model's, made by preprocess.py with music held back (--validation). Excerpts of
--seconds are cut from the training music and from what is held back, and --count of each class are
drawn. The script prints

- the share of excerpts that a classifier trained on training excerpts recognises: of held-back
  music, and of drawn ones, with the classes that it takes them for
- for each class, how far drawn excerpts are from held-back ones of the class, in timbre and in
  rhythm (see music_spectra.py), in dB. Yardsticks: training excerpts of the class, which should be
  near; noise with the held-back excerpts' spectrum; and the nearest other class
- the distance of drawn excerpts to the nearest training excerpt, beside that of held-back music:
  copies are much nearer

--long draws two sounds of each class of that length and prints, for every 10 s, their loudness and
the same distances: a sound that decays into noise or silence moves away from music.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from benchmarks.judges import Drawing, draw_codes
from benchmarks.judging import add_drawing
from benchmarks.music_spectra import MusicSpectra, distances, music_spectra, noise_like
from cli.arguments import positive_float, positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.corpus.reader import Corpus, Split
from datasets.quantization import decode_sound
from models.model_file import load
from models.wavenet import WaveNet

LONG_SOUNDS, LONG_STEP = 2, 10.0  # of each class; seconds that are judged together
MOST_TRAINING_EXCERPTS = 300  # of each class


class Excerpts(NamedTuple):
    """Excerpts of music. sounds: (n,) each. spectra, classes: one for each of them."""

    sounds: list[np.ndarray]
    spectra: list[MusicSpectra]
    classes: list[str]

    def of_class(self, name: str) -> list[MusicSpectra]:
        """The spectra of one class."""
        return [spectra for spectra, one in zip(self.spectra, self.classes, strict=True)
                if one == name]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--data", required=True, metavar="CORPUS")
    parser.add_argument("--seconds", type=positive_float, default=10.0,
                        help="of an excerpt (default: 10)")
    parser.add_argument("--long", type=positive_float, metavar="S",
                        help="also judge sounds of so many seconds, every 10 s of them")
    add_drawing(parser, count=40)
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser.parse_args()


# ---------------------------------------------------------------------------------- excerpts

def cut_excerpts(split: Split, corpus: Corpus, seconds: float, most: int) -> Excerpts:
    """Cut a split's recordings into excerpts, at most `most` of each class, evenly chosen."""
    length = round(seconds * corpus.rate)
    places: dict[str, list[tuple[int, int]]] = {name: [] for name in corpus.label_names}
    for index, recording in enumerate(split.recordings):
        assert recording.label is not None
        places[corpus.label_names[recording.label]] += [
            (index, begin) for begin in range(0, recording.length - length + 1, length)]
    excerpts = Excerpts([], [], [])
    for name, found in places.items():
        if not found:
            raise UserError(f"--seconds {seconds:g}: no recording of {name} is that long; "
                            "give less")
        chosen = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
        for index, begin in tqdm([found[one] for one in chosen], desc=name, disable=None):
            codes = split.codes(index)[begin:begin + length]
            append(excerpts, decode_sound(codes, corpus.levels, corpus.encoding), name, corpus.rate)
    return excerpts


def append(excerpts: Excerpts, sound: np.ndarray, name: str, rate: int) -> None:
    """Add a sound (n,) of the class `name`."""
    excerpts.sounds.append(sound)
    excerpts.spectra.append(music_spectra(sound, rate))
    excerpts.classes.append(name)


def draw_class(model: WaveNet, label: int, count: int, length: int, drawing: Drawing,
               encoding: str) -> list[np.ndarray]:
    """Draw `count` sounds of a label, (length,) each, from random streams of their own."""
    codes = draw_codes(model, torch.full((count,), label), [length] * count, drawing,
                       first_stream=label * count)
    return [decode_sound(one, model.config.levels, encoding) for one in codes]


# --------------------------------------------------------------------------------- judgement

def train_classifier(excerpts: Excerpts) -> Pipeline:
    """Train a support vector machine on the excerpts' spectra and classes."""
    classifier = make_pipeline(StandardScaler(), SVC(C=10, class_weight="balanced"))
    return classifier.fit([spectra.vector for spectra in excerpts.spectra], excerpts.classes)


def print_recognition(classifier: Pipeline, excerpts: Excerpts, what: str) -> None:
    """Print the share of each class that is recognised, and what the others are taken for."""
    found = classifier.predict([spectra.vector for spectra in excerpts.spectra])
    wanted = np.array(excerpts.classes)
    shares = {name: (found[wanted == name] == name).mean() for name in dict.fromkeys(wanted)}
    print(f"{what}: {np.mean([*shares.values()]):.1%} recognised, mean of the classes")
    for name, share in shares.items():
        own = found[wanted == name]
        others = Counter(own[own != name].tolist()).most_common()
        taken = ", ".join(f"{other} {count}" for other, count in others)
        print(f"  {name}: {share:.1%} of {len(own)}" + (f"; taken for {taken}" if taken else ""))


def print_distances(train: Excerpts, unseen: Excerpts, drawn: Excerpts, rate: int) -> None:
    """Print how far each class's drawn excerpts are from held-back ones, beside yardsticks."""
    generator = np.random.default_rng(0)
    print("\n| dB from held-back music, timbre / rhythm | drawn | training music | "
          "noise of the same spectrum | nearest other class |\n|---|---|---|---|---|")
    for name in dict.fromkeys(unseen.classes):
        own = unseen.of_class(name)
        noise = [music_spectra(noise_like(sound, generator), rate)
                 for sound, one in zip(unseen.sounds, unseen.classes, strict=True) if one == name]
        others = [distances(unseen.of_class(other), own)
                  for other in dict.fromkeys(unseen.classes) if other != name]
        columns = [distances(drawn.of_class(name), own), distances(train.of_class(name), own),
                   distances(noise, own)]
        columns += [tuple(np.min(others, axis=0))] if others else []
        print(f"| {name} | " + " | ".join(f"{timbre:.1f} / {rhythm:.1f}"
                                          for timbre, rhythm in columns) + " |")


def print_nearest(train: Excerpts, unseen: Excerpts, drawn: Excerpts) -> None:
    """Print the distances to the nearest training excerpts, in standardised spectra."""
    scaler = StandardScaler().fit([spectra.vector for spectra in train.spectra])

    def vectors(excerpts: Excerpts) -> np.ndarray:
        return scaler.transform([spectra.vector for spectra in excerpts.spectra])

    nearest = NearestNeighbors(n_neighbors=1).fit(vectors(train))
    for what, excerpts in (("held-back", unseen), ("drawn", drawn)):
        found = nearest.kneighbors(vectors(excerpts))[0][:, 0]
        print(f"{what} excerpts: nearest training excerpt at {np.median(found):.2f} (median), "
              f"{found.min():.2f} (least)")


def print_course(model: WaveNet, corpus: Corpus, unseen: Excerpts,
                 seconds: float, drawing: Drawing) -> None:
    """Print loudness and distances of sounds of `seconds` for every LONG_STEP seconds."""
    step = round(LONG_STEP * corpus.rate)
    print("\n| class, from second | loudness | dB from held-back music, timbre / rhythm |\n"
          "|---|---|---|")
    for label, name in enumerate(corpus.label_names):
        sounds = draw_class(model, label, LONG_SOUNDS, round(seconds * corpus.rate), drawing,
                            corpus.encoding)
        for begin in range(0, len(sounds[0]) - step + 1, step):
            pieces = [sound[begin:begin + step] for sound in sounds]
            power = np.mean(np.square(pieces, dtype=np.float64))
            timbre, rhythm = distances([music_spectra(piece, corpus.rate) for piece in pieces],
                                       unseen.of_class(name))
            print(f"| {name}, {begin / corpus.rate:.0f} | {10 * np.log10(power + 1e-10):.1f} dB | "
                  f"{timbre:.1f} / {rhythm:.1f} |", flush=True)


def main() -> None:
    """Cut, draw, judge."""
    args = arguments()
    torch.set_num_threads(args.threads)
    model, label_names, data, _ = load(args.model, "wavenet")
    corpus = Corpus(args.data)
    if not label_names or corpus.label_names != label_names or data["rate"] != corpus.rate:
        raise UserError(f"{args.data}: has other labels or another rate than {args.model}, or "
                        "none; name the corpus that it was trained on")
    train = cut_excerpts(corpus.train, corpus, args.seconds, MOST_TRAINING_EXCERPTS)
    unseen = cut_excerpts(corpus.validation, corpus, args.seconds, MOST_TRAINING_EXCERPTS)
    drawing = Drawing(args.count, args.temperature, args.top_p, args.seed)
    drawn = Excerpts([], [], [])
    for label, name in enumerate(label_names):
        for sound in draw_class(model, label, args.count, round(args.seconds * corpus.rate),
                                drawing, corpus.encoding):
            append(drawn, sound, name, corpus.rate)
    classifier = train_classifier(train)
    print_recognition(classifier, unseen, "held-back music")
    print_recognition(classifier, drawn, "drawn")
    print_distances(train, unseen, drawn, corpus.rate)
    print_nearest(train, unseen, drawn)
    if args.long:
        print_course(model, corpus, unseen, args.long, drawing)


if __name__ == "__main__":
    run_script(main)
