"""How well a network learns in a given time: train by the clock, then measure on test data.

    python benchmarks/likelihood.py pixelcnn --data DIR --minutes 10
    python benchmarks/likelihood.py wavenet --data DIR --minutes 10

pixelcnn: digits binarised at 128, or of more --levels, trained on all the training digits in DIR
(MNIST's published files), without labels; prints nats an image on the first --test_items test
digits.
wavenet: DIR/SPEAKER/DIGIT_SPEAKER_TAKE.wav, takes 0 to 4 for the test, the others to train on;
prints bits a sample over all test samples, each recording begun from silence; and the same with
the weights as `infer_wavenet.py --precision bf16` rounds them. With --features mel the network is
also given the recordings' mel spectra, 80 numbers for every 12.5 ms.

The learning rate warms up over 1 % of the time and falls to 0 along a half cosine by its end,
unless --schedule says otherwise. Only the training is timed, not reading the data nor the test.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from cli.arguments import fraction, non_negative_float, positive_float, positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.audio.features import compute_features, make_features
from datasets.audio.labels import speaker_of
from datasets.audio.recordings import find_recordings, read_recording
from datasets.batches import evaluation_batches
from datasets.corpus.reader import Corpus
from datasets.corpus.windows import Windows
from datasets.corpus.writer import CorpusWriter
from datasets.images.dataset import ImageCodes, load_images
from datasets.quantization import mu_law_encode
from models.local_conditioning import MARGIN_FRAMES
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling.wavenet import round_to_bf16
from training import likelihood
from training.device import supported_precision
from training.optimization import make_optimizer
from training.stopping import StopCondition
from training.trainer import Trainer

RATE, SOUND_LEVELS = 8000, 256
FIRST_TAKE = 5  # that is trained on


def arguments():
    """The command line."""
    parser = flags(__doc__)
    parser.add_argument("--labels", action="store_true", help="condition on digits or speakers")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def flags(description):
    """A parser of all but labels and seed; defaults are the sizes that peers were measured at."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("--data", default="assets", metavar="DIR")
    parser.add_argument("--minutes", type=positive_float, default=10)
    parser.add_argument("--batchsize", type=positive_int, help="default: 16 images, 4 windows")
    parser.add_argument("--levels", type=positive_int, default=2, help="of digits")
    parser.add_argument("--hidden_dim", type=positive_int, default=32)
    parser.add_argument("--out_hidden_dim", type=positive_int, default=32)
    parser.add_argument("--blocks_num", type=positive_int, default=5)
    parser.add_argument("--no_position", action="store_true", help="the paper's PixelCNN")
    parser.add_argument("--stacks_num", type=positive_int, default=5)
    parser.add_argument("--layers_num", type=positive_int, default=10)
    parser.add_argument("--target_length", type=positive_int, default=1600)
    parser.add_argument("--learning_rate", type=positive_float, default=2e-3)
    parser.add_argument("--weight_decay", type=non_negative_float, default=0.0)
    parser.add_argument("--optimizer", choices=("adam", "sgd", "rmsprop"), default="adam")
    parser.add_argument("--schedule", choices=("constant", "cosine", "step"), default="cosine")
    parser.add_argument("--ema", type=fraction, help="test an average of the weights")
    parser.add_argument("--dropout", type=fraction, default=0.0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--features", choices=("none", "mel"), default="none")
    parser.add_argument("--test_items", type=positive_int, default=2000, help="test digits")
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser


# ------------------------------------------------------------------------------ what is learned

class Task(NamedTuple):
    """What is learned, and what learns it."""

    training_set: Dataset
    test_set: Dataset
    model: nn.Module
    unit: str  # what the samples are called that are counted
    dimensions: int | None  # of an image; None for sound


def task_of(args, encode=mu_law_encode):
    """The Task of `args.network`, its weights drawn with `args.seed`; encode: as of `sound`."""
    torch.manual_seed(args.seed)
    if args.network == "pixelcnn":
        return images(args)
    with tempfile.TemporaryDirectory() as folder:  # of the memory maps, which outlive it
        return sound(args, folder, encode)


def images(args):
    """The Task of MNIST's digits."""
    data = load_images("mnist", args.data, validation=0)
    sets = [ImageCodes(part.pixels, part.labels if args.labels else None, args.levels)
            for part in (data.train, data.test.take(slice(args.test_items)))]
    config = PixelCNNConfig(args.levels, 1, args.hidden_dim, args.out_hidden_dim, args.blocks_num,
                            10 * args.labels, position=not args.no_position)
    return Task(*sets, PixelCNN(config), "images", 28 * 28)


def sound(args, folder, encode):
    """The Task of recordings DIGIT_SPEAKER_TAKE.wav, which are prepared in `folder`.

    encode: makes codes of samples, as datasets.quantization.mu_law_encode does.
    """
    paths = find_recordings(args.data)
    if len({is_held_back(path) for path in paths}) < 2:
        raise UserError(f"--data {args.data}: takes below {FIRST_TAKE} are for the test, the "
                        "others to train on; give recordings of both")
    names = sorted({speaker_of(path) for path in paths})
    features = make_features(args.features, [], RATE, hop_seconds=0.0125, bins=80)
    try:
        config = WaveNetConfig(SOUND_LEVELS, args.hidden_dim, args.out_hidden_dim, args.stacks_num,
                               args.layers_num, len(names) * args.labels,
                               *((features.width, features.hop) if features else ()))
    except ValueError as error:
        raise UserError(f"--{error}") from None
    with CorpusWriter(folder, rate=RATE, levels=SOUND_LEVELS, stacks_num=args.stacks_num,
                      layers_num=args.layers_num, target_length=args.target_length,
                      labels="speaker", flush_every=10240, features=features) as writer:
        for path in paths:
            samples = read_recording(path, RATE)
            codes, _ = encode(samples, SOUND_LEVELS)
            frames = [compute_features(samples, features)] if features else []
            label = speaker_of(path) if args.labels else None
            writer.add("validation" if is_held_back(path) else "train", path.name, label, [codes],
                       frames)
        writer.close()
    corpus = Corpus(folder)
    sets = [Windows(part, args.target_length, config.receptive_field, SOUND_LEVELS, MARGIN_FRAMES)
            for part in (corpus.train, corpus.validation)]
    model = WaveNet(config)
    if features:
        model.frames.set_normalization(*corpus.train.frame_statistics())
    return Task(*sets, model, "samples", None)


def is_held_back(path):
    """Whether the recording DIGIT_SPEAKER_TAKE.wav is for the test."""
    take = path.stem.rpartition("_")[2]
    if not take.isdecimal():
        raise UserError(f"{path}: its name is not DIGIT_SPEAKER_TAKE; rename or remove it")
    return int(take) < FIRST_TAKE


# ---------------------------------------------------------------------------- learning by the clock

class TimedTrainer(Trainer):
    """A run that takes `seconds`, and has its schedule by the clock."""

    seconds = None

    @property
    def progress(self):
        """The fraction of the time that has passed."""
        return self.elapsed_time / self.seconds

    def end_in_time(self, _):
        """An extension for every update."""
        if self.progress >= 1:
            self.stop = StopCondition(iterations=self.iteration)


def train(task, args):
    """Train the task's network for `args.minutes`: the trainer, and the seconds that it took."""
    task.model.dropout = args.dropout
    optimizer = make_optimizer(args.optimizer, task.model.parameters(), args.learning_rate,
                               args.weight_decay)
    count = (lambda batch: len(batch.codes)) if task.dimensions else likelihood.count_targets
    trainer = TimedTrainer(
        task.model, optimizer, task.training_set, batchsize=batchsize(args), seed=args.seed,
        clip=1.0, stop=StopCondition(), device=torch.device("cpu"), unit=task.unit, samples=count,
        dimensions=task.dimensions, schedule=args.schedule, ema=args.ema,
        precision=supported_precision(torch.device("cpu"), args.precision))
    trainer.seconds = args.minutes * 60
    trainer.extend(trainer.end_in_time, (1, "iteration"))
    trainer.run()
    return trainer, trainer.elapsed_time


def batchsize(args):
    """Images or windows in a batch."""
    return args.batchsize or (16 if args.network == "pixelcnn" else 4)


def mean_nll(model, test_set, args):
    """In nats, over all targets of the test set."""
    batches = tqdm(evaluation_batches(test_set, 4 * batchsize(args)), desc="test", disable=None)
    return likelihood.evaluate(model, batches, torch.device("cpu"))


def main():
    """Train by the clock, then test."""
    args = arguments()
    torch.set_num_threads(args.threads)
    task = task_of(args)
    trainer, seconds = train(task, args)
    interval, unit = trainer.interval, task.unit
    print(f"{args.network}: {sum(p.numel() for p in task.model.parameters()):,} parameters, "
          f"{seconds:.0f} s on {args.threads} threads, {trainer.iteration:,} updates of "
          f"{batchsize(args)}, {trainer.epoch} epochs, {interval.samples:,} {unit}, "
          f"{interval.samples / seconds:,.0f} {unit}/s")
    began = time.monotonic()
    mean = mean_nll(trainer.eval_model, task.test_set, args)
    of_image = f", {mean * task.dimensions:.2f} nats an image" if task.dimensions else ""
    print(f"test: {mean / math.log(2):.4f} bits/dim{of_image} on {len(task.test_set):,} "
          f"{'images' if task.dimensions else 'windows'} ({time.monotonic() - began:.0f} s)")
    if args.network == "wavenet":
        rounded = mean_nll(round_to_bf16(trainer.eval_model), task.test_set, args)
        more = (rounded - mean) / math.log(2)
        print(f"with the weights of --precision bf16: {more:+.6f} bits/dim")


if __name__ == "__main__":
    run_script(main)
