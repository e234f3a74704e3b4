"""Train a network for a given time, then measure its likelihood on test data.

    python benchmarks/likelihood.py pixelcnn --data DIR --minutes 10
    python benchmarks/likelihood.py wavenet --data DIR --minutes 10

pixelcnn trains on all training digits in DIR (MNIST's published files), binarised at 128 or with
more --levels, without labels, or on the pictures of another published --dataset. It prints nats per
image on the first --test_items test images.
wavenet trains on DIR/SPEAKER/DIGIT_SPEAKER_TAKE.wav except takes 0 to 4, which are the test data.
It prints bits per sample over all test samples, each recording starting from silence, and how much
rounding the weights as `infer_wavenet.py --precision bf16` does changes them. --features mel
conditions the network on the recordings' mel spectra, 80 bands every 12.5 ms. --sound_levels and
--encoding say what a sample's code is. Likelihoods compare only where these are equal.

The learning rate warms up over 1 % of the time and falls to 0 along a half cosine, unless
--schedule says otherwise. The time covers training only, not reading the data or testing.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder
    import cli  # noqa: F401, before torch: as in the scripts

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from cli.arguments import (
    add_distribution,
    fraction,
    non_negative_float,
    positive_float,
    positive_int,
)
from cli.script import run_script
from cli.training_request import distribution_parameters
from common.errors import UserError
from datasets.audio.features import compute_features, make_features
from datasets.audio.labels import speaker_of
from datasets.audio.recordings import find_recordings, read_recording
from datasets.batches import BatchDataset, evaluation_batches
from datasets.corpus.reader import Corpus
from datasets.corpus.windows import Windows
from datasets.corpus.writer import CorpusWriter
from datasets.images.dataset import ImageCodes, load_images
from datasets.quantization import ENCODINGS, encode_sound
from models.local_conditioning import MARGIN_FRAMES
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling.wavenet import round_to_bf16
from training import likelihood
from training.device import supported_precision
from training.initial_output import fit_output
from training.optimization import embedding_weights, make_optimizer
from training.stopping import StopCondition
from training.trainer import Trainer

RATE, SOUND_LEVELS = 8000, 256
FIRST_TAKE = 5  # of the training data


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--labels", action="store_true", help="condition on digits or speakers")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of all flags but --labels and --seed. Peers were measured at the default sizes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("--data", default="assets", metavar="DIR")
    parser.add_argument("--minutes", type=positive_float, default=10)
    parser.add_argument("--batchsize", type=positive_int, help="default: 16 images, 4 windows")
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "fashion-mnist", "cifar"))
    parser.add_argument("--levels", type=positive_int, default=2, help="of images")
    parser.add_argument("--sound_levels", type=positive_int, default=SOUND_LEVELS)
    parser.add_argument("--encoding", choices=ENCODINGS, default="mulaw", help="of sound")
    add_distribution(parser)
    parser.add_argument("--hidden_dim", type=positive_int, default=32)
    parser.add_argument("--out_hidden_dim", type=positive_int, default=32)
    parser.add_argument("--blocks_num", type=positive_int, default=5)
    parser.add_argument("--no_position", action="store_true", help="the paper's PixelCNN")
    parser.add_argument("--stacks_num", type=positive_int, default=5)
    parser.add_argument("--layers_num", type=positive_int, default=10)
    parser.add_argument("--target_length", type=positive_int, default=1600)
    parser.add_argument("--learning_rate", type=positive_float, default=2e-3)
    parser.add_argument("--weight_decay", type=non_negative_float, default=0.0)
    parser.add_argument("--optimizer", choices=("adam", "muon", "sgd", "rmsprop"),
                        default="adam")
    parser.add_argument("--schedule", choices=("constant", "cosine", "step"), default="cosine")
    parser.add_argument("--ema", type=fraction, help="test an average of the weights")
    parser.add_argument("--dropout", type=fraction, default=0.0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--features", choices=("none", "mel"), default="none")
    parser.add_argument("--test_items", type=positive_int, default=2000, help="test digits")
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser


# ------------------------------------------------------------------------------ tasks

class Task(NamedTuple):
    """The data and the network that learns it."""

    training_set: BatchDataset
    test_set: BatchDataset
    model: PixelCNN | WaveNet
    unit: str  # name of the counted samples: "images" or "samples"
    dimensions: int | None  # of an image; None for sound


def build_task(args: argparse.Namespace, encode: Callable | None = None) -> Task:
    """Build the Task of `args.network`; `args.seed` sets the weights. encode: see `audio_task`."""
    torch.manual_seed(args.seed)
    if args.network == "pixelcnn":
        task = image_task(args)
    else:
        with tempfile.TemporaryDirectory() as folder:  # the memory maps outlive it
            task = audio_task(args, folder, encode or partial(encode_sound, encoding=args.encoding))
    fit_output(task.model, task.training_set)
    return task


def image_task(args: argparse.Namespace) -> Task:
    """The Task of a published set of images."""
    data = load_images(args.dataset, args.data, validation=0)
    assert data.test is not None, "published sets have test images"
    test_items = np.arange(len(data.test.pixels))[:args.test_items]
    training_set, test_set = (
        ImageCodes(split.pixels, split.labels if args.labels else None, args.levels)
        for split in (data.train, data.test.take(test_items)))
    channels, height, width = data.train.pixels.shape[1:]
    config = PixelCNNConfig(args.levels, channels, args.hidden_dim, args.out_hidden_dim,
                            args.blocks_num, len(data.label_names) * args.labels,
                            position=not args.no_position, **distribution_parameters(args))
    return Task(training_set, test_set, PixelCNN(config), "images", channels * height * width)


def audio_task(args: argparse.Namespace, folder: str, encode: Callable) -> Task:
    """The Task of recordings DIGIT_SPEAKER_TAKE.wav; writes their corpus to `folder`.

    encode: (samples, levels) -> (codes, number of clipped samples), like
    `datasets.quantization.encode_sound`.
    """
    paths = find_recordings(args.data)
    if len({is_held_back(path) for path in paths}) < 2:
        raise UserError(f"--data {args.data}: takes below {FIRST_TAKE} are test data, the "
                        "others training data; give recordings of both")
    names = sorted({speaker_of(path) for path in paths})
    features = make_features(args.features, [], RATE, hop_seconds=0.0125, bins=80)
    try:
        config = WaveNetConfig(args.sound_levels, args.hidden_dim, args.out_hidden_dim,
                               args.stacks_num, args.layers_num, len(names) * args.labels,
                               features=features.width if features else 0,
                               hop=features.hop if features else 0,
                               prediction=args.distribution == "logistics",
                               **distribution_parameters(args))
    except ValueError as error:
        raise UserError(f"--{error}") from None
    with CorpusWriter(folder, rate=RATE, levels=args.sound_levels, stacks_num=args.stacks_num,
                      layers_num=args.layers_num, target_length=args.target_length,
                      labels="speaker", flush_every=10240, features=features) as writer:
        for path in paths:
            samples = read_recording(path, RATE)
            codes, _ = encode(samples, args.sound_levels)
            frames = [compute_features(samples, features)] if features else []
            label = speaker_of(path) if args.labels else None
            writer.add("validation" if is_held_back(path) else "train", path.name, label, [codes],
                       frames)
        writer.close()
    corpus = Corpus(folder)
    training_set, test_set = (
        Windows(split, args.target_length, config.receptive_field, args.sound_levels, MARGIN_FRAMES)
        for split in (corpus.train, corpus.validation))
    model = WaveNet(config)
    if model.frames is not None:
        model.frames.set_normalization(*corpus.train.frame_statistics())
    return Task(training_set, test_set, model, "samples", None)


def is_held_back(path: Path) -> bool:
    """Whether the recording DIGIT_SPEAKER_TAKE.wav is test data."""
    take = path.stem.rpartition("_")[2]
    if not take.isdecimal():
        raise UserError(f"{path}: its name is not DIGIT_SPEAKER_TAKE; rename or remove it")
    return int(take) < FIRST_TAKE


# ------------------------------------------------------------------------------ timed training

class TimedTrainer(Trainer):
    """Trains for `seconds`; the learning rate schedule follows the clock."""

    seconds: float

    @property
    def progress(self) -> float:
        """The elapsed fraction of the time."""
        return self.elapsed_time / self.seconds

    def stop_in_time(self, _: Trainer) -> None:
        """Stop when the time is up: an extension for every update."""
        if self.progress >= 1:
            self.stop = StopCondition(iterations=self.iteration)


def train(task: Task, args: argparse.Namespace) -> tuple[TimedTrainer, float]:
    """Train the task's network for `args.minutes`: (the trainer, the seconds of training)."""
    task.model.dropout = args.dropout
    optimizer = make_optimizer(args.optimizer, task.model.parameters(), args.learning_rate,
                               args.weight_decay, embedding_weights(task.model))
    count = (lambda batch: len(batch.codes)) if task.dimensions else likelihood.count_targets
    trainer = TimedTrainer(
        task.model, optimizer, task.training_set, batchsize=batchsize(args), seed=args.seed,
        clip=1.0, stop=StopCondition(), device=torch.device("cpu"), unit=task.unit, samples=count,
        dimensions=task.dimensions, schedule=args.schedule, ema=args.ema,
        precision=supported_precision(torch.device("cpu"), args.precision))
    trainer.seconds = args.minutes * 60
    trainer.extend(trainer.stop_in_time, (1, "iteration"))
    trainer.run()
    return trainer, trainer.elapsed_time


def batchsize(args: argparse.Namespace) -> int:
    """The number of images or windows in a batch."""
    return args.batchsize or (16 if args.network == "pixelcnn" else 4)


def mean_nll(model: nn.Module, test_set: BatchDataset, args: argparse.Namespace) -> float:
    """The mean negative log-likelihood over all targets of the test set, in nats."""
    batches = tqdm(evaluation_batches(test_set, 4 * batchsize(args)), desc="test", disable=None)
    return likelihood.evaluate(model, batches, torch.device("cpu"))


def main() -> None:
    """Train for the given time, then test."""
    args = arguments()
    torch.set_num_threads(args.threads)
    task = build_task(args)
    trainer, seconds = train(task, args)
    interval, unit = trainer.interval, task.unit
    print(f"{args.network}: {sum(p.numel() for p in task.model.parameters()):,} parameters, "
          f"{seconds:.0f} s on {args.threads} threads, {trainer.iteration:,} updates of "
          f"{batchsize(args)}, {trainer.epoch} epochs, {interval.samples:,} {unit}, "
          f"{interval.samples / seconds:,.0f} {unit}/s")
    start = time.monotonic()
    mean = mean_nll(trainer.eval_model, task.test_set, args)
    per_image = f", {mean * task.dimensions:.2f} nats an image" if task.dimensions else ""
    print(f"test: {mean / math.log(2):.4f} bits/dim{per_image} on {len(task.test_set):,} "
          f"{'images' if task.dimensions else 'windows'} ({time.monotonic() - start:.0f} s)")
    if args.network == "wavenet":
        rounded = mean_nll(round_to_bf16(cast(WaveNet, trainer.eval_model)), task.test_set, args)
        increase = (rounded - mean) / math.log(2)
        print(f"with the weights of --precision bf16: {increase:+.6f} bits/dim")


if __name__ == "__main__":
    run_script(main)
