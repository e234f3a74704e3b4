"""How well a WaveNet says again what features of recordings say, beside Griffin-Lim.

    python benchmarks/copying.py -m runs/features --corpus runs/corpus --data DIR

--corpus is what preprocess.py made, with --features mel, of the spoken digits in --data, whose
names begin with the digit; -m is a model that was trained on it. Of the recordings that the corpus
holds back:

- bits a sample, each begun from silence
- the log-spectral distance, in dB, between each recording and what the model draws from its
  features: of spectra of 32 ms under a Hann window, every 8 ms, nothing less than -80 dB of full
  scale, the root mean square over frequencies, and then the mean over all spectra; and that of
  what the Griffin-Lim algorithm (librosa) makes of the same features
- how many digits a classifier recognises, a support vector machine that was trained on the real
  recordings of the corpus's other part: of the held-back ones themselves, and of both copies

--output keeps the copies as wavs, each beside Griffin-Lim's, and draws some spectra: copies.png.
"""

import argparse
import math
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import librosa
import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.spoken_digits import LEAST, classifier, digits, picture, spectra
from cli.arguments import non_negative_float, positive_int, probability
from cli.script import run_script
from common.errors import UserError
from datasets.audio.features import mel_filterbank
from datasets.audio.recordings import read_recording
from datasets.batches import evaluation_batches
from datasets.corpus.reader import Corpus
from datasets.corpus.windows import Windows
from datasets.quantization import mu_law_decode
from models.local_conditioning import MARGIN_FRAMES
from models.model_file import load
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds
from training import likelihood

ITERATIONS = 200  # of Griffin-Lim; more change nothing
DRAWN = 4  # recordings in the picture


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--corpus", required=True, metavar="DIR")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, metavar="DIR")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0)
    parser.add_argument("--top_p", type=probability, default=1.0)
    parser.add_argument("--threads", type=positive_int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


# ------------------------------------------------------------------------------------- bits


def bits(model, corpus):
    """The mean over all samples that are held back, each recording begun from silence."""
    test = Windows(corpus.validation, corpus.target_length, model.config.receptive_field,
                   corpus.levels, MARGIN_FRAMES)
    batches = tqdm(evaluation_batches(test, 16), desc="test", disable=None)
    return likelihood.evaluate(model, batches, torch.device("cpu")) / math.log(2)


# ----------------------------------------------------------------------------------- copies


def copied(model, corpus, index, args):
    """What the model draws from the features of a held-back recording: samples (n,)."""
    recording = corpus.validation.recordings[index]
    frames = torch.from_numpy(np.array(corpus.validation.frames(index)))[None]
    label = torch.tensor([recording.label]) if model.config.labels else None
    drawn = sample_sounds(model, RandomStreams(args.seed, [0]), label, recording.length,
                          args.temperature, args.top_p, frames=frames)
    return mu_law_decode(torch.cat(list(drawn), dim=1)[0].numpy(), corpus.levels)


def griffin_lim(corpus, index):
    """A sound whose spectra come close to the same features: samples (n,)."""
    features, recording = corpus.features, corpus.validation.recordings[index]
    log_mel = (1 - corpus.validation.frames(index).T) / 2 * math.log(features.floor)
    amplitudes = librosa.util.nnls(mel_filterbank(features), np.exp(log_mel))
    amplitudes *= features.window / 4
    sound = librosa.griffinlim(amplitudes, n_iter=ITERATIONS, hop_length=features.hop,
                               n_fft=features.window, random_state=0)
    # Its first frame is of what is around the first sample; ours, around the middle of a hop.
    return np.pad(sound, (features.hop // 2, features.hop))[:recording.length]


# --------------------------------------------------------------------------------- judgement


def distance(sounds, originals, rate):
    """The log-spectral distance in dB, see the module's docstring."""
    squares = [((spectra(sound, rate) - spectra(original, rate)) ** 2).mean(axis=0)
               for sound, original in zip(sounds, originals, strict=True)]
    return np.sqrt(np.concatenate(squares)).mean()


def originals(part, data, rate):
    """The recordings of a corpus part as they are in the folder `data`, one by one."""
    return (read_recording(Path(data) / recording.name, rate) for recording in part.recordings)


def main():
    """Copy what is held back, and judge."""
    args = arguments()
    torch.set_num_threads(args.threads)
    corpus = Corpus(args.corpus)
    if not (corpus.features and corpus.features.kind == "mel"):
        raise UserError(f"{args.corpus}: has no mel spectra; prepare it with --features mel")
    model = load(args.model, "wavenet").model
    if (model.config.features, model.config.hop) != (corpus.features.width, corpus.features.hop):
        raise UserError(f"{args.model}: was not trained on the features of {args.corpus}; name a "
                        "model that was")
    print(f"{bits(model, corpus):.4f} bits a sample")
    part, rate = corpus.validation, corpus.rate
    real = list(originals(part, args.data, rate))
    copies, griffin_lims = [], []
    for index in tqdm(range(len(real)), desc="copies", disable=None):
        copies.append(copied(model, corpus, index, args))
        griffin_lims.append(griffin_lim(corpus, index))
    machine = classifier(
        [picture(sound, rate) for sound in tqdm(originals(corpus.train, args.data, rate),
                                                desc="learning to tell digits", disable=None)],
        digits(corpus.train))
    found = {"recordings": real, "copies": copies, "Griffin-Lim": griffin_lims}
    for name, sounds in found.items():
        rate_of_digits = machine.score([picture(sound, rate) for sound in sounds], digits(part))
        print(f"{name}: log-spectral distance {distance(sounds, real, rate):.2f} dB; "
              f"{rate_of_digits:.1%} of {len(sounds)} digits recognised")
    if args.output:
        keep(args.output, part, found, rate)


def keep(folder, part, found, rate):
    """Write what was found, {kind: sounds}, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(recording.name).stem for recording in part.recordings]
    for kind, sounds in found.items():
        for name, sound in zip(names, sounds, strict=True):
            if kind != "recordings":
                soundfile.write(folder / f"{name}_{kind.lower()}.wav", sound, rate)
    figure = Figure(figsize=(10, 6), layout="constrained")
    places = np.linspace(0, len(names) - 1, DRAWN).astype(int)
    axes = figure.subplots(len(found), DRAWN, sharex="col", sharey=True)
    for row, (kind, sounds) in zip(axes, found.items(), strict=True):
        row[0].set_ylabel(f"{kind}, Hz")
        for axis, place in zip(row, places, strict=True):
            axis.imshow(spectra(sounds[place], rate), origin="lower", aspect="auto", cmap="magma",
                        extent=(0, len(sounds[place]) / rate, 0, rate / 2), vmin=LEAST, vmax=-20)
    for place, top, bottom in zip(places, axes[0], axes[-1], strict=True):
        top.set_title(names[place], parse_math=False)
        bottom.set_xlabel("seconds")
    figure.savefig(folder / "copies.png", dpi=80)


if __name__ == "__main__":
    run_script(main)
