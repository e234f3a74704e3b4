"""Draw sound from a trained WaveNet, from silence or going on from a recording."""

import argparse
import sys
from datetime import datetime
from pathlib import Path

from cli import streams
from cli.arguments import (
    Every,
    add_device_and_seed,
    add_models,
    every,
    length,
    non_negative_float,
    parse,
    positive_float,
    positive_int,
    probability,
    whole_number,
)
from cli.script import run_script
from common.errors import UserError

EXAMPLE = ("to listen to a sound without end while it is drawn, at the model's rate: "
           "python infer_wavenet.py -m MODEL --length 0 -o - | aplay -r 16000 -f S16_LE")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    add_device_and_seed(parser)
    add_models(parser)
    parser.add_argument("-o", "--output", default="samples/", metavar="DIR|-",
                        help="folder for sample_0.wav, sample_1.wav, …, which can be listened to "
                             "while they grow, and, of several models, labels or primes, for "
                             "index.html, a page that shows them beside each other; -: one sound, "
                             "raw, 16-bit little-endian, to standard output (default: samples/)")
    parser.add_argument("--timestamp", action="store_true",
                        help="name the sounds pred_TIMESTAMP.wav, so that none takes another's "
                             "place")
    parser.add_argument("--label", metavar="N|NAME|all",
                        help="what to draw, if the model has labels (default: 0); all: COUNT "
                             "sounds for each label, sample_NAME_0.wav, …")
    parser.add_argument("-c", "--count", type=whole_number(1, 100_000), metavar="N",
                        help="sounds to draw (default: 10; 1 with --output - or "
                             "--features_from)")
    parser.add_argument("--length", type=length, metavar="N|SECONDSs",
                        help="to draw for each: samples, or seconds such as 30s; 0: until Ctrl+C "
                             "(default: 4096)")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0, metavar="X",
                        help="below 1 more likely sounds, above 1 more varied ones, 0 the most "
                             "likely code of each sample (default: 1.0)")
    parser.add_argument("--top_p", type=probability, default=1.0, metavar="X",
                        help="draw among the most probable codes that together have this "
                             "probability (default: 1.0)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32",
                        help="bf16: weights rounded to 16 bits, which is faster on the CPU "
                             "(default: fp32)")
    parser.add_argument("--prime", metavar="FILE|DIR",
                        help="a recording to go on from, or a folder of them, for COUNT "
                             "sounds each")
    parser.add_argument("--prime_seconds", type=positive_float, metavar="S",
                        help="and of it no more than this, from its beginning")
    parser.add_argument("--features_from", metavar="FILE|DIR",
                        help="say what the features of a recording say, or those in a .npy, or all "
                             "in a folder of them; as long as they are")
    parser.add_argument("--save_every", type=every, default=Every(0.5, True), metavar="N[s|m|h]",
                        help="bring the wavs on the disk up to date whenever so many samples are "
                             "drawn, or so much time has passed (default: half a second)")
    parser.add_argument("--plot", action="store_true",
                        help="waveform and spectrogram beside each sound, sample_0.png, …")
    network = parser.add_argument_group("network", "The model file knows these; here for checking.")
    for flags in (("--hidden_dim",), ("--out_hidden_dim",), ("-s", "--stacks_num"),
                  ("-l", "--layers_num"), ("--levels",), ("--rate",)):
        network.add_argument(*flags, type=positive_int, metavar="N")
    return parse(parser)


def main():
    """Read the models, and write the sounds while they are drawn."""
    args = arguments()
    piped = args.output == "-"
    if piped:
        check_pipe(args)
    for flag in ("prime", "length"):
        if args.features_from and getattr(args, flag):
            raise UserError(f"--{flag}: can't go with --features_from, which says it; leave it out")
    if args.prime_seconds and not args.prime:
        raise UserError("--prime_seconds goes with --prime; name a recording, or leave it out")
    args.count = args.count or (1 if piped or args.features_from else 10)
    args.length = args.length or length("4096")

    from cli import sound_request as takes
    from common.files import make_folder
    from common.signals import Signals
    from models.model_file import files_asked, load
    from sampling.output import sound, sound_page
    from training.device import select_device

    stem = f"pred_{datetime.now():%Y%m%d-%H%M%S}" if args.timestamp else "sample"
    sessions = takes.sessions(files_asked(args.model, "wavenet", args.snapshots),
                              None if piped else Path(args.output), stem, args)
    device, done = select_device(args.gpu), []
    page = Path(args.output) / "index.html" if takes.comparable(sessions) and not piped else None
    if not piped:
        make_folder(args.output, "--output")
        for session in sessions:
            make_folder(session.folder, "--output")
            sound.check_writable([take.path for take in session.takes])
        sound.check_writable([page] * bool(page))

    def output_of(batch):
        return (sound.Pipe(sys.stdout.fileno()) if piped else
                sound.WavFiles([take.path for take in batch], session.rate, args.save_every))

    endless = not args.length.number
    with Signals("finishing the block in hand") as signals:
        for session in sessions:
            total = None if endless else sum(take.length for take in session.takes)
            with sound.Progress(total, session.rate, session.name) as progress:
                seconds = takes.perform(load(session.file, "wavenet").model.to(device),
                                        session.takes, output_of, progress, signals, args)
            done.append((session, seconds, str(progress)))
            print(f"{session.told(seconds)}, {progress}",
                  file=sys.stderr if piped else sys.stdout)
            if signals.number:
                break
    if endless and not signals.number:
        print("--length 0: ended, since a wav can't hold more", file=sys.stderr)
    if signals.number and not endless:
        return 128 + signals.number
    if args.plot:
        sound_page.plot(sessions)
    if page:
        sound_page.write(page, done, vars(args))
        print(f"{page} shows them beside each other")
    return 0


def check_pipe(args):
    """Refuse the flags that --output - can't go with, and a terminal to write to."""
    for wrong, flag in ((args.count not in (None, 1), f"--count {args.count}"),
                        (args.label == "all", "--label all"), (args.plot, "--plot")):
        if wrong:
            raise UserError(f"--output -: is one sound and no file, {flag} can't go with it; leave "
                            f"the flag out, or name a folder")
    if streams.is_closed():
        raise UserError("--output -: standard output is closed; pipe it to a player, or name a "
                        "folder")
    if sys.stdout.isatty():
        raise UserError("--output -: is for a pipe or a file, not for a terminal; pipe it to a "
                        "player, as at the end of --help")


if __name__ == "__main__":
    run_script(main, "--count")
