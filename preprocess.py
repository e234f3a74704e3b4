"""Turn a folder of recordings into a corpus of codes for train_wavenet.py.

    python preprocess.py --data vctk/wav/p225 --output corpus
"""

import time
from pathlib import Path

from cli.preprocess_arguments import read_arguments
from cli.preprocess_report import Preparation, print_report
from cli.script import run_script
from datasets.audio.encoding import EncodingConfig
from datasets.audio.features import make_features
from datasets.audio.labels import Labelling, shared_label_warnings
from datasets.audio.recordings import Excerpt, scan_recordings
from datasets.corpus.builder import build_corpus
from datasets.corpus.left_out import write_left_out
from datasets.endings import describe_skipped
from datasets.text.transcripts import Transcripts, unused_warnings

LESS_MEMORY = "--workers"  # the flag to lower if memory runs out


def main():
    """Read, encode, write, report."""
    args, began = arguments(), time.monotonic()
    found, skipped = scan_recordings(args.data)
    root = Path(args.data) if Path(args.data).is_dir() else Path(args.data).parent
    features = make_features(args.features, found, args.rate, args.hop_seconds, args.bins)
    transcripts = (Transcripts(root, args.transcripts and Path(args.transcripts))
                   if args.features == "text" else None)
    labelling = Labelling(root, tuple(args.labels), args.genres)
    config = EncodingConfig(labelling, args.rate, args.levels,
                            Excerpt(args.offset_seconds, args.max_seconds, args.min_seconds),
                            args.silence_threshold, features, args.encoding, transcripts,
                            args.silence_after)
    paths = {path.relative_to(root).as_posix(): path for path in found}
    result = build_corpus(
        paths, config, args.output,
        data=args.data, validation=args.validation, validation_of=args.validation_of,
        strict=args.strict, workers=args.workers, part=args.part, labels=" ".join(args.labels),
        stacks_num=args.stacks_num, layers_num=args.layers_num, target_length=args.target_length,
        flush_every=args.flush_every)

    reasons = {name: problem.removeprefix(f"{paths[name]}: ")
               for name, problem in result.problems.items()}
    reasons |= {path.relative_to(root).as_posix(): "of a kind that is not read"
                for path in skipped}
    left_out = write_left_out(args.output, args.part, reasons)
    warnings = [describe_skipped(skipped)] if skipped else []
    warnings += shared_label_warnings(config.labelling, (path for name, path in paths.items()
                                                         if name not in result.problems))
    warnings += unused_warnings(transcripts, found)
    print_report(Preparation(args.output, args.part, config, bool(args.validation), result,
                             left_out, time.monotonic() - began), warnings)


def arguments():
    """Read the command line."""
    return read_arguments(__doc__)


if __name__ == "__main__":
    run_script(main, LESS_MEMORY)
