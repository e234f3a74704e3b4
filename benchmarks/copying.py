"""Measure how well a WaveNet copies recordings from their features, compared with Griffin-Lim.

    python benchmarks/copying.py -m runs/features --corpus runs/corpus --data DIR

--data holds recordings of spoken digits, whose file names begin with the digit. --corpus is the
corpus that preprocess.py --features mel made from them. -m is a model trained on that corpus. For
the validation recordings of the corpus it prints

- bits per sample, each recording starting from silence
- the log-spectral distance in dB between each recording and the model's copy from its features, and
  the same for the copy that the Griffin-Lim algorithm (librosa) makes: spectra of 32 ms with a Hann
  window every 8 ms, clipped at -80 dB of full scale; the root mean square over frequencies, then
  the mean over all spectra
- the share of digits that a support vector machine recognises, in the recordings and in both kinds
  of copies; it is trained on the training recordings

--output writes all copies as wav files and some spectra as copies.png.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import librosa
import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.evaluate import bits_per_sample
from benchmarks.spoken_digits import (
    FLOOR_DB,
    digit_features,
    digit_labels,
    spectrogram,
    train_classifier,
)
from cli.arguments import non_negative_float, positive_int, probability
from cli.script import run_script
from common.errors import UserError
from datasets.audio.features import Features, mel_filterbank
from datasets.audio.recordings import read_recording
from datasets.corpus.reader import Corpus, Split
from datasets.quantization import decode_sound
from models.model_file import load
from models.wavenet import WaveNet
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds

ITERATIONS = 200  # of Griffin-Lim; more change nothing
PLOTTED = 4  # recordings in copies.png


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the flags for a model, its corpus, and the recordings that are copied."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--corpus", required=True, metavar="DIR")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, metavar="DIR")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0)
    parser.add_argument("--top_p", type=probability, default=1.0)
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser.parse_args()


# ----------------------------------------------------------------------------------- copies


def load_copier(args: argparse.Namespace, corpus: Corpus) -> tuple[WaveNet, Features]:
    """Load --model; return it and the features of the corpus.

    Raises UserError if the corpus has no mel spectra, or the model reads others.
    """
    features = corpus.features
    if not (features and features.kind == "mel"):
        raise UserError(f"{args.corpus}: has no mel spectra; prepare it with --features mel")
    model = load(args.model, "wavenet").model
    if (model.config.features, model.config.hop) != (features.width, features.hop):
        raise UserError(f"{args.model}: was not trained on the features of {args.corpus}; name a "
                        "model that was")
    return model, features


def copy_recording(model: WaveNet, corpus: Corpus, index: int, *, seed: int, temperature: float,
                   top_p: float) -> np.ndarray:
    """Draw from the features of a validation recording: samples (n,)."""
    recording = corpus.validation.recordings[index]
    frames = torch.from_numpy(np.array(corpus.validation.frames(index)))
    label = torch.tensor([recording.label]) if model.config.labels else None
    blocks = sample_sounds(model, RandomStreams(seed, [0]), label, recording.length, temperature,
                           top_p, frames=[frames])
    codes = torch.cat(list(blocks), dim=1)[0].numpy()
    return decode_sound(codes, corpus.levels, corpus.encoding)


def griffin_lim(corpus: Corpus, features: Features, index: int) -> np.ndarray:
    """Invert the features of a validation recording with Griffin-Lim: samples (n,)."""
    recording = corpus.validation.recordings[index]
    log_mel = (1 - corpus.validation.frames(index).T) / 2 * math.log(features.floor)
    amplitudes = librosa.util.nnls(mel_filterbank(features), np.exp(log_mel))
    amplitudes *= features.window / 4
    sound = librosa.griffinlim(amplitudes, n_iter=ITERATIONS, hop_length=features.hop,
                               n_fft=features.window, random_state=0)
    # Librosa centres its first frame at the first sample, we centre ours in the middle of a hop.
    return np.pad(sound, (features.hop // 2, features.hop))[:recording.length]


# --------------------------------------------------------------------------------- judgement


def log_spectral_distance(sounds: Sequence[np.ndarray], originals: Sequence[np.ndarray],
                          rate: int) -> float:
    """The mean distance in dB; the module's docstring defines it."""
    squares = [((spectrogram(sound, rate) - spectrogram(original, rate)) ** 2).mean(axis=0)
               for sound, original in zip(sounds, originals, strict=True)]
    return float(np.sqrt(np.concatenate(squares)).mean())


def read_originals(split: Split, data: str, rate: int) -> Iterator[np.ndarray]:
    """Read the recordings of a split from the folder `data`, one by one."""
    return (read_recording(Path(data) / recording.name, rate) for recording in split.recordings)


def main() -> None:
    """Copy the validation recordings and judge the copies."""
    args = arguments()
    torch.set_num_threads(args.threads)
    corpus = Corpus(args.corpus)
    model, features = load_copier(args, corpus)
    print(f"{bits_per_sample(model, corpus):.4f} bits a sample")
    rate = corpus.rate
    real = list(read_originals(corpus.validation, args.data, rate))
    copies, griffin_lims = [], []
    for index in tqdm(range(len(real)), desc="copies", disable=None):
        copies.append(copy_recording(model, corpus, index, seed=args.seed,
                                     temperature=args.temperature, top_p=args.top_p))
        griffin_lims.append(griffin_lim(corpus, features, index))
    classifier = train_classifier(
        [digit_features(sound, rate) for sound in tqdm(
            read_originals(corpus.train, args.data, rate), desc="training the classifier",
            disable=None)],
        digit_labels(corpus.train))
    sounds_by_kind = {"recordings": real, "copies": copies, "Griffin-Lim": griffin_lims}
    digits = digit_labels(corpus.validation)
    for kind, sounds in sounds_by_kind.items():
        accuracy = classifier.score([digit_features(sound, rate) for sound in sounds], digits)
        print(f"{kind}: log-spectral distance {log_spectral_distance(sounds, real, rate):.2f} dB; "
              f"{accuracy:.1%} of {len(sounds)} digits recognised")
    if args.output:
        write_copies(args.output, corpus.validation, sounds_by_kind, rate)


def write_copies(folder: Path, split: Split, sounds_by_kind: dict[str, list[np.ndarray]],
                 rate: int) -> None:
    """Write the copies as wav files and the spectra of some as copies.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(recording.name).stem for recording in split.recordings]
    for kind, sounds in sounds_by_kind.items():
        for name, sound in zip(names, sounds, strict=True):
            if kind != "recordings":
                soundfile.write(folder / f"{name}_{kind.lower()}.wav", sound, rate)
    figure = Figure(figsize=(10, 6), layout="constrained")
    indices = np.linspace(0, len(names) - 1, PLOTTED).astype(int)
    axes = figure.subplots(len(sounds_by_kind), PLOTTED, sharex="col", sharey=True)
    for row, (kind, sounds) in zip(axes, sounds_by_kind.items(), strict=True):
        row[0].set_ylabel(f"{kind}, Hz")
        for axis, index in zip(row, indices, strict=True):
            axis.imshow(spectrogram(sounds[index], rate), origin="lower", aspect="auto",
                        cmap="magma", extent=(0, len(sounds[index]) / rate, 0, rate / 2),
                        vmin=FLOOR_DB, vmax=-20)
    for index, top, bottom in zip(indices, axes[0], axes[-1], strict=True):
        top.set_title(names[index], parse_math=False)
        bottom.set_xlabel("seconds")
    figure.savefig(folder / "copies.png", dpi=80)


if __name__ == "__main__":
    run_script(main)
