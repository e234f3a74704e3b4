"""Turn a folder of recordings into a corpus of mu-law codes for train_wavenet.py.

    python preprocess.py --data vctk/wav/p225 --output corpus
"""

import argparse
import re
import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path

from cli.arguments import (
    fraction,
    non_negative_float,
    parse,
    positive_float,
    positive_int,
    whole_number,
)
from cli.script import run_script
from common.text import printable
from datasets.audio.encoding import EncodingConfig
from datasets.audio.features import KINDS as FEATURES
from datasets.audio.features import describe
from datasets.audio.labels import KINDS, Labelling, shared_labels
from datasets.audio.recordings import FASTEST, SLOWEST, Excerpt, search, told
from datasets.corpus.builder import build_corpus
from datasets.corpus.left_out import write_list
from datasets.corpus.manifest import ENTIRE_CORPUS, CorpusPart
from datasets.corpus.summary import draw, sparse, table

LISTED = 10  # recordings that are named
SMALLER = "--workers"  # what takes less memory when lower


def main():
    """Read, encode, write, report."""
    args, began = arguments(), time.monotonic()
    found, passed_over = search(args.data)
    root = Path(args.data) if Path(args.data).is_dir() else Path(args.data).parent
    features = describe(args.features, found, args.rate, args.hop_seconds, args.bins)
    recipe = EncodingConfig(Labelling(root, args.labels, args.genres), args.rate, args.levels,
                    Excerpt(args.offset_seconds, args.max_seconds, args.min_seconds),
                    args.silence_threshold, features)
    paths = {path.relative_to(root).as_posix(): path for path in found}
    gathered = build_corpus(
        paths, recipe, args.output,
        data=args.data, validation=args.validation, strict=args.strict, workers=args.workers,
        share=args.part, labels=args.labels, stacks_num=args.stacks_num,
        layers_num=args.layers_num, target_length=args.target_length, flush_every=args.flush_every)
    reasons = {name: problem.removeprefix(f"{paths[name]}: ")
               for name, problem in gathered.problems.items()}
    reasons |= {path.relative_to(root).as_posix(): "of a kind that is not read"
                for path in passed_over}
    warnings = [told(passed_over)] if passed_over else []
    warnings += shared_labels(recipe.labelling, (path for name, path in paths.items()
                                                 if name not in gathered.problems))
    report(args, features, gathered, warnings, write_list(args.output, args.part, reasons),
           time.monotonic() - began)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default=".", metavar="DIR", help="folder with the recordings (default: .)")
    add("--output", default=".", metavar="DIR", help="folder for the corpus (default: .)")
    add("--workers", type=whole_number(1, 256), default=8, metavar="N",
        help="processes (default: 8)")
    add("--part", type=share, default=ENTIRE_CORPUS, metavar="I/N",
        help="prepare only part I of N, as on each of N machines; training reads the parts in one "
             "folder as the whole (default: 1/1)")
    add("--rate", type=rate, default=8000, metavar="HZ",
        help="samples a second that recordings are brought to (default: 8000)")
    add("--stacks_num", type=whole_number(1, 4096), default=5, metavar="N",
        help="stacks of layers in the network to be trained (default: 5)")
    add("--layers_num", type=whole_number(1, 24), default=10, metavar="N",
        help="layers in each stack (default: 10)")
    add("--target_length", type=positive_int, default=1600, metavar="N",
        help="samples predicted in one window (default: 1600)")
    add("--flush_every", type=positive_int, default=10240, metavar="N",
        help="windows in one file of the corpus (default: 10240)")
    add("--levels", type=positive_int, default=256, metavar="N",
        help="mu-law levels, 2 to 65536 (default: 256)")
    add("--labels", type=label_kind, default="folder", metavar="|".join(KINDS) + "|REGEX",
        help="what the network is conditioned on: nothing; each recording's folder; its speaker, "
             "from the file name; genre or year, from the tags in the file; or the first group of "
             "a regular expression, found in the path below --data (default: folder)")
    add("--genres", type=genre_list, default=(), metavar="A,B,…",
        help="with --labels genre: fold sub-genres into these, as metalcore into metal, and leave "
             "others out")
    add("--validation", type=fraction_or_expression, default=0.1, metavar="X|REGEX",
        help="fraction of the recordings held back for validation, or what is found in the paths "
             "of those (default: 0.1)")
    add("--min_seconds", type=non_negative_float, default=0, metavar="S",
        help="leave out shorter recordings")
    add("--max_seconds", type=positive_float, default=0, metavar="S",
        help="read no more than this of each")
    add("--offset_seconds", type=non_negative_float, default=0, metavar="S",
        help="and begin so late in it (default: 0)")
    add("--silence_threshold", type=non_negative_float, default=0, metavar="X",
        help="cut off a recording's beginning and end where the root mean square is below this, "
             "full scale being 1 (default: 0, nothing)")
    add("--features", choices=FEATURES, default="none",
        help="what the network is conditioned on from moment to moment: nothing; log-mel spectra "
             "of the recordings; or arrays (frames, width) in NAME.npy beside NAME.wav (default: "
             "none)")
    add("--hop_seconds", type=positive_float, default=0.0125, metavar="S",
        help="sound that each frame of the features covers, rounded to samples (default: 0.0125)")
    add("--bins", type=positive_int, default=80, metavar="N",
        help="numbers in a frame of --features mel (default: 80)")
    add("--strict", action="store_true",
        help="a recording that can't be used is an error, instead of being left out")
    args = parse(parser)
    if args.genres and args.labels != "genre":
        parser.error("--genres goes with --labels genre")
    for name in ("silence_threshold", "max_seconds", "offset_seconds"):
        if args.features == "npy" and getattr(args, name):
            parser.error(f"--{name}: cuts recordings, and not the features that --features npy "
                         "takes; cut both beforehand, and leave it out")
    return args


def rate(text):
    """A whole number of Hz, within what recordings have."""
    number = positive_int(text)
    if not SLOWEST <= number <= FASTEST:
        raise argparse.ArgumentTypeError(f"{text} is not from {SLOWEST} to {FASTEST}")
    return number


def share(text):
    """I/N: a Share."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    found = CorpusPart(*map(int, match.groups())) if match else None
    if not found or not 1 <= found.number <= found.count:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a whole, such as 2/8")
    return found


def label_kind(text):
    """A way of labelling: one of KINDS, or a regular expression with a group."""
    if text not in KINDS and not expression(text).groups:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither one of {', '.join(KINDS)} nor a regular expression with a group, "
            "such as '(p[0-9]+)_'")
    return text


def genre_list(text):
    """Genres with commas between them: a tuple."""
    names = tuple(name.strip().casefold() for name in text.split(","))
    if not all(re.fullmatch(r"\w+", name) for name in names):
        raise argparse.ArgumentTypeError(f"{text!r}: give single words with commas between them, "
                                         "such as metal,rock")
    return names


def fraction_or_expression(text):
    """A number from 0 up to 1, or a regular expression (text)."""
    try:
        float(text)
    except ValueError:
        return expression(text).pattern
    return fraction(text)


def expression(text):
    """A compiled regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def report(args, features, gathered, warnings, left_out, seconds):
    """Say what was written, what wasn't, and what comes next."""
    names = sorted({entry.label for entry in gathered.entries} - {None})
    picture = Path(args.output, f"{args.part.stem.replace('vctk', 'corpus')}.png")
    length = timedelta(seconds=round(sum(entry.seconds for entry in gathered.entries)))
    held_back = sum(entry.held_back for entry in gathered.entries)
    print(f"{len(gathered.entries)} recordings read, {length} of sound, in {seconds:.1f} s; "
          f"{len(gathered.problems)} left out; {held_back} held back for validation; labels: "
          f"{', '.join(map(printable, names[:LISTED])) or 'none'}"
          + f" and {len(names) - LISTED} more" * (len(names) > LISTED))
    if gathered.entries:
        for line in table(gathered.entries):
            print(line)
        draw(gathered.entries, picture)
    if features:
        print(f"features: {features.told()}")
    if gathered.clipped:
        print(f"{gathered.clipped} samples beyond full scale were clipped")
    if args.silence_threshold:
        print(f"{gathered.silent / args.rate:.1f} s of silence at beginnings and ends were cut off")
    if gathered.notes:
        count = len(gathered.notes)
        print("1 recording has less than its header says; used as far as it goes" if count == 1 else
              f"{count} recordings have less than their headers say; used as far as they go")
    list_some("left out", gathered.problems.values())
    list_some("used as far as it goes", gathered.notes.values())
    for warning in [*warnings, *sparse(gathered.entries), *lacking(args, gathered.entries)]:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    written = f"written to {args.output}"
    if gathered.entries:
        written += f", drawn in {picture}"
    if left_out:
        written += f", what is left out is in {left_out}"
    following = "next"
    if args.part != ENTIRE_CORPUS:
        following += f", with all {args.part.count} parts in one folder"
    print(f"{written}; {following}: python train_wavenet.py --data {shlex.quote(args.output)}")


def list_some(what, lines):
    """Say the first of the `lines` on stderr, and how many more there are."""
    for line in list(lines)[:LISTED]:
        print(f"{what}: {printable(line)}", file=sys.stderr)
    if len(lines) > LISTED:
        print(f"and {len(lines) - LISTED} more {what}", file=sys.stderr)


def lacking(args, entries):
    """A warning for a part of a corpus that only the others make up for."""
    part = f"part {args.part.number} of {args.part.count}"
    if args.part != ENTIRE_CORPUS and not entries:
        return [f"{part} holds no recording; the others have to"]
    has_validation = any(entry.held_back for entry in entries)
    if args.part != ENTIRE_CORPUS and args.validation and not has_validation:
        return [f"{part} holds no recording for validation; the others have to"]
    return []


if __name__ == "__main__":
    run_script(main, SMALLER)
