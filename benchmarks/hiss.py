"""Measure the hiss in the pauses of a WaveNet's copies of recordings.

    python benchmarks/hiss.py -m MODEL --corpus CORPUS --data RECORDINGS

CORPUS is what preprocess.py --features mel or text made from RECORDINGS, MODEL was trained on it.
The model draws held-back recordings from their true mel frames. The script prints the level in dB
of full scale of the quietest tenth of all frames of FRAME seconds: of the recordings and of the
copies, and of the copies where the recordings are quietest.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.copying import copy_recording, load_copier, make_parser, read_originals
from cli.arguments import positive_int
from cli.script import run_script
from datasets.corpus.reader import Corpus

FRAME = 0.02  # seconds
QUIETEST = 0.1  # of all frames
LEAST_POWER = 1e-12  # -120 dB, below a code of 16 bits


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--count", type=positive_int, default=60,
                        help="of held-back recordings (default: 60)")
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser.parse_args()


def frame_powers(samples: np.ndarray, rate: int) -> np.ndarray:
    """The mean square of each whole frame of samples (n,), without its mean: (frames,)."""
    size = round(FRAME * rate)
    frames = samples[:len(samples) // size * size].reshape(-1, size).astype(np.float64)
    return frames.var(axis=1)


def quietest(powers: np.ndarray) -> np.ndarray:
    """The numbers of the quietest tenth of frames."""
    return np.argsort(powers, kind="stable")[:max(round(len(powers) * QUIETEST), 1)]


def level(powers: np.ndarray) -> float:
    """The level in dB of full scale of frames of these powers together."""
    return float(10 * np.log10(max(powers.mean(), LEAST_POWER)))


def main() -> None:
    """Copy recordings, and compare the levels of pauses."""
    args = arguments()
    torch.set_num_threads(args.threads)
    corpus = Corpus(args.corpus)
    corpus.use_mel_frames()
    model, _ = load_copier(args, corpus)
    count = min(args.count, len(corpus.validation.recordings))
    recordings, copies = [], []
    for index, samples in zip(tqdm(range(count), desc="copies", disable=None),
                              read_originals(corpus.validation, args.data, corpus.rate),
                              strict=False):
        copy = copy_recording(model, corpus, index, seed=args.seed, temperature=1.0, top_p=1.0)
        recordings.append(frame_powers(samples, corpus.rate))
        copies.append(frame_powers(copy, corpus.rate))
    real, drawn = np.concatenate(recordings), np.concatenate(copies)
    pauses = quietest(real)
    print(f"quietest tenth of {len(real):,} frames: recordings {level(real[pauses]):.1f} dB, "
          f"copies {level(drawn[quietest(drawn)]):.1f} dB; copies in the pauses of the recordings "
          f"{level(drawn[pauses]):.1f} dB")


if __name__ == "__main__":
    run_script(main)
