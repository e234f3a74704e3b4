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

A code of more than 256 levels is coded in two halves: which 256 codes it is among, by differences
of the cumulative probability, then which of these it is. So no table has an entry for each level.

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
from datasets.quantization import encode_sound, silence
from models import distributions
from models.distributions import Distribution
from models.model_file import load
from models.pixelcnn import PixelCNN
from models.wavenet import WaveNet
from sampling.pixelcnn import CachedPixelCNNSampler
from sampling.wavenet import CachedWaveNetSampler
from training import likelihood

CATEGORICAL = constriction.stream.model.Categorical(perfect=False)
# (distribution, its parameters (B, n), codes (B,) or None) -> codes
Coder = Callable[[Distribution, torch.Tensor, Any], torch.Tensor]
TABLE = 256  # the most codes whose probabilities are listed


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

    def __call__(self, distribution: Distribution, parameters: torch.Tensor,
                 codes: torch.Tensor) -> torch.Tensor:
        """Encode codes (B,) with the parameters (B, n) of their distributions; return the codes."""
        code_in_halves(distribution, parameters, self._encode, codes)
        return codes

    def _encode(self, probs: np.ndarray, symbols: torch.Tensor) -> torch.Tensor:
        self.coder.encode(symbols.numpy().astype(np.int32), CATEGORICAL, probs)
        return symbols

    def message(self) -> bytes:
        """The message of all codes so far."""
        return self.coder.get_compressed().tobytes()


class Decoder:
    """Decodes codes from a message."""

    def __init__(self, message: bytes) -> None:
        self.coder = constriction.stream.queue.RangeDecoder(np.frombuffer(message, np.uint32))

    def __call__(self, distribution: Distribution, parameters: torch.Tensor,
                 _: None) -> torch.Tensor:
        """Decode the next codes (B,) with the parameters (B, n) of their distributions."""
        return code_in_halves(distribution, parameters, self._decode)

    def _decode(self, probs: np.ndarray, _: None) -> torch.Tensor:
        return torch.from_numpy(self.coder.decode(CATEGORICAL, probs)).long()


def code_in_halves(distribution: Distribution, parameters: torch.Tensor,
                   code_symbols: Callable[[np.ndarray, Any], torch.Tensor],
                   codes: torch.Tensor | None = None) -> torch.Tensor:
    """Code symbols of at most TABLE values, one or two for each code; return the codes (B,).

    code_symbols: (probabilities (B, values), symbols (B,) or None) -> symbols. constriction rounds
    the probabilities to positive multiples of 2⁻²⁴.
    """
    levels = distribution.levels
    if levels <= TABLE:
        return code_symbols(table(distribution.probabilities(parameters)), codes)
    parameters = parameters.double()
    lasts = torch.arange(TABLE - 1, levels + TABLE - 1, TABLE).clamp(max=levels - 1)
    below = distribution.cumulative(parameters[:, None], lasts.expand(len(parameters), -1))
    upper = code_symbols(table(below.diff(dim=1, prepend=torch.zeros(len(parameters), 1))),
                         None if codes is None else codes // TABLE)
    rows = [distribution.probabilities(row, first, min(first + TABLE, levels))
            for row, first in zip(parameters, (upper * TABLE).tolist(), strict=True)]
    lower = [code_symbols(table(row[None]), None if codes is None else codes[i:i + 1] % TABLE)
             for i, row in enumerate(rows)]
    return upper * TABLE + torch.cat(lower)


def table(probabilities: torch.Tensor) -> np.ndarray:
    """Probabilities (B, values) for the coder: in double precision, none of them 0, sum 1."""
    probs = probabilities.double().clamp(min=1e-300)
    return (probs / probs.sum(dim=1, keepdim=True)).numpy()


def code_images(model: PixelCNN, label: torch.Tensor | None, shape: torch.Size, coder: Coder,
                known: torch.Tensor | None = None) -> torch.Tensor:
    """Encode the images `known` (B, C, H, W), or decode images of `shape`; return their codes."""
    codes = torch.zeros(shape, dtype=torch.long)
    state = CachedPixelCNNSampler(model, label, codes, 0)
    for row in tqdm(range(shape[2]), unit="row", disable=None):
        def code_sub_pixel(parameters, column, channel, row=row):
            return coder(model.distribution, parameters,
                         None if known is None else known[:, channel, row, column])

        state.fill_row(row, code_sub_pixel)
    return codes


def code_sound(model: WaveNet, label: torch.Tensor | None, length: int, coder: Coder,
               known: torch.Tensor | None = None) -> torch.Tensor:
    """Encode the sound `known` (1, length), or decode one, after silence; return its codes."""
    last = torch.full((1,), silence(model.config.levels))
    state, codes = CachedWaveNetSampler(model, label, last[:, None], "fp32"), []
    for i in tqdm(range(length), unit="sample", unit_scale=True, disable=None):
        last = coder(model.distribution, state.advance(last),
                     None if known is None else known[:, i])
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
    samples = read_recording(args.data, data["rate"])
    encoded, _ = encode_sound(samples, levels, data["encoding"])
    codes = torch.from_numpy(encoded.astype(np.int64))[None]
    before = torch.full((1, model.config.receptive_field), silence(levels))
    with torch.inference_mode():
        parameters = model(torch.cat((before, codes[:, :-1]), dim=1), label)
    nll = distributions.nll(model.distribution, parameters, codes, "mean").item()
    buffer, bits = io.BytesIO(), {256: 8, 65536: 16}.get(levels)
    if bits:
        soundfile.write(buffer, (codes[0].numpy() - levels // 2).astype(np.int16) << (16 - bits),
                        data["rate"], format="FLAC", subtype="PCM_S8" if bits == 8 else "PCM_16")
    return Source(
        f"{args.data}, {codes.shape[1] / data['rate']:.1f} s", codes,
        lambda coder, known: code_sound(model, label, codes.shape[1], coder, known), nll,
        {"FLAC": len(buffer.getvalue())} if bits else {})


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
