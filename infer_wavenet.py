"""Draw sound from a trained WaveNet, from silence or going on from a recording."""

import argparse
import time

from training.arguments import (
    add_device_and_seed,
    non_negative_float,
    parse,
    positive_int,
    run_script,
)

BATCH_SOUNDS = 64  # drawn at once: bounds the memory


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_device_and_seed(parser)
    parser.add_argument("-m", "--model", required=True, metavar="FILE",
                        help="a model file, or the folder of a run, for its best model")
    parser.add_argument("-o", "--output", default="samples/", metavar="DIR",
                        help="folder for sample_0.wav, sample_1.wav, … (default: samples/)")
    parser.add_argument("--label", metavar="N|NAME|all",
                        help="what to draw, if the model has labels (default: 0); all: COUNT "
                             "sounds for each label, sample_NAME_0.wav, …")
    parser.add_argument("-c", "--count", type=positive_int, default=10, metavar="N",
                        help="sounds to draw (default: 10)")
    parser.add_argument("--length", type=positive_int, default=4096, metavar="N",
                        help="samples to draw for each (default: 4096)")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0, metavar="X",
                        help="below 1 more likely sounds, above 1 more varied ones, 0 the most "
                             "likely code of each sample (default: 1.0)")
    parser.add_argument("--prime", metavar="FILE", help="a recording to go on from")
    parser.add_argument("--plot", action="store_true",
                        help="waveform and spectrogram beside each sound, sample_0.png, …")
    network = parser.add_argument_group("network", "The model file knows these; here for checking.")
    for flags in (("--hidden_dim",), ("--out_hidden_dim",), ("-s", "--stacks_num"),
                  ("-l", "--layers_num"), ("--levels",), ("--rate",)):
        network.add_argument(*flags, type=positive_int, metavar="N")
    return parse(parser)


def main():
    """Read the model, draw the sounds, write the files."""
    args = arguments()

    from tqdm import tqdm

    from datasets.files import make_folder
    from sampling.labels import labels_asked, names_for_files
    from sampling.sound import read_codes
    from training.device import device_of
    from training.snapshot import check_flags, load

    model, label_names, data, content = load(args.model, "wavenet")
    rate = data["rate"]
    check_flags(args.model, {**content["config"], "rate": rate}, vars(args))
    labels = labels_asked(label_names, args.label)
    prime = read_codes(args.prime, rate, model.config.levels)
    output = make_folder(args.output, "--output")

    # A sound is its label (or None), and its number for that label.
    sounds = [(label, number) for label in labels for number in range(args.count)]
    names = names_for_files(label_names) if args.label == "all" else None
    model.to(device_of(args.gpu))
    seconds, total = 0.0, len(sounds) * args.length
    with tqdm(total=total, unit="sample", unit_scale=True, disable=None) as bar:
        for begin in range(0, len(sounds), BATCH_SOUNDS):
            batch, began = sounds[begin:begin + BATCH_SOUNDS], time.perf_counter()
            codes = draw(model, batch, prime, args, bar)
            seconds += time.perf_counter() - began
            for (label, number), drawn in zip(batch, codes, strict=True):
                name = f"sample_{names[label]}_{number}" if names else f"sample_{number}"
                title = name if label is None or names else f"{name}, {label_names[label]}"
                write(output / name, prime, drawn, rate, model.config.levels, title, args.plot)
    of = f" of {', '.join(label_names[label] for label in labels)}" if label_names else ""
    print(f"{output}: {len(sounds)} sounds{of}, {total / rate:.3g} s of sound in {seconds:.1f} s, "
          f"{total / seconds:,.0f} samples/s, {total / rate / seconds:.2g} times real time")


def draw(model, batch, prime, args, bar):
    """The codes (sounds, length) that follow `prime` (P,), for a batch of [(label, stream), …]."""
    import torch

    from sampling.draws import Draws
    from sampling.wavenet import sample

    label, stream = map(list, zip(*batch, strict=True))
    label = None if label[0] is None else torch.tensor(label, device=model.logits.weight.device)
    return sample(model, Draws(args.seed, stream), label, args.length, args.temperature,
                  prime=torch.from_numpy(prime).expand(len(batch), -1),
                  on_block=lambda n: bar.update(n * len(batch))).cpu()


def write(path, prime, drawn, rate, levels, title, plot):
    """Write `path`.wav: the codes `prime` (P,), then `drawn` (T,); and `path`.png to `plot` it."""
    import numpy as np

    from datasets.quantization import mu_law_decode
    from sampling.sound import plot_sound, write_wav

    samples = mu_law_decode(np.concatenate((prime, drawn.numpy())), levels)
    write_wav(f"{path}.wav", samples, rate)
    if plot:
        plot_sound(f"{path}.png", samples, rate, title, prime_seconds=len(prime) / rate)


if __name__ == "__main__":
    run_script(main)
