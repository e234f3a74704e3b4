"""Speech the paper's way, to compare with: a WaveNet that reads phonemes and pitch itself.

    python benchmarks/linguistic.py --corpus CORPUS --data RECORDINGS --output FOLDER
    python preprocess.py --data FOLDER --features npy --rate 16000 --output corpora/linguistic
    python train_wavenet.py -d corpora/linguistic -o runs/linguistic
    python benchmarks/judging_speech.py -m MODEL --corpus CORPUS --data RECORDINGS \\
        --linguistic runs/linguistic

CORPUS is what preprocess.py --features text made from RECORDINGS. The first command links its
recordings into FOLDER, and writes beside each the frames of section 3.2 of the paper, NAME.npy: the
phoneme, the one before and the one after, the stress, the place in the word and in the phoneme, the
punctuation, and the logarithm of the pitch. The last command lets MODEL, trained on CORPUS, predict
durations and pitch for both.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
from tqdm import tqdm

from cli.script import run_script
from common.errors import UserError
from datasets.corpus.reader import Corpus
from datasets.text.frames import PHONEME_COLUMNS, read_phonemes
from datasets.text.utterances import phoneme_pitch, pitch_statistics


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--corpus", "--data", "--output"):
        parser.add_argument(flag, required=True, metavar="DIR")
    return parser.parse_args()


def linguistic_frames(rows: np.ndarray, lengths: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Return a frame for each of the frames that phonemes last: (frames, width), float32.

    rows: (n, columns) of phonemes. lengths: (n,), in frames. pitch: (n, 2), normalised, and 1 where
    it is known.
    """
    one_hot = [np.eye(values, dtype=np.float32)[rows[:, column]]
               for column, values in enumerate(PHONEME_COLUMNS.values())]
    silence = np.eye(len(one_hot[0][0]), dtype=np.float32)[:1]
    before = np.concatenate((silence, one_hot[0][:-1]))
    after = np.concatenate((one_hot[0][1:], silence))
    owner = np.repeat(np.arange(len(rows)), lengths)
    place = np.arange(len(owner)) - (lengths.cumsum() - lengths)[owner]
    length = lengths[owner]
    places = np.stack(((place + 0.5) / length, place / 10, (length - 1 - place) / 10), axis=1)
    of_phonemes = np.concatenate((before, *one_hot, after, pitch), axis=1)
    return np.concatenate((of_phonemes[owner], places), axis=1, dtype=np.float32)


def main() -> None:
    """Link recordings, and write their frames."""
    args = arguments()
    corpus, output = Corpus(args.corpus), Path(args.output)
    if not corpus.features or corpus.features.kind != "text":
        raise UserError(f"--corpus {args.corpus}: has no texts; prepare it with --features text")
    statistics = pitch_statistics(corpus.train)
    for split in (corpus.train, corpus.validation):
        for index, recording in enumerate(tqdm(split.recordings, disable=None)):
            frames = split.read_frames(index)
            spoken = read_phonemes(frames)
            pitch = phoneme_pitch(frames, spoken.frames, *statistics)
            path = output / recording.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to((Path(args.data) / recording.name).resolve())
            np.save(path.with_suffix(".npy"), linguistic_frames(spoken.rows, spoken.frames, pitch))


if __name__ == "__main__":
    run_script(main)
