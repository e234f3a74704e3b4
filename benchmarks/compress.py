"""Compress images or a recording losslessly with a model, and decode them again.

    python benchmarks/compress.py pixelcnn -m MODEL --data DIR
    python benchmarks/compress.py wavenet -m MODEL --data FILE.wav --label NAME

An entropy coder (constriction's range coder) spends -log2 p bits on a code of probability p. With
the model's conditional probabilities of each sub-pixel or sample, the message therefore has the
length that the model's bits/dim predict. The receiver has the same model: it computes the
probabilities of the first code, decodes the code, and continues with it, just as sampling does with
random numbers in place of the message. Both sides know the labels.

pixelcnn codes the first --items test images of the model's data set, which is in --data.
wavenet codes the recording --data at the model's rate and levels.

Prints the bytes of the message, the bytes that the likelihood predicts (computed by the plain
network in parallel), and the size of the same codes as PNG or FLAC. It is an error if the decoded
codes differ from the coded ones.
"""

import argparse
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import constriction
import numpy as np
import soundfile
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.evaluate import load_test_images
from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.audio.recordings import read_recording
from datasets.batches import evaluation_batches
from datasets.quantization import mu_law_encode, silence
from models.model_file import load
from models.pixelcnn import PixelCNN
from models.wavenet import WaveNet
from sampling.pixelcnn import CachedPixelCNNSampler
from sampling.wavenet import CachedWaveNetSampler
from training import likelihood

CATEGORICAL = constriction.stream.model.Categorical(perfect=False)
Coder = Callable[[torch.Tensor, Any], torch.Tensor]  # (logits, codes or None) -> codes


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("pixelcnn", "wavenet"))
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--data", required=True, metavar="DIR|FILE")
    parser.add_argument("--items", type=positive_int, default=100, help="images (default: 100)")
    parser.add_argument("--label", metavar="NAME", help="label of the recording")
    parser.add_argument("--threads", type=positive_int, default=2)
    return parser.parse_args()


# ------------------------------------------------------------------------------------ coders


class Encoder:
    """Encodes codes into a message."""

    def __init__(self) -> None:
        self.coder = constriction.stream.queue.RangeEncoder()

    def __call__(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Encode codes (B,) with logits (B, levels); return the codes."""
        self.coder.encode(codes.numpy().astype(np.int32), CATEGORICAL, probabilities(logits))
        return codes

    def message(self) -> bytes:
        """The message of all codes so far."""
        return self.coder.get_compressed().tobytes()


class Decoder:
    """Decodes codes from a message."""

    def __init__(self, message: bytes) -> None:
        self.coder = constriction.stream.queue.RangeDecoder(np.frombuffer(message, np.uint32))

    def __call__(self, logits: torch.Tensor, _: None) -> torch.Tensor:
        """Decode the next codes (B,) with their logits (B, levels)."""
        return torch.from_numpy(self.coder.decode(CATEGORICAL, probabilities(logits))).long()


def probabilities(logits: torch.Tensor) -> np.ndarray:
    """The softmax (B, levels); constriction rounds it to positive multiples of 2⁻²⁴."""
    return logits.softmax(dim=1).numpy().astype(np.float64)


def code_images(model: PixelCNN, label: torch.Tensor | None, shape: torch.Size, coder: Coder,
                known: torch.Tensor | None = None) -> torch.Tensor:
    """Encode the images `known` (B, C, H, W), or decode images of `shape`; return their codes."""
    codes = torch.zeros(shape, dtype=torch.long)
    state = CachedPixelCNNSampler(model, label, codes, 0)
    for row in tqdm(range(shape[2]), unit="row", disable=None):
        def code_sub_pixel(logits, column, channel, row=row):
            return coder(logits, None if known is None else known[:, channel, row, column])

        state.fill_row(row, code_sub_pixel)
    return codes


def code_sound(model: WaveNet, label: torch.Tensor | None, length: int, coder: Coder,
               known: torch.Tensor | None = None) -> torch.Tensor:
    """Encode the sound `known` (1, length), or decode one, after silence; return its codes."""
    last = torch.full((1,), silence(model.config.levels))
    state, codes = CachedWaveNetSampler(model, label, last[:, None], "fp32"), []
    for i in tqdm(range(length), unit="sample", unit_scale=True, disable=None):
        last = coder(state.advance(last), None if known is None else known[:, i])
        codes.append(last)
    return torch.stack(codes, dim=1)


# -------------------------------------------------------------------------------------- data


class Source(NamedTuple):
    """Codes to compress, and the figures to compare their size with.

    run: a function (coder, codes, or None to decode) -> codes. nll: in nats per code. other_sizes:
    bytes by format.
    """

    name: str
    codes: torch.Tensor
    run: Callable[[Coder, torch.Tensor | None], torch.Tensor]
    nll: float
    other_sizes: dict[str, int]


def image_source(args: argparse.Namespace) -> Source:
    """Load the test images of the model's data set."""
    file = load(args.model, "pixelcnn")
    model, levels = file.model, file.model.config.levels
    test_set = load_test_images(args.model, file, args.data, args.items)
    nll = likelihood.evaluate(model, evaluation_batches(test_set, 50), torch.device("cpu"))
    codes, _, label, *_ = test_set[np.arange(len(test_set))]
    pixels = codes.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    return Source(
        f"{len(codes)} test images of {file.data['dataset']}", codes,
        lambda coder, known: code_images(model, label, codes.shape, coder, known), nll,
        {"PNG, one for each": sum(len(png(image, levels)) for image in pixels),
         "PNG, one of all": len(png(pixels.reshape(-1, *pixels.shape[2:]), levels))})


def png(codes: np.ndarray, levels: int) -> bytes:
    """Codes (H, W, C) as a PNG file; grey ones with as few bits per pixel as they need."""
    if codes.shape[2] == 1:
        picture = Image.fromarray(codes[:, :, 0], mode="P")
        picture.putpalette([level * 255 // (levels - 1) for level in range(levels)
                            for _ in range(3)])
    else:
        picture = Image.fromarray(codes)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def recording_source(args: argparse.Namespace) -> Source:
    """Load the recording."""
    model, label_names, data, _ = load(args.model, "wavenet")
    if model.config.features:
        raise UserError(f"{args.model}: is conditioned on features; name a model without them")
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
    return Source(
        f"{args.data}, {codes.shape[1] / data['rate']:.1f} s", codes,
        lambda coder, known: code_sound(model, label, codes.shape[1], coder, known), nll,
        {"FLAC": len(buffer.getvalue())} if levels == 256 else {})


def decodes_to(codes: torch.Tensor, message: bytes,
               run: Callable[[Coder, torch.Tensor | None], torch.Tensor]) -> bool:
    """Whether a message decodes to `codes`. run: as in `Source`."""
    try:
        return torch.equal(run(Decoder(message), None), codes)
    except AssertionError:  # from constriction, for a message that no codes encode to
        return False


def main() -> None:
    """Encode, decode, compare."""
    args = arguments()
    torch.set_num_threads(args.threads)
    source = (image_source if args.network == "pixelcnn" else recording_source)(args)
    name, codes, run, nll, other_sizes = source
    encoder = Encoder()
    run(encoder, codes)
    message = encoder.message()
    if not decodes_to(codes, message, run):
        sys.exit("the message does not decode to the coded codes")
    predicted = codes.numel() * nll / math.log(2) / 8
    print(f"{name}: {codes.numel():,} codes, {nll / math.log(2):.4f} bits/dim by the likelihood")
    print(f"coded in {len(message):,} bytes, {8 * len(message) / codes.numel():.4f} bits/dim, "
          f"{len(message) / predicted - 1:+.2%} of the {predicted:,.0f} bytes that this predicts; "
          "decoded again exactly")
    for kind, size in other_sizes.items():
        print(f"{kind}: {size:,} bytes, {size / len(message):.2f} times as many")


if __name__ == "__main__":
    run_script(main)
