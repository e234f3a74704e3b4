"""Turn a folder of recordings into a corpus of mu-law codes for train_wavenet.py.

    python preprocess.py --data vctk/wav/p225 --output corpus
"""

import argparse
import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path

from datasets.audio import find_recordings
from datasets.corpus import Corpus, CorpusWriter, validation_names
from datasets.encoding import encoded
from datasets.errors import UserError
from datasets.labels import KINDS, label_of
from training.arguments import fraction, parse, positive_int, run_script

LISTED = 10  # recordings left out that are named


def main():
    """Read, encode, write, report."""
    args, began = arguments(), time.monotonic()
    found = find_recordings(args.data)
    root = Path(args.data) if Path(args.data).is_dir() else Path(args.data).parent
    paths = {path.relative_to(root).as_posix(): path for path in found}
    problems = {}  # name -> why it is left out
    while True:
        readable = {name: path for name, path in paths.items() if name not in problems}
        with CorpusWriter(args.output, rate=args.rate, levels=args.levels, labels=args.labels,
                          stacks_num=args.stacks_num, layers_num=args.layers_num,
                          target_length=args.target_length, flush_every=args.flush_every) as writer:
            clipped = fill(writer, readable, root, args, problems)
            if len(problems) == len(paths):
                raise UserError(f"--data {args.data}: no recording in it can be read, the first: "
                                + problems[next(iter(paths))])
            wanted = validation_names(paths.keys() - problems.keys(), args.validation)
            if writer.recordings["train"] and bool(writer.recordings["validation"]) == bool(wanted):
                writer.close()
                break
        # What can't be read was all there was of one part: choose again among the others.
    report(args, clipped, problems, time.monotonic() - began)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default=".", metavar="DIR", help="folder with the recordings (default: .)")
    add("--output", default=".", metavar="DIR", help="folder for the corpus (default: .)")
    add("--workers", type=positive_int, default=8, metavar="N", help="processes (default: 8)")
    add("--rate", type=positive_int, default=8000, metavar="HZ",
        help="samples a second that recordings are brought to (default: 8000)")
    add("--stacks_num", type=positive_int, default=5, metavar="N",
        help="stacks of layers in the network to be trained (default: 5)")
    add("--layers_num", type=positive_int, default=10, metavar="N",
        help="layers in each stack (default: 10)")
    add("--target_length", type=positive_int, default=1600, metavar="N",
        help="samples predicted in one window (default: 1600)")
    add("--flush_every", type=positive_int, default=10240, metavar="N",
        help="windows in one file of the corpus (default: 10240)")
    add("--levels", type=positive_int, default=256, metavar="N",
        help="mu-law levels, 2 to 65536 (default: 256)")
    add("--labels", choices=KINDS, default="folder",
        help="what the network is conditioned on: each recording's folder, its speaker (from the "
             "file name), or nothing (default: folder)")
    add("--validation", type=fraction, default=0.1, metavar="X",
        help="fraction of the recordings held back for validation (default: 0.1)")
    return parse(parser)


def fill(writer, paths, root, args, problems):
    """Add the recordings {name: path} to the corpus; the number of samples that were clipped.

    Those that can't be read go into `problems`, {name: why}.
    """
    held_back, clipped = validation_names(paths, args.validation), 0
    for (name, path), (codes, outside, problem) in zip(
            paths.items(), encoded(list(paths.values()), args.rate, args.levels, args.workers),
            strict=True):
        if problem:
            problems[name] = problem
        else:
            writer.add("validation" if name in held_back else "train", name,
                       label_of(path, root, args.labels), codes)
            clipped += outside
    return clipped


def report(args, clipped, problems, seconds):
    """Say what was written, what wasn't, and what comes next."""
    corpus = Corpus(args.output)
    train, validation = (sum(recording.length for recording in part.recordings)
                         for part in (corpus.train, corpus.validation))
    count = len(corpus.train.recordings) + len(corpus.validation.recordings)
    length = timedelta(seconds=round((train + validation) / args.rate))
    print(f"{count} recordings read, {length} of sound, in {seconds:.1f} s; {len(problems)} left "
          f"out; {len(corpus.validation.recordings)} held back for validation; labels: "
          f"{', '.join(corpus.label_names[:LISTED]) or 'none'}"
          + f" and {len(corpus.label_names) - LISTED} more" * (len(corpus.label_names) > LISTED))
    if clipped:
        print(f"{clipped} samples beyond full scale were clipped")
    for problem in list(problems.values())[:LISTED]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(problems) > LISTED:
        print(f"and {len(problems) - LISTED} more left out", file=sys.stderr)
    print(f"written to {args.output}; next: "
          f"python train_wavenet.py --data {shlex.quote(args.output)}")


if __name__ == "__main__":
    run_script(main)
