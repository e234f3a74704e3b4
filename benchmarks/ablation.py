"""Measure what each defect of the original study costs, in bits/dim after equal training time.

    python benchmarks/ablation.py pixelcnn --data DIR --minutes 3 --threads 1
    python benchmarks/ablation.py wavenet --data DIR --minutes 3 --threads 1

Trains the correct network for --minutes, then one network for each defect, which is the only
change. Data, training and test are as in `likelihood.py`, except for labels and sizes: PixelCNN 32
wide, 5 blocks, digits with 4 levels, conditioned on the class; WaveNet 32 wide, 2×9 layers, spoken
digits, conditioned on the speaker. The defects of the PixelCNN:

- mask A twice: the horizontal stack hides the pixel's own feature, which knows the pixels to the
  left, in the second block as well as in the first
- vertical stack shifted in each block: each block moves it down by a row. The first shift hides the
  pixel's own row; every further one hides one more, so only the first block sees the row above
- label ignored: the network does not get the label
- no position: not a defect, but the paper's network, which does not get the pixel's position

and of the WaveNet:

- label ignored
- one window in four: training skips the others; the test uses all
- quantisation by truncation: a sample gets the code below it instead of the nearest. Its bits
  describe different data, so a line below the table compares the signal-to-noise ratio of the
  held-back recordings after decoding, in dB, for both kinds of codes

--seeds N repeats everything with N seeds of the initial weights and the data order, and prints
means ± standard deviations; differences are between runs of the same seed. Each run reports its
result on stderr; the table comes last.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Subset
from tqdm import tqdm

from benchmarks.formatting import format_count, format_mean
from benchmarks.likelihood import (
    RATE,
    SOUND_LEVELS,
    Task,
    TimedTrainer,
    build_task,
    is_held_back,
    make_parser,
    mean_nll,
    train,
)
from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.audio.recordings import find_recordings, read_recording
from datasets.corpus.windows import Windows
from datasets.quantization import mu_law_decode, mu_law_encode
from models.convolutions import GroupedConv2d, groups
from models.pixelcnn import Block, PixelCNN


def arguments() -> tuple[argparse.Namespace, list["Variant"]]:
    """Parse the command line: (flags, the defects to train besides the correct network)."""
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=positive_int, default=1, metavar="N", help="0 to N - 1")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME",
                        help="train only defects whose name contains one of these")
    parser.set_defaults(minutes=3, threads=1, levels=4, stacks_num=2, layers_num=9)
    args = parser.parse_args()
    known = DEFECTS[args.network]
    for text in args.only:
        if not any(text in defect.name for defect in known):
            names = ", ".join(f'"{defect.name}"' for defect in known)
            raise UserError(f"--only {text}: no such defect; give a part of {names}")
    if args.network == "pixelcnn" and args.blocks_num < 2:
        raise UserError(f"--blocks_num {args.blocks_num}: the defects are in the blocks after the "
                        "first; give 2 or more")
    return args, [defect for defect in known if any(text in defect.name for text in args.only)]


# ------------------------------------------------------------------------------ the defects

def mask_a_twice(model: PixelCNN) -> PixelCNN:
    """Put mask A into the horizontal stack of the second block too; return the model.

    Output group c then reads only the groups before c of the pixel's own feature; in grey images,
    which have one group, it reads nothing of it.
    """
    here = cast(GroupedConv2d, cast(Block, model.blocks[1]).here)
    features = groups(model.config.hidden_dim, model.config.channels)
    strict = GroupedConv2d(features, features.repeat(2), strict=True)
    here.mask = cast(torch.Tensor, strict.mask).to(here.weight)
    return model


def shift_vertical_stack(model: PixelCNN) -> PixelCNN:
    """Shift the vertical features down by a row in each block, hiding it; return the model."""
    for block in list(model.blocks)[1:]:  # the first block shifts them anyway
        block.register_forward_pre_hook(shift_down)
    return model


def shift_down(_: nn.Module, inputs: tuple) -> tuple:
    """Shift the rows of a block's input v (B, 1 + H, W, p) down by one; keep the other inputs."""
    v, *others = inputs
    return F.pad(v, (0, 0, 0, 0, 1, -1)), *others


def remove_position(model: PixelCNN) -> PixelCNN:
    """Remove the position of the pixel from the network's inputs; return the model."""
    cast(Block, model.blocks[0]).position = None
    return model


def every_fourth(windows: Windows) -> Subset:
    """The windows 0, 4, 8, … of a data set."""
    return Subset(windows, cast(Sequence[int], np.arange(0, len(windows), 4)))


def truncating_encode(samples: np.ndarray, levels: int) -> tuple[np.ndarray, int]:
    """Like mu_law_encode, but with the highest code that does not decode above the sample."""
    codes, clipped = mu_law_encode(samples, levels)
    is_above = mu_law_decode(codes, levels) > np.clip(samples, -1, 1)
    return codes - is_above, clipped


class Variant(NamedTuple):
    """A network and its training; the defaults are the correct ones.

    labels: whether to condition on labels. encode: samples to codes, see `likelihood.audio_task`.
    network: changes the correct model. training_set: changes the correct training set.
    """

    name: str
    labels: bool = True
    encode: Callable = mu_law_encode
    network: Callable = lambda model: model
    training_set: Callable = lambda windows: windows

    def build_task(self, args: argparse.Namespace) -> Task:
        """The task with this variant's changes."""
        task = build_task(args, self.encode)
        return task._replace(model=self.network(task.model),
                             training_set=self.training_set(task.training_set))


CORRECT = Variant("none")
LABEL_IGNORED = Variant("label ignored", labels=False)
DEFECTS = {
    "pixelcnn": (Variant("mask A twice", network=mask_a_twice),
                 Variant("vertical stack shifted in each block", network=shift_vertical_stack),
                 LABEL_IGNORED,
                 Variant("no position", network=remove_position)),
    "wavenet": (LABEL_IGNORED,
                Variant("one window in four", training_set=every_fourth),
                Variant("quantisation by truncation", encode=truncating_encode))}


# ------------------------------------------------------------------------------ their cost

class Result(NamedTuple):
    """The measurements of a run."""

    bits: float  # per dimension of the test set
    rate: float  # images or samples per second of training
    unit: str


def train_variant(variant: Variant, args: argparse.Namespace, seed: int) \
        -> tuple[Task, TimedTrainer, float, argparse.Namespace]:
    """Train: (the task, the trainer, the seconds of training, the flags of `likelihood.py`)."""
    args = argparse.Namespace(**vars(args), labels=variant.labels, seed=seed)
    task = variant.build_task(args)
    trainer, seconds = train(task, args)
    return task, trainer, seconds, args


def warm_up(args: argparse.Namespace) -> None:
    """Train one update, so the first network's time does not include what torch loads lazily."""
    train_variant(CORRECT, argparse.Namespace(**{**vars(args), "minutes": 1e-9}), seed=0)


def measure(variant: Variant, args: argparse.Namespace, seed: int) -> Result:
    """Train the variant and test it."""
    task, trainer, seconds, args = train_variant(variant, args, seed)
    bits = mean_nll(trainer.eval_model, task.test_set, args) / math.log(2)
    tqdm.write(f"seed {seed}, defect: {variant.name}: {bits:.4f} bits/dim after "
               f"{trainer.iteration:,} updates, in epoch {trainer.epoch + 1}", file=sys.stderr)
    return Result(bits, trainer.interval.samples / seconds, task.unit)


def signal_to_noise(recordings: Sequence[np.ndarray], encode: Callable) -> float:
    """The ratio in dB over all recordings, (n,) each, after encoding and decoding."""
    signal = noise = 0.0
    for samples in recordings:
        codes, _ = encode(samples, SOUND_LEVELS)
        error = mu_law_decode(codes, SOUND_LEVELS) - samples
        signal += np.square(samples, dtype=np.float64).sum()
        noise += np.square(error, dtype=np.float64).sum()
    return 10 * math.log10(signal / noise)


def compare_truncation_noise(args: argparse.Namespace) -> str:
    """A line with the signal-to-noise ratio of the held-back recordings for both encodings."""
    held_back = [read_recording(path, RATE) for path in find_recordings(args.data)
                 if is_held_back(path)]
    nearest, truncated = (signal_to_noise(held_back, encode)
                          for encode in (mu_law_encode, truncating_encode))
    return (f"signal to noise in the held-back recordings: {nearest:.1f} dB by the nearest codes, "
            f"{truncated:.1f} dB by truncation")


# ------------------------------------------------------------------------------ the table

def table_row(variant: Variant, results: Sequence[Result], correct: Sequence[Result]) -> str:
    """A line of Markdown. results, correct: of the variant and the correct network, by seed."""
    bits, rates = ([getattr(result, name) for result in results] for name in ("bits", "rate"))
    increases = [own - other.bits for own, other in zip(bits, correct, strict=True)]
    difference = "" if variant is CORRECT else format_mean(increases, "+.4f")
    return (f"| {variant.name} | {format_mean(bits, '.4f')} | {difference} | "
            f"{format_mean(rates, ',.0f')} |")


def main() -> None:
    """Train all variants seed by seed, so that long disturbances of the machine hit all of them."""
    args, defects = arguments()
    torch.set_num_threads(args.threads)
    warm_up(args)
    variants = [CORRECT, *defects]
    by_seed = [[measure(variant, args, seed) for variant in variants]
               for seed in range(args.seeds)]
    print(f"{args.network}: {format_count(args.seeds, 'seed')}, {args.minutes:g} min each on "
          f"{format_count(args.threads, 'thread')}\n")
    print(f"| defect | bits/dim (test) | difference | {by_seed[0][0].unit} a second |\n"
          "|---|---|---|---|")
    by_variant = list(zip(*by_seed, strict=True))
    correct = by_variant[0]
    for variant, results in zip(variants, by_variant, strict=True):
        print(table_row(variant, results, correct))
    if any(defect.encode is truncating_encode for defect in defects):
        print(f"\n{compare_truncation_noise(args)}")


if __name__ == "__main__":
    run_script(main)
