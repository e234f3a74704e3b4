"""The command line of preprocess.py. Does not import torch: --help is instant."""

import argparse
import re

from cli.arguments import (
    fraction,
    non_negative_float,
    parse,
    positive_float,
    positive_int,
    whole_number,
)
from datasets.audio.features import KINDS as FEATURES
from datasets.audio.labels import KINDS as LABELS
from datasets.audio.recordings import HIGHEST_RATE, LOWEST_RATE
from datasets.corpus.manifest import ENTIRE_CORPUS, CorpusPart
from datasets.corpus.splitting import UNITS
from datasets.quantization import ENCODINGS


def read_arguments(description: str) -> argparse.Namespace:
    """Read the command line. description: of the script, its first line is for --help.

    Raises UserError for flags that contradict each other.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    _add_work(parser.add_argument)
    _add_network(parser.add_argument)
    _add_recordings(parser.add_argument)
    _add_features(parser.add_argument)
    parser.add_argument("--strict", action="store_true",
                        help="treat a recording that can't be used as an error, instead of leaving "
                             "it out")
    args = parse(parser)
    if args.genres and "genre" not in args.labels:
        parser.error("--genres goes with --labels genre")
    if "none" in args.labels and len(args.labels) > 1:
        parser.error("--labels none: stands alone; leave it or the others out")
    if args.validation_of == "each" and isinstance(args.validation, str):
        parser.error(f"--validation {args.validation}: must be a fraction, such as 0.1, with "
                     "--validation_of each")
    for name in ("silence_threshold", "max_seconds", "offset_seconds", "silence_after"):
        unchanged = {"npy": "features", "text": "words"}.get(args.features)
        if unchanged and getattr(args, name):
            parser.error(f"--{name}: changes recordings, and not the {unchanged} that --features "
                         f"{args.features} takes; change both beforehand, and leave it out")
    if args.silence_after and args.validation_of == "each":
        parser.error("--silence_after: would follow only what is held back of each recording; "
                     "leave it or --validation_of each out")
    if args.features == "text" and args.validation_of == "each":
        parser.error("--validation_of each: cuts recordings, and not the words that --features "
                     "text takes; leave it out")
    if args.transcripts and args.features != "text":
        parser.error("--transcripts goes with --features text")
    return args


def _add_work(add):
    add("--data", default=".", metavar="DIR", help="folder with the recordings (default: .)")
    add("--output", default=".", metavar="DIR", help="folder for the corpus (default: .)")
    add("--workers", type=whole_number(1, 256), default=8, metavar="N",
        help="processes (default: 8)")
    add("--part", type=corpus_part, default=ENTIRE_CORPUS, metavar="I/N",
        help="prepare only part I of N, on each of N machines; training reads all parts in one "
             "folder as the whole corpus (default: 1/1)")


def _add_network(add):
    add("--rate", type=sampling_rate, default=8000, metavar="HZ",
        help="resample recordings to this many samples a second (default: 8000)")
    add("--stacks_num", type=whole_number(1, 4096), default=5, metavar="N",
        help="stacks of layers in the network to be trained (default: 5)")
    add("--layers_num", type=whole_number(1, 24), default=10, metavar="N",
        help="layers in each stack (default: 10)")
    add("--target_length", type=positive_int, default=1600, metavar="N",
        help="samples predicted in one window (default: 1600)")
    add("--flush_every", type=positive_int, default=10240, metavar="N",
        help="windows in one file of the corpus (default: 10240)")
    add("--levels", type=positive_int, default=256, metavar="N",
        help="values of a sample, 2 to 65536; more than 256 are for train_wavenet.py "
             "--distribution logistics (default: 256)")
    add("--encoding", choices=ENCODINGS, default="mulaw",
        help="how samples become these values: mulaw, finer where the sound is quiet; or linear, "
             "which with 65536 levels keeps 16-bit sound as it is (default: mulaw)")


def _add_recordings(add):
    add("--labels", type=label_kind, nargs="+", default=["folder"],
        metavar="|".join(LABELS) + "|REGEX",
        help="what the network is conditioned on: nothing; each recording's folder; its speaker, "
             "from the file name; genre or year, from the tags in the file; or the first group of "
             "a regular expression, found in the path below --data; of several, the first that "
             "gives a recording a label (default: folder)")
    add("--genres", type=genre_list, default=(), metavar="A,B,…",
        help="with --labels genre: fold sub-genres into these, such as metalcore into metal, and "
             "leave others out")
    add("--validation", type=fraction_or_expression, default=0.1, metavar="X|REGEX",
        help="fraction of the recordings to hold back for validation, or a regular expression that "
             "is found in their paths (default: 0.1)")
    add("--validation_of", choices=UNITS, default="recordings",
        help="what --validation is a fraction of: the recordings; or each recording, whose end is "
             "held back, as suits a few long ones (default: recordings)")
    add("--min_seconds", type=non_negative_float, default=0, metavar="S",
        help="leave out shorter recordings")
    add("--max_seconds", type=positive_float, default=0, metavar="S",
        help="read at most this much of each")
    add("--offset_seconds", type=non_negative_float, default=0, metavar="S",
        help="and skip this much at its beginning (default: 0)")
    add("--silence_threshold", type=non_negative_float, default=0, metavar="X",
        help="cut off a recording's beginning and end if their root mean square is below this, "
             "full scale being 1 (default: 0, cut nothing)")
    add("--silence_after", type=few_seconds, default=0, metavar="S",
        help="follow each recording with this much silence, so that a network learns where a sound "
             "ends, as suits single words (default: 0)")


def _add_features(add):
    add("--features", choices=FEATURES, default="none",
        help="what else the network is conditioned on, frame by frame: nothing; log-mel spectra of "
             "the recordings; arrays (frames, width) in NAME.npy next to NAME.wav; or what the "
             "recordings say, in English (default: none)")
    add("--transcripts", metavar="FILE",
        help="with --features text: a file of lines NAME: TEXT, or LJSpeech's metadata.csv "
             "(default: NAME.txt next to NAME.wav, VCTK's folder txt, or transcripts.txt or "
             "metadata.csv in or above the folder of the recordings)")
    add("--hop_seconds", type=positive_float, default=0.0125, metavar="S",
        help="sound that each frame of the features covers, rounded to samples (default: 0.0125)")
    add("--bins", type=positive_int, default=80, metavar="N",
        help="numbers in a mel spectrum of --features mel and text (default: 80)")


def few_seconds(text: str) -> float:
    """Parse a time from 0 to a minute."""
    number = non_negative_float(text)
    if number > 60:
        raise argparse.ArgumentTypeError(f"{text} is more than 60 seconds")
    return number


def sampling_rate(text: str) -> int:
    """Parse a rate in whole Hz that recordings may have."""
    number = positive_int(text)
    if not LOWEST_RATE <= number <= HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is not from {LOWEST_RATE} to {HIGHEST_RATE}")
    return number


def corpus_part(text: str) -> CorpusPart:
    """Parse I/N, part I of N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    part = CorpusPart(*map(int, match.groups())) if match else None
    if not part or not 1 <= part.number <= part.count:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a whole, such as 2/8")
    return part


def label_kind(text: str) -> str:
    """Parse a kind of label: one of LABELS, or a regular expression with a group."""
    if text not in LABELS and not expression(text).groups:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither one of {', '.join(LABELS)} nor a regular expression with a "
            "group, such as '(p[0-9]+)_'")
    return text


def genre_list(text: str) -> tuple[str, ...]:
    """Parse genres separated by commas."""
    names = tuple(name.strip().casefold() for name in text.split(","))
    if not all(re.fullmatch(r"\w+", name) for name in names):
        raise argparse.ArgumentTypeError(f"{text!r}: give single words with commas between them, "
                                         "such as metal,rock")
    return names


def fraction_or_expression(text: str) -> float | str:
    """Parse a number from 0 up to 1, without 1, or the text of a regular expression."""
    try:
        float(text)
    except ValueError:
        return expression(text).pattern
    return fraction(text)


def expression(text: str) -> re.Pattern[str]:
    """Parse a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
