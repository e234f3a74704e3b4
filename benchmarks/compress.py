"""Likelihood that is spent: images or a recording coded with a model, and decoded again exactly.

    python benchmarks/compress.py pixelcnn -m MODEL --data DIR
    python benchmarks/compress.py wavenet -m MODEL --data FILE.wav --label NAME

An arithmetic coder (constriction's range coder) spends -log2 p bits on what has probability p. So
with the model's probabilities of each sub-pixel or sample, given all before it, a message is as
long as the model's bits/dim say. The receiver has the model too: it computes the probabilities of
the first code, decodes it, and goes on with it; which is what sampling does, with the message in
place of chance. Labels are taken as known to both sides.

pixelcnn: the first --items test images of the set that the model was trained on, in --data.
wavenet: the recording --data, at the model's rate and levels.

Prints the bytes of the message beside those that the model's likelihood promises, which is
computed by the plain network, all at once, and beside what PNG or FLAC make of the same codes. A
message that isn't decoded to what it was made from is an error.
"""

import argparse
import io
import math
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

import constriction
import numpy as np
import soundfile
import torch
from PIL import Image
from tqdm import tqdm

from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.audio.recordings import read_recording
from datasets.batches import evaluation_batches
from datasets.images.dataset import ImageCodes, load_images
from datasets.quantization import mu_law_encode, silence
from models.model_file import load
from sampling.pixelcnn import CachedPixelCNNSampler
from sampling.wavenet import CachedWaveNetSampler
from training import likelihood

FAMILY = constriction.stream.model.Categorical(perfect=False)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--data", required=True, metavar="DIR|FILE")
    parser.add_argument("--items", type=positive_int, default=100, help="images (default: 100)")
    parser.add_argument("--label", metavar="NAME", help="of the recording")
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser.parse_args()


# ------------------------------------------------------------------------------------ coders


class Encoder:
    """Writes codes into a message, which is `message()` in the end."""

    def __init__(self):
        self.coder = constriction.stream.queue.RangeEncoder()

    def __call__(self, logits, codes):
        """The codes (B,), once they are written; logits (B, levels)."""
        self.coder.encode(codes.numpy().astype(np.int32), FAMILY, probabilities(logits))
        return codes

    def message(self):
        """Bytes."""
        return self.coder.get_compressed().tobytes()


class Decoder:
    """Reads codes from a message."""

    def __init__(self, message):
        self.coder = constriction.stream.queue.RangeDecoder(np.frombuffer(message, np.uint32))

    def __call__(self, logits, _):
        """The next codes (B,), of which nothing is known but their logits (B, levels)."""
        return torch.from_numpy(self.coder.decode(FAMILY, probabilities(logits))).long()


def probabilities(logits):
    """For constriction, which makes fractions of 2²⁴ of them, none of them 0: (B, levels)."""
    return logits.softmax(dim=1).numpy().astype(np.float64)


def through_pixelcnn(model, label, shape, code, known=None):
    """Images (B, C, H, W), from `code`, an Encoder of the `known` ones or a Decoder."""
    codes = torch.zeros(shape, dtype=torch.long)
    state = CachedPixelCNNSampler(model, label, codes, 0)
    for row in tqdm(range(shape[2]), unit="row", disable=None):
        state.fill_row(row, lambda logits, column, channel, row=row: code(
            logits, None if known is None else known[:, channel, row, column]))
    return codes


def through_wavenet(model, label, length, code, known=None):
    """A sound (1, length), begun from silence, from `code`, as with images."""
    last = torch.full((1,), silence(model.config.levels))
    state, codes = CachedWaveNetSampler(model, label, last[:, None], "fp32"), []
    for number in tqdm(range(length), unit="sample", unit_scale=True, disable=None):
        last = code(state.advance(last), None if known is None else known[:, number])
        codes.append(last)
    return torch.stack(codes, dim=1)


# -------------------------------------------------------------------------------------- what


def images(args):
    """(name, codes, what codes them, nats a code, {other format: its bytes}).

    What codes them is a function through(code, known) -> codes, as of `through_pixelcnn`.
    """
    model, label_names, data, _ = load(args.model, "pixelcnn")
    if model.config.vector:
        raise UserError(f"{args.model}: is conditioned on vectors; name a model of classes or none")
    dataset, levels = data["dataset"], model.config.levels
    test = load_images(dataset, args.data, data["height"], data["width"], validation=0,
                       condition="class" if label_names else "none").test
    if test is None:
        raise UserError(f"{args.model}: was trained on a folder of pictures, which has no test "
                        "images; name a model of a published set")
    test = ImageCodes(*test.take(slice(args.items)), levels, data["binarize"], fixed=True)
    nll = likelihood.evaluate(model, evaluation_batches(test, 50), torch.device("cpu"))
    codes, _, label, *_ = test[np.arange(len(test))]
    shown = codes.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    return (f"{len(codes)} test images of {dataset}", codes,
            lambda code, known: through_pixelcnn(model, label, codes.shape, code, known), nll,
            {"PNG, one for each": sum(len(png(image, levels)) for image in shown),
             "PNG, one of all": len(png(shown.reshape(-1, *shown.shape[2:]), levels))})


def png(codes, levels):
    """Codes (H, W, C) as a PNG file: bytes. Grey ones at as few bits a pixel as they need."""
    if codes.shape[2] == 1:
        picture = Image.fromarray(codes[:, :, 0], mode="P")
        picture.putpalette([level * 255 // (levels - 1) for level in range(levels)
                            for _ in range(3)])
    else:
        picture = Image.fromarray(codes)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def recording(args):
    """The same of a recording."""
    model, label_names, data, _ = load(args.model, "wavenet")
    if model.config.features:
        raise UserError(f"{args.model}: is conditioned on features; name a model without")
    if label_names and args.label not in label_names:
        raise UserError(f"--label {args.label}: name one of {', '.join(label_names)}")
    label = torch.tensor([label_names.index(args.label)]) if label_names else None
    levels = model.config.levels
    codes = torch.from_numpy(mu_law_encode(read_recording(args.data, data["rate"]), levels)[0])
    codes = codes[None].long()
    before = torch.full((1, model.config.receptive_field), silence(levels))
    with torch.inference_mode():
        logits = model(torch.cat((before, codes[:, :-1]), dim=1), label)
    nll = torch.nn.functional.cross_entropy(logits, codes).item()
    buffer = io.BytesIO()
    if levels == 256:
        soundfile.write(buffer, (codes[0].numpy() - 128).astype(np.int16) << 8, data["rate"],
                        format="FLAC", subtype="PCM_S8")
    return (f"{args.data}, {codes.shape[1] / data['rate']:.1f} s", codes,
            lambda code, known: through_wavenet(model, label, codes.shape[1], code, known), nll,
            {"FLAC": len(buffer.getvalue())} if levels == 256 else {})


def is_read_as(codes, message, through):
    """Whether `codes` are what a message is decoded to."""
    try:
        return torch.equal(through(Decoder(message), None), codes)
    except AssertionError:  # constriction's, of what no code can have been written as
        return False


def main():
    """Encode, decode, compare."""
    args = arguments()
    torch.set_num_threads(args.threads)
    name, codes, through, nll, beside = images(args) if args.network == "pixelcnn" else (
        recording(args))
    encoder = Encoder()
    through(encoder, codes)
    message = encoder.message()
    if not is_read_as(codes, message, through):
        sys.exit("the message was decoded to something else")
    promised = codes.numel() * nll / math.log(2) / 8
    print(f"{name}: {codes.numel():,} codes, {nll / math.log(2):.4f} bits/dim by the likelihood")
    print(f"coded in {len(message):,} bytes, {8 * len(message) / codes.numel():.4f} bits/dim, "
          f"{len(message) / promised - 1:+.2%} of the {promised:,.0f} bytes that this promises; "
          "decoded again exactly")
    for kind, size in beside.items():
        print(f"{kind}: {size:,} bytes, {size / len(message):.2f} times as many")


if __name__ == "__main__":
    run_script(main)
