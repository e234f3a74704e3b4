"""Flags that scripts share, and their types. Does not import torch: --help is instant."""

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

from cli.config_file import flags_of
from common.errors import UserError
from common.moments import Every

T = TypeVar("T")
MAX_INT = 2 ** 31 - 1  # of whole numbers, unless a flag has a lower limit
MAX_FLOAT = 1e15


def whole_number(minimum: int = 0, maximum: int = MAX_INT) -> Callable[[str], int]:
    """Return an argparse type: a whole number from `minimum` to `maximum`."""
    meaning = f"a whole number from {minimum} up"
    if maximum < MAX_INT:
        meaning += f" to {maximum:,}"

    def read(text: str) -> int:
        return _number(text, int, lambda x: minimum <= x <= maximum, meaning)

    return read


positive_int = whole_number(1)
non_negative_int = whole_number()
workers_number = whole_number(0, 256)
image_side = whole_number(1, 65_535)  # in pixels, of the largest JPEG


def seed_number(text: str) -> int:
    """A whole number from 0 up that all random number generators accept."""
    return _number(text, int, lambda x: 0 <= x < 2 ** 63, "a whole number from 0 to 2^63 - 1")


def positive_float(text: str) -> float:
    """A number above 0."""
    return _number(text, float, lambda x: 0 < x <= MAX_FLOAT, "a number above 0")


def non_negative_float(text: str) -> float:
    """A number from 0 up."""
    return _number(text, float, lambda x: 0 <= x <= MAX_FLOAT, "a number from 0 up")


def device_number(text: str) -> int:
    """A CUDA device's number, or -1 for the CPU."""
    return _number(text, int, lambda x: -1 <= x <= MAX_INT, "-1 or the number of a CUDA device")


def fraction(text: str) -> float:
    """A number from 0 up to, but not including, 1."""
    return _number(text, float, lambda x: 0 <= x < 1, "a number from 0 up to 1, without 1")


def probability(text: str) -> float:
    """A number above 0, up to 1."""
    return _number(text, float, lambda x: 0 < x <= 1, "a number above 0, up to 1")


def number_from(least: float, most: float) -> Callable[[str], float]:
    """Return an argparse type: a number from `least` to `most`."""
    return lambda text: _number(text, float, lambda x: least <= x <= most,
                                f"a number from {least:g} to {most:g}")


def label_pair(text: str) -> str:
    """NEW=OLD, the names of two labels."""
    if not all(text.partition("=")):
        raise argparse.ArgumentTypeError(f"{text!r} is not NEW=OLD, two labels' names")
    return text


def every(text: str) -> Every:
    """An `Every`: updates, such as 1000, or seconds, minutes or hours, such as 30s, 10m, 2h."""
    def read(text: str) -> Every:
        seconds = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
        return Every(int(text[:-1]) * seconds, True) if seconds else Every(int(text))

    return _number(text, read, lambda it: 1 <= it.number <= MAX_INT,
                   "a whole number of updates from 1 up, or of s, m or h, such as 10m")


class Length(NamedTuple):
    """The length of a sound: a number of samples, 0 for endless, or a number of seconds."""

    number: float
    in_seconds: bool

    def __str__(self) -> str:
        return f"{self.number:g}s" if self.in_seconds else f"{self.number}"

    def samples(self, rate: int) -> int | None:
        """Return the number of samples at `rate` Hz, None for endless.

        Raises UserError for seconds that are less than a sample.
        """
        samples = round(self.number * rate) if self.in_seconds else int(self.number)
        if self.in_seconds and not samples:
            raise UserError(f"--length {self.number:g}s is less than a sample at {rate} Hz; give "
                            f"a longer one")
        return samples or None


def length(text: str) -> Length:
    """A `Length`: samples, such as 4096, or seconds, such as 30s."""
    def read(text: str) -> Length:
        in_seconds = text.endswith("s")
        return Length(float(text[:-1]) if in_seconds else int(text), in_seconds)

    def accepts(value: Length) -> bool:
        if value.in_seconds:
            return 0 < value.number < 1e15
        return 0 <= value.number < 1e15

    return _number(text, read, accepts,
                   "a whole number of samples from 0 up, or of seconds, such as 30s")


def _number(text: str, read: Callable[[str], T], accepts: Callable[[T], bool], meaning: str) -> T:
    """Read a value and check it. meaning: what the error message says was expected."""
    try:
        value = read(text)
    except ValueError:
        value = None
    if value is None or not accepts(value):
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not {meaning}")
    return value


def add_device_and_seed(parser: argparse.ArgumentParser, seed: int | None = 0) -> None:
    """Add --gpu and --seed, for scripts that run a network. seed: its default."""
    parser.add_argument("-g", "--gpu", type=device_number, default=-1, metavar="N",
                        help="CUDA device, -1 for the CPU (default: -1)")
    parser.add_argument("--seed", type=seed_number, default=seed, metavar="N",
                        help="the same seed gives the same result (default: 0)")


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the sampling scripts that select models."""
    parser.add_argument("-m", "--model", nargs="+", required=True, metavar="FILE|DIR",
                        help="model files or snapshots, and folders of runs, for their best models")
    parser.add_argument("--snapshots", action="store_true",
                        help="of a run's folder take all snapshots, not the best model")


def add_training(parser: argparse.ArgumentParser, *, batchsize: int, epoch: int,
                 learning_rate: float) -> None:
    """Add the flags of both training scripts. batchsize, epoch, learning_rate: defaults."""
    add_device_and_seed(parser, seed=None)
    parser.add_argument("-b", "--batchsize", type=positive_int, default=batchsize, metavar="N",
                        help=f"items in a batch (default: {batchsize})")
    parser.add_argument("-e", "--epoch", type=positive_int, default=epoch, metavar="N",
                        help=f"stop after so many passes over the data (default: {epoch})")
    parser.add_argument("--iterations", type=positive_int, metavar="N",
                        help="stop after so many updates, if that comes first")
    parser.add_argument("--target_loss", type=positive_float, metavar="NATS",
                        help="stop once main/nll in the log is at or below this")
    parser.add_argument("-o", "--out", default=".", metavar="DIR",
                        help="the run's folder: log, plots, snapshots, models (default: .)")
    parser.add_argument("-r", "--resume", default="", metavar="FILE|DIR|auto",
                        help="go on from a snapshot, or the newest in a run's folder; auto: from "
                             "the newest in --out, if any")
    parser.add_argument("--init_from", metavar="MODEL",
                        help="begin from the weights of a model file, a snapshot or a run's "
                             "folder; labels are matched by name")
    parser.add_argument("--start_label", type=label_pair, nargs="*", default=[],
                        metavar="NEW=OLD",
                        help="with --init_from: let a label of the data begin as one of the "
                             "model's")
    parser.add_argument("--learning_rate", type=positive_float, default=learning_rate, metavar="X",
                        help=f"at its height (default: {learning_rate})")
    parser.add_argument("--weight_decay", type=non_negative_float, default=1e-4, metavar="X",
                        help="L2 penalty on the weights (default: 1e-4)")
    parser.add_argument("--stats", action="store_true",
                        help="log statistics of each layer's weights and gradients every epoch, "
                             "and show their histograms in TensorBoard")
    _add_learning(parser.add_argument_group("how it learns"))
    _add_running(parser.add_argument_group("how it runs"))


def _add_learning(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--optimizer", choices=("adam", "muon", "sgd", "rmsprop"), default="adam",
                       help="muon updates matrices by orthogonal steps and all else as adam; sgd "
                            "and rmsprop have a momentum of 0.9 (default: adam)")
    group.add_argument("--schedule", choices=("constant", "cosine", "step"), default="constant",
                       help="of the learning rate: cosine and step rise over the first hundredth "
                            "of the run, then fall, along half a cosine to 0 or to a tenth after "
                            "60 %% and again after 85 %% of it (default: constant)")
    group.add_argument("--ema", type=fraction, metavar="X",
                       help="validate and sample with a moving average of the weights; each update "
                            "keeps X of it, such as 0.999 (default: none)")
    group.add_argument("--dropout", type=fraction, default=0.0, metavar="X",
                       help="set this part of the gated features to 0 while training (default: 0)")


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32",
                       help="of the matrix products while training, and with bf16 of PixelCNN's "
                            "vertical stack; validation is in fp32 always, so is a CPU without "
                            "bf16, and tf32 is for CUDA (default: fp32)")
    group.add_argument("--workers", type=workers_number, default=0, metavar="N",
                       help="processes that read data ahead (default: 0, none)")
    group.add_argument("--snapshot_every", type=every, default=Every(1000),
                       metavar="N[s|m|h]",
                       help="write a snapshot N updates, seconds, minutes or hours after the last "
                            "one, and at each epoch's end (default: 1000)")
    group.add_argument("--snapshots_kept", type=positive_int, default=3, metavar="N",
                       help="of these the latest N stay (default: 3)")
    group.add_argument("--keep_every", type=every, metavar="N[s|m|h]",
                       help="write one that is never deleted as often as this (default: none)")
    group.add_argument("--sample_every", type=every, metavar="N[s|m|h]",
                       help="draw samples into OUT/samples and TensorBoard as often as this, and "
                            "at the end (default: none)")
    group.add_argument("--auto_restart", type=non_negative_int, default=0, metavar="N",
                       help="after a crash go on from the last snapshot, up to N times, each time "
                            "after a longer wait (default: 0)")


def add_distribution(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the distribution of a code."""
    parser.add_argument("--distribution", choices=("softmax", "logistics"), default="softmax",
                        help="of a code: a probability for each, or a mixture of discretised "
                             "logistics, which knows that neighbouring codes are similar (default: "
                             "softmax)")
    parser.add_argument("--mixtures", type=whole_number(1, 1000), default=10, metavar="N",
                        help="components of --distribution logistics (default: 10)")


def parse(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line. Flags override the values of `--config FILE.json`.

    The keys of a file are long names of flags, and its values are checked like typed ones. Or its
    keys are names of scripts, such as train_wavenet, each with such an object: one file for a
    whole study.
    Raises UserError for a key that is no flag of this script, and for all that argparse refuses.
    """
    parser.add_argument("--config", metavar="FILE.json",
                        help="flags from a JSON file, such as a run's config.json, or one with a "
                             "part for each script")
    parser.allow_abbrev = False
    _raise_user_errors(parser)
    argv = sys.argv[1:] if argv is None else argv
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    _raise_user_errors(finder)
    path = finder.parse_known_args(argv)[0].config
    if path:
        argv = [*flags_of(path, parser), *argv]
    args = parser.parse_args(argv)
    if getattr(args, "start_label", None) and not args.init_from:
        parser.error("--start_label goes with --init_from")
    return args


def _raise_user_errors(parser: argparse.ArgumentParser) -> None:
    """Let the parser raise a UserError where it would print its usage and exit."""
    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")

    parser.error = refuse  # type: ignore[method-assign]
