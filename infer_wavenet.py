"""Draw sound from a trained WaveNet: from silence, going on from a recording, or from a text."""

import argparse
import sys
from functools import partial
from pathlib import Path

from cli.arguments import (
    Every,
    every,
    length,
    number_from,
    parse,
    positive_float,
    whole_number,
)
from cli.sampling_arguments import (
    add_network_checks,
    add_randomness,
    add_sources,
    complete_sound_flags,
)
from cli.script import run_script

EXAMPLE = ("to listen to a sound without end while it is drawn, at the model's rate: "
           "python infer_wavenet.py -m MODEL --length 0 -o - | aplay -r 16000 -f S16_LE")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    add_sources(parser)
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
                        help="sounds to draw (default: 10; 1 with --output -, --text or "
                             "--features_from)")
    parser.add_argument("--length", type=length, metavar="N|SECONDSs",
                        help="to draw for each: samples, or seconds such as 30s; 0: until Ctrl+C "
                             "(default: 4096)")
    add_randomness(parser, "sounds", "sample")
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
    parser.add_argument("--text", metavar="WORDS|FILE|-",
                        help="say these words, those in a file, or those that come from standard "
                             "input, with a model that was trained on texts")
    parser.add_argument("--speed", type=number_from(0.5, 2), default=1.0, metavar="X",
                        help="with --text: so many times as fast, 0.5 to 2 (default: 1.0)")
    parser.add_argument("--pitch", type=number_from(0.5, 2), default=1.0, metavar="X",
                        help="with --text: so many times as high, 0.5 to 2 (default: 1.0)")
    parser.add_argument("--save_every", type=every, default=Every(0.5, True), metavar="N[s|m|h]",
                        help="bring the wavs on the disk up to date whenever so many samples are "
                             "drawn, or so much time has passed (default: half a second)")
    parser.add_argument("--plot", action="store_true",
                        help="waveform and spectrogram beside each sound, sample_0.png, …")
    add_network_checks(parser, ("--hidden_dim",), ("--out_hidden_dim",), ("-s", "--stacks_num"),
                       ("-l", "--layers_num"), ("--levels",), ("--rate",))
    return parse(parser)


def main() -> int:
    """Read the models, and write the sounds while they are drawn."""
    args = arguments()
    complete_sound_flags(args)

    # After parsing, because importing torch takes seconds.
    from cli.results_page import plot_sounds, write_sound_page
    from cli.sound_request import differ_in_kind, prepare_output, resolve_sound_requests
    from common.signals import Signals
    from models.model_file import load
    from sampling.output.sound import Progress
    from sampling.sound_rendering import render_sounds
    from training.device import select_device

    requests = resolve_sound_requests(args)
    piped, endless = args.output == "-", not args.length.number
    page = None if piped or not differ_in_kind(requests) else Path(args.output) / "index.html"
    device, drawn = select_device(args.gpu), []
    if not piped:
        prepare_output(args.output, requests, page)
    with Signals("finishing the block in hand") as signals:
        for request in requests:
            total = None if endless or args.text else sum(
                sound.length or 0 for sound in request.sounds)
            with Progress(total, request.rate, request.model.name) as progress:
                model = load(request.model.file, "wavenet").model.to(device)
                seconds = render_sounds(model, request.sounds, request.options,
                                        partial(request.open_output, every=args.save_every),
                                        progress, signals, request.encoding)
            drawn.append((request, seconds, str(progress)))
            print(f"{request.summary(seconds)}, {progress}",
                  file=sys.stderr if piped else sys.stdout)
            if signals.number:
                break
    if endless and not signals.number:
        print("--length 0: ended, since a wav can't hold more", file=sys.stderr)
    if signals.number and not endless:
        return 128 + signals.number
    if args.plot:
        plot_sounds(requests)
    if page:
        write_sound_page(page, drawn, vars(args))
        print(f"{page} shows them beside each other")
    return 0


if __name__ == "__main__":
    run_script(main, "--count")
