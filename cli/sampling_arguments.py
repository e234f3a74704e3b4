"""The flags that both sampling scripts share, and rules between flags. Does not import torch."""

import argparse
import sys

from cli import streams
from cli.arguments import (
    add_device_and_seed,
    add_models,
    length,
    non_negative_float,
    positive_int,
    probability,
)
from common.errors import UserError


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the flags for device, seed and models."""
    add_device_and_seed(parser)
    add_models(parser)


def add_randomness(parser: argparse.ArgumentParser, things: str, element: str) -> None:
    """Add --temperature and --top_p. things: what is drawn, in words. element: what has a code."""
    parser.add_argument("--temperature", type=non_negative_float, default=1.0, metavar="X",
                        help=f"below 1 more likely {things}, above 1 more varied ones, 0 the most "
                             f"likely code of each {element} (default: 1.0)")
    parser.add_argument("--top_p", type=probability, default=1.0, metavar="X",
                        help="draw among the most probable codes that together have this "
                             "probability (default: 1.0)")


def add_network_checks(parser: argparse.ArgumentParser, *options: tuple[str, ...]) -> None:
    """Add flags that describe the network, each a tuple of its names: they only check the file."""
    network = parser.add_argument_group("network", "The model file knows these; here for checking.")
    for names in options:
        network.add_argument(*names, type=positive_int, metavar="N")


def complete_sound_flags(args: argparse.Namespace) -> None:
    """Refuse flags of infer_wavenet.py that exclude each other; set --count and --length.

    Raises UserError.
    """
    piped = args.output == "-"
    if piped:
        _check_pipe(args)
    for teller in ("text", "features_from"):
        for flag in ("prime", "length", *(["features_from"] if teller == "text" else [])):
            if getattr(args, teller) is not None and getattr(args, flag):
                raise UserError(f"--{flag}: can't go with --{teller}, which says it; leave it out")
    for flag in ("speed", "pitch"):
        if args.text is None and getattr(args, flag) != 1:
            raise UserError(f"--{flag} goes with --text; give words, or leave it out")
    if args.prime_seconds and not args.prime:
        raise UserError("--prime_seconds goes with --prime; name a recording, or leave it out")
    args.count = args.count or (1 if piped or args.features_from or args.text is not None
                                else 10)
    args.length = args.length or length("4096")


def _check_pipe(args):
    """Refuse flags that --output - excludes, and a terminal as standard output."""
    for excluded, flag in ((args.count not in (None, 1), f"--count {args.count}"),
                           (args.label == "all", "--label all"), (args.plot, "--plot")):
        if excluded:
            raise UserError(f"--output -: is one sound and no file, {flag} can't go with it; leave "
                            f"the flag out, or name a folder")
    if streams.is_closed():
        raise UserError("--output -: standard output is closed; pipe it to a player, or name a "
                        "folder")
    if sys.stdout.isatty():
        raise UserError("--output -: is for a pipe or a file, not for a terminal; pipe it to a "
                        "player, as at the end of --help")
