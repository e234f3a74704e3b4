"""Draw sound from a trained WaveNet, from silence or going on from a recording."""

import argparse
import sys

from datasets.errors import UserError
from training.arguments import (
    add_device_and_seed,
    length,
    non_negative_float,
    parse,
    positive_int,
    probability,
    run_script,
)

# Drawn at once, and kept of their past: these bound the memory.
BATCH_SOUNDS, BATCH_FLOATS = 64, 2 ** 28
EXAMPLE = ("to listen to a sound without end while it is drawn, at the model's rate: "
           "python infer_wavenet.py -m MODEL --length 0 -o - | aplay -r 16000 -f S16_LE")


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    add_device_and_seed(parser)
    parser.add_argument("-m", "--model", required=True, metavar="FILE",
                        help="a model file, or the folder of a run, for its best model")
    parser.add_argument("-o", "--output", default="samples/", metavar="DIR|-",
                        help="folder for sample_0.wav, sample_1.wav, …, which can be listened to "
                             "while they grow; -: one sound, raw, 16-bit little-endian, to "
                             "standard output (default: samples/)")
    parser.add_argument("--label", metavar="N|NAME|all",
                        help="what to draw, if the model has labels (default: 0); all: COUNT "
                             "sounds for each label, sample_NAME_0.wav, …")
    parser.add_argument("-c", "--count", type=positive_int, metavar="N",
                        help="sounds to draw (default: 10; 1 with --output -)")
    parser.add_argument("--length", type=length, default="4096", metavar="N|SECONDSs",
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
    parser.add_argument("--prime", metavar="FILE", help="a recording to go on from")
    parser.add_argument("--plot", action="store_true",
                        help="waveform and spectrogram beside each sound, sample_0.png, …")
    network = parser.add_argument_group("network", "The model file knows these; here for checking.")
    for flags in (("--hidden_dim",), ("--out_hidden_dim",), ("-s", "--stacks_num"),
                  ("-l", "--layers_num"), ("--levels",), ("--rate",)):
        network.add_argument(*flags, type=positive_int, metavar="N")
    return parse(parser)


def main():
    """Read the model, and write the sounds while they are drawn."""
    args = arguments()
    piped = args.output == "-"
    if piped:
        check_pipe(args)

    from datasets.files import make_folder
    from sampling import sound
    from sampling.labels import labels_asked, names_for_files
    from training.device import device_of
    from training.signals import Signals
    from training.snapshot import check_flags, load

    model, label_names, data, content = load(args.model, "wavenet")
    rate, pcm = data["rate"], sound.pcm_of_codes(model.config.levels)
    check_flags(args.model, {**content["config"], "rate": rate}, vars(args))
    labels = labels_asked(label_names, args.label)
    # A sound is its label (or None), and its number for that label.
    count = args.count or (1 if piped else 10)
    sounds = [(label, number) for label in labels for number in range(count)]
    length = args.length.samples(rate)
    endless = length is None
    kept = model.config.receptive_field * model.config.hidden_dim  # floats of a sound's past
    at_once = max(1, min(BATCH_SOUNDS, BATCH_FLOATS // kept))
    if endless and len(sounds) > at_once:
        raise UserError(f"--length 0: {len(sounds)} sounds are too many to be drawn at once; give "
                        f"a length, or a lower --count, for {at_once} at the most")
    prime = sound.read_codes(args.prime, rate, model.config.levels)
    if not piped:
        length = sound.length_of_wav(length, len(prime), rate)
        folder = make_folder(args.output, "--output")
        names = names_for_files(label_names) if args.label == "all" else None
        paths = [folder / (f"sample_{names[label]}_{number}.wav" if names else
                           f"sample_{number}.wav") for label, number in sounds]
        sound.check_writable(paths)
    model.to(device_of(args.gpu))

    begun = 0
    with (Signals("finishing the block in hand") as signals,
          sound.Progress(None if endless else len(sounds) * length, rate) as progress):
        while begun < len(sounds):
            batch = slice(begun, begun + at_once)
            begun += len(sounds[batch])
            output = (sound.Pipe(sys.stdout.fileno()) if piped else
                      sound.WavFiles(paths[batch], rate))
            sound.record(draw(model, sounds[batch], prime, length, args), output, prime, pcm,
                         progress, signals)
            if signals.number:
                break
    if endless and not signals.number:
        print("--length 0: ended, since a wav can't hold more", file=sys.stderr)
    drawn = dict.fromkeys(label for label, _ in sounds[:begun])
    of = f" of {', '.join(label_names[label] for label in drawn)}" if label_names else ""
    print(f"{'stdout' if piped else folder}: {begun} sound{'s' * (begun > 1)}{of}, {progress}",
          file=sys.stderr if piped else sys.stdout)
    if signals.number and not endless:
        return 128 + signals.number
    if args.plot:
        for path, (label, _) in zip(paths, sounds, strict=True):
            title = path.stem if label is None or names else f"{path.stem}, {label_names[label]}"
            sound.plot_wav(path, title, len(prime) / rate)
    return 0


def check_pipe(args):
    """Refuse the flags that --output - can't go with, and a terminal to write to."""
    for wrong, flag in ((args.count not in (None, 1), f"--count {args.count}"),
                        (args.label == "all", "--label all"), (args.plot, "--plot")):
        if wrong:
            raise UserError(f"--output -: is one sound and no file, {flag} can't go with it; leave "
                            f"the flag out, or name a folder")
    if sys.stdout is None or sys.stdout.isatty():
        raise UserError("--output -: is for a pipe or a file, not for a terminal; pipe it to a "
                        "player, as at the end of --help")


def draw(model, batch, prime, length, args):
    """The codes, (sounds, n) each time, that follow `prime` (P,), for [(label, stream), …]."""
    import torch

    from sampling.draws import Draws
    from sampling.wavenet import sample

    label, stream = map(list, zip(*batch, strict=True))
    label = None if label[0] is None else torch.tensor(label, device=model.logits.weight.device)
    return sample(model, Draws(args.seed, stream), label, length, args.temperature, args.top_p,
                  torch.from_numpy(prime).expand(len(batch), -1), args.precision)


if __name__ == "__main__":
    run_script(main)
