"""What each correction of the original study's defects is worth, in bits/dim at equal time.

    python benchmarks/ablation.py pixelcnn --data DIR --minutes 3 --threads 1
    python benchmarks/ablation.py wavenet --data DIR --minutes 3 --threads 1

The correct network is trained for so many minutes, then one for each defect, which is put back
alone. Data, training and test are those of `likelihood.py`, but for labels, and sizes: PixelCNN
32 wide, 5 blocks, digits of 4 levels by class; WaveNet 32 wide, 2×9 layers, spoken digits by
speaker. The defects of the PixelCNN:

- mask A twice: not in the first block alone, but also in the second the horizontal stack does not
  see the pixel's own feature, which knows the pixels at the left
- vertical stack shifted in each block: down by a row, which in the first one hides the pixel's own
  row, and in all others one more; so the row above is seen by the first block alone
- label ignored: the network is not told it
- no position, which is no defect: the paper's network is not told where in the picture a pixel is

and of the WaveNet:

- label ignored
- one window in four: the others are never trained on; the test is on all
- quantisation by truncation: a sample's code is the one below, not the nearest. Its bits are those
  of other data; so below the table stands how much of the held-back recordings is in the codes of
  both kinds, the signal-to-noise ratio in dB after decoding

With several --seeds, of the initial weights and the data's order, means ± standard deviations are
told; a difference is of runs with the same seed. The table comes at the very end; each run says on
stderr what it came to.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Subset
from tqdm import tqdm

from benchmarks.figures import number, told
from benchmarks.likelihood import RATE, SOUND_LEVELS, flags, is_held_back, mean_nll, task_of, train
from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.audio.recordings import find_recordings, read_recording
from datasets.quantization import mu_law_decode, mu_law_encode
from models.convolutions import GroupedConv2d, groups


def arguments():
    """The command line: (the flags, the Variants to train beside the correct one)."""
    parser = flags(__doc__)
    parser.add_argument("--seeds", type=positive_int, default=1, metavar="N", help="0 to N - 1")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME",
                        help="defects that have one of these in their name")
    parser.set_defaults(minutes=3, threads=1, levels=4, stacks_num=2, layers_num=9)
    args = parser.parse_args()
    known = DEFECTS[args.network]
    for text in args.only:
        if not any(text in defect.name for defect in known):
            names = ", ".join(f'"{defect.name}"' for defect in known)
            raise UserError(f"--only {text}: no such defect; give a part of {names}")
    if args.network == "pixelcnn" and args.blocks_num < 2:
        raise UserError(f"--blocks_num {args.blocks_num}: the masks' defects are in the blocks "
                        "after the first; give 2 or more")
    return args, [defect for defect in known if any(text in defect.name for text in args.only)]


# ------------------------------------------------------------------------------ the defects

def mask_a_twice(model):
    """The PixelCNN, whose second block's horizontal stack is under mask A.

    In it group c of the output reads only the groups before c of the pixel's own feature: of grey
    pictures, which have but one group, nothing.
    """
    here = model.blocks[1].here
    features = groups(model.config.hidden_dim, model.config.channels)
    strict = GroupedConv2d(features, features.repeat(2), strict=True)
    here.mask = strict.mask.to(here.weight)
    return model


def shifted_in_each_block(model):
    """The PixelCNN, in each block of which the vertical features are moved down, hiding a row."""
    for block in model.blocks[1:]:  # the first one does so anyway
        block.register_forward_pre_hook(move_down)
    return model


def move_down(_, inputs):
    """A block's inputs v (B, 1 + H, W, p), h, …, with each row of v in the place of the next."""
    v, *others = inputs
    return F.pad(v, (0, 0, 0, 0, 1, -1)), *others


def without_position(model):
    """The PixelCNN, not told where in the picture a pixel is."""
    model.blocks[0].position = None
    return model


def one_in_four(windows):
    """The windows 0, 4, 8, … of a data set."""
    return Subset(windows, np.arange(0, len(windows), 4))


def truncating_encode(samples, levels):
    """As mu_law_encode, but each sample's code is the highest whose sound is not above it."""
    codes, clipped = mu_law_encode(samples, levels)
    is_above = mu_law_decode(codes, levels) > np.clip(samples, -1, 1)
    return codes - is_above, clipped


class Variant(NamedTuple):
    """A network and its training: correct but for what is given.

    labels: whether the network is told them. encode: samples to codes, see `likelihood.sound`.
    network: the model, as it is to be trained, of the correct one. training_set: the same.
    """

    name: str
    labels: bool = True
    encode: Callable = mu_law_encode
    network: Callable = lambda model: model
    training_set: Callable = lambda windows: windows

    def task(self, args):
        """The `likelihood.Task`."""
        task = task_of(args, self.encode)
        return task._replace(model=self.network(task.model),
                             training_set=self.training_set(task.training_set))


CORRECT = Variant("none")
LABEL_IGNORED = Variant("label ignored", labels=False)
DEFECTS = {
    "pixelcnn": (Variant("mask A twice", network=mask_a_twice),
                 Variant("vertical stack shifted in each block", network=shifted_in_each_block),
                 LABEL_IGNORED,
                 Variant("no position", network=without_position)),
    "wavenet": (LABEL_IGNORED,
                Variant("one window in four", training_set=one_in_four),
                Variant("quantisation by truncation", encode=truncating_encode))}


# ------------------------------------------------------------------------------ what they cost

class Result(NamedTuple):
    """What was measured of a run."""

    bits: float  # a dimension of the test set
    rate: float  # images or samples a second, in training
    unit: str


def trained(variant, args, seed):
    """(its Task, the trainer, the seconds that it took, the flags as `likelihood.py` has them)."""
    args = argparse.Namespace(**vars(args), labels=variant.labels, seed=seed)
    task = variant.task(args)
    return task, *train(task, args), args


def warm_up(args):
    """An update, lest what torch loads at a process's first be of the correct network's time."""
    trained(CORRECT, argparse.Namespace(**{**vars(args), "minutes": 1e-9}), seed=0)


def result_of(variant, args, seed):
    """Train the variant, and test it."""
    task, trainer, seconds, args = trained(variant, args, seed)
    bits = mean_nll(trainer.eval_model, task.test_set, args) / math.log(2)
    tqdm.write(f"seed {seed}, defect: {variant.name}: {bits:.4f} bits/dim after "
               f"{trainer.iteration:,} updates, in epoch {trainer.epoch + 1}", file=sys.stderr)
    return Result(bits, trainer.interval.samples / seconds, task.unit)


def signal_to_noise(recordings, encode):
    """Of recordings, (n,) each, after encoding and decoding: in dB, of all of them together."""
    signal = noise = 0.0
    for samples in recordings:
        codes, _ = encode(samples, SOUND_LEVELS)
        error = mu_law_decode(codes, SOUND_LEVELS) - samples
        signal += np.square(samples, dtype=np.float64).sum()
        noise += np.square(error, dtype=np.float64).sum()
    return 10 * math.log10(signal / noise)


def noise_of_truncation(args):
    """A line on both kinds of codes of the recordings that are held back."""
    held_back = [read_recording(path, RATE) for path in find_recordings(args.data)
                 if is_held_back(path)]
    nearest, truncated = (signal_to_noise(held_back, encode)
                          for encode in (mu_law_encode, truncating_encode))
    return (f"signal to noise in the held-back recordings: {nearest:.1f} dB by the nearest codes, "
            f"{truncated:.1f} dB by truncation")


# ------------------------------------------------------------------------------ the table

def table_row(variant, results, correct):
    """A line of Markdown on a variant's Results and the correct network's, one for each seed."""
    bits, rates = ([getattr(result, name) for result in results] for name in ("bits", "rate"))
    more = [one - other.bits for one, other in zip(bits, correct, strict=True)]
    difference = "" if variant is CORRECT else told(more, "+.4f")
    return f"| {variant.name} | {told(bits, '.4f')} | {difference} | {told(rates, ',.0f')} |"


def main():
    """Train all variants, seed after seed: what disturbs the machine for long disturbs them all."""
    args, defects = arguments()
    torch.set_num_threads(args.threads)
    warm_up(args)
    variants = [CORRECT, *defects]
    by_seed = [[result_of(variant, args, seed) for variant in variants]
               for seed in range(args.seeds)]
    print(f"{args.network}: {number(args.seeds, 'seed')}, {args.minutes:g} min each on "
          f"{number(args.threads, 'thread')}\n")
    print(f"| defect | bits/dim (test) | difference | {by_seed[0][0].unit} a second |\n"
          "|---|---|---|---|")
    correct, *others = zip(*by_seed, strict=True)
    for variant, results in zip(variants, (correct, *others), strict=True):
        print(table_row(variant, results, correct))
    if any(defect.encode is truncating_encode for defect in defects):
        print(f"\n{noise_of_truncation(args)}")


if __name__ == "__main__":
    run_script(main)
