"""How well a network learns in a given time: train by the clock, then measure on test data.

    python tests/benchmarks/likelihood.py pixelcnn --data DIR --minutes 10
    python tests/benchmarks/likelihood.py wavenet --data DIR --minutes 10

pixelcnn: digits binarised at 128, trained on all the training digits in DIR (MNIST's published
files), without labels; prints nats an image on the first --test_items test digits.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tqdm import tqdm

from datasets.audio import find_recordings, read_recording
from datasets.batches import evaluation_batches
from datasets.corpus import Corpus
from datasets.corpus_writer import CorpusWriter
from datasets.features import describe, features_of
from datasets.images import ImageCodes, load_images
from datasets.labels import speaker_of
from datasets.quantization import mu_law_encode
from datasets.windows import Windows
from models.local import MARGIN
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling.wavenet import rounded
from training import likelihood
from training.arguments import (
    fraction,
    non_negative_float,
    positive_float,
    positive_int,
    run_script,
)
from training.optimization import optimizer_of
from training.stop import Stop
from training.trainer import Trainer


def arguments():
    """The command line; defaults are the sizes that peers were measured at."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("--data", default="assets", metavar="DIR")
    parser.add_argument("--minutes", type=positive_float, default=10)
    parser.add_argument("--batchsize", type=positive_int, help="default: 16 images, 4 windows")
    parser.add_argument("--hidden_dim", type=positive_int, default=32)
    parser.add_argument("--out_hidden_dim", type=positive_int, default=32)
    parser.add_argument("--blocks_num", type=positive_int, default=5)
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
    parser.add_argument("--labels", action="store_true", help="condition on digits or speakers")
    parser.add_argument("--features", choices=("none", "mel"), default="none")
    parser.add_argument("--test_items", type=positive_int, default=2000, help="test digits")
    parser.add_argument("--threads", type=positive_int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def images(args):
    """(training set, test set, network, unit, dimensions of an image)."""
    data = load_images("mnist", args.data, validation=0)
    sets = [ImageCodes(part.pixels, part.labels if args.labels else None, 2)
            for part in (data.train, data.test.take(slice(args.test_items)))]
    config = PixelCNNConfig(2, 1, args.hidden_dim, args.out_hidden_dim, args.blocks_num,
                            10 * args.labels)
    return *sets, PixelCNN(config), "images", 28 * 28


def sound(args, folder):
    """The same of recordings DIGIT_SPEAKER_TAKE.wav, which are prepared in `folder`."""
    names = sorted({speaker_of(path) for path in find_recordings(args.data)})
    features = describe(args.features, [], 8000, hop_seconds=0.0125, bins=80)
    with CorpusWriter(folder, rate=8000, levels=256, stacks_num=args.stacks_num,
                      layers_num=args.layers_num, target_length=args.target_length,
                      labels="speaker", flush_every=10240, features=features) as writer:
        for path in find_recordings(args.data):
            take = int(path.stem.rpartition("_")[2])
            samples = read_recording(path, 8000)
            codes, _ = mu_law_encode(samples, 256)
            frames = [features_of(samples, features)] if features else []
            label = speaker_of(path) if args.labels else None
            writer.add("train" if take >= 5 else "validation", path.name, label, [codes], frames)
        writer.close()
    corpus = Corpus(folder)
    config = WaveNetConfig(256, args.hidden_dim, args.out_hidden_dim, args.stacks_num,
                           args.layers_num, len(names) * args.labels,
                           *((features.width, features.hop) if features else ()))
    sets = [Windows(part, args.target_length, config.receptive_field, 256, MARGIN)
            for part in (corpus.train, corpus.validation)]
    model = WaveNet(config)
    if features:
        model.frames.standardize(*corpus.train.frame_statistics())
    return *sets, model, "samples", None


class TimedTrainer(Trainer):
    """A run that takes `seconds`, and has its schedule by the clock."""

    seconds = None

    @property
    def done(self):
        """The part of the time that is gone."""
        return self.elapsed_time / self.seconds

    def end_in_time(self, _):
        """An extension for every update."""
        if self.done >= 1:
            self.stop = Stop(iterations=self.iteration)


def main():
    """Train by the clock, then test."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:  # of the memory maps, which outlive it
        training_set, test_set, model, unit, dimensions = (
            images(args) if args.network == "pixelcnn" else sound(args, folder))
    batchsize = args.batchsize or (16 if args.network == "pixelcnn" else 4)
    model.dropout = args.dropout
    optimizer = optimizer_of(args.optimizer, model.parameters(), args.learning_rate,
                             args.weight_decay)
    count = (lambda batch: len(batch.codes)) if dimensions else likelihood.count_targets
    trainer = TimedTrainer(
        model, optimizer, training_set, batchsize=batchsize, seed=args.seed, clip=1.0, stop=Stop(),
        device=torch.device("cpu"), unit=unit, samples=count, dimensions=dimensions,
        schedule=args.schedule, ema=args.ema, precision=args.precision)
    trainer.seconds = args.minutes * 60
    trainer.extend(trainer.end_in_time, (1, "iteration"))
    trainer.run()
    interval, seconds = trainer.interval, trainer.elapsed_time
    print(f"{args.network}: {sum(p.numel() for p in model.parameters()):,} parameters, "
          f"{seconds:.0f} s on {args.threads} threads, {trainer.iteration:,} updates of "
          f"{batchsize}, {trainer.epoch} epochs, {interval.samples:,} {unit}, "
          f"{interval.samples / seconds:,.0f} {unit}/s")

    def test_nll(model):
        batches = tqdm(evaluation_batches(test_set, 4 * batchsize), desc="test", disable=None)
        return likelihood.evaluate(model, batches, torch.device("cpu"))

    began = time.monotonic()
    mean = test_nll(trainer.learned)
    of_image = f", {mean * dimensions:.2f} nats an image" if dimensions else ""
    print(f"test: {mean / math.log(2):.4f} bits/dim{of_image} on {len(test_set):,} "
          f"{'images' if dimensions else 'windows'} ({time.monotonic() - began:.0f} s)")
    if args.network == "wavenet":
        more = (test_nll(rounded(trainer.learned)) - mean) / math.log(2)
        print(f"with the weights of --precision bf16: {more:+.6f} bits/dim")


if __name__ == "__main__":
    run_script(main)
