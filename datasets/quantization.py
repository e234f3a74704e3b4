"""Quantise pixels to uniform levels, and sound by mu-law.

A code is an integer in [0, levels). Pixels use Gated PixelCNN's equal intervals. Sound uses ITU-T
G.711's mu-law as in WaveNet (section 2.2), with mu = levels - 1, or equal intervals ("linear"),
which at 65,536 levels are the samples of a 16-bit wav.
"""

import numpy as np

from common.errors import UserError

IMAGE_LEVELS = 256  # a pixel is a byte
AUDIO_LEVELS = 65536
ENCODINGS = "mulaw", "linear"  # of sound


def check_levels(levels: int, most: int) -> None:
    """Raise UserError unless 2 <= levels <= most."""
    if not 2 <= levels <= most:
        raise UserError(f"{levels}: out of range; give 2 to {most}", parameter="levels")


def quantize_pixels(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Return codes, uint8, for `pixels`, uint8 of any shape: `levels` intervals of equal width.

    Raises UserError for levels outside 2..256.
    """
    check_levels(levels, IMAGE_LEVELS)
    return (pixels.astype(np.uint16) * levels // 256).astype(np.uint8)


def dequantize_pixels(codes: np.ndarray, levels: int) -> np.ndarray:
    """Return pixels, uint8, for `codes` of any shape: the lowest is black, the highest white.

    Raises UserError for levels outside 2..256.
    """
    check_levels(levels, IMAGE_LEVELS)
    steps = levels - 1
    return ((codes.astype(np.int64) * 510 + steps) // (2 * steps)).astype(np.uint8)


def code_dtype(levels: int) -> np.dtype:
    """Return the smallest integer type that holds the codes of sound: uint8 or uint16.

    Raises UserError for levels outside 2..65536.
    """
    check_levels(levels, AUDIO_LEVELS)
    return np.dtype(np.uint8 if levels <= 256 else np.uint16)


def silence(levels: int) -> int:
    """Return the code of the sample 0, in either encoding."""
    return levels // 2


def encode_sound(samples: np.ndarray, levels: int, encoding: str = "mulaw"
                 ) -> tuple[np.ndarray, int]:
    """Return codes for `samples` in [-1, 1], and how many samples were clipped to that range.

    encoding: one of ENCODINGS.
    """
    encode = linear_encode if encoding == "linear" else mu_law_encode
    return encode(samples, levels)


def decode_sound(codes: np.ndarray, levels: int, encoding: str = "mulaw") -> np.ndarray:
    """Return samples, float32 in [-1, 1], for `codes` of any shape."""
    return linear_decode(codes, levels) if encoding == "linear" else mu_law_decode(codes, levels)


def linear_encode(samples: np.ndarray, levels: int) -> tuple[np.ndarray, int]:
    """Return codes for `samples` in [-1, 1], and how many samples were clipped to that range.

    x becomes the nearest of x · levels / 2 + silence(levels), at most levels - 1: as in a wav, full
    scale itself has no code.
    """
    dtype = code_dtype(levels)
    samples = np.asarray(samples, np.float64)
    clipped = int(np.count_nonzero(np.abs(samples) > 1))
    codes = np.floor(samples * (levels / 2) + (silence(levels) + 0.5))
    return codes.clip(0, levels - 1).astype(dtype), clipped


def linear_decode(codes: np.ndarray, levels: int) -> np.ndarray:
    """Return samples, float32 in [-1, 1], for `codes` of any shape: code · 2 / levels, centred."""
    code_dtype(levels)
    centred = np.asarray(codes).astype(np.int64) - silence(levels)
    return (centred * (2 / levels)).astype(np.float32)


def mu_law_encode(samples: np.ndarray, levels: int) -> tuple[np.ndarray, int]:
    """Return codes for `samples` in [-1, 1], and how many samples were clipped to that range.

    F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)  (WaveNet, section 2.2), to the nearest code:
    -1 is 0, +1 is levels - 1, 0 is silence(levels). Uses double precision, because codes of
    65,536 levels can be 3e-9 apart.
    """
    dtype, mu = code_dtype(levels), levels - 1
    samples = np.asarray(samples, np.float64)
    magnitude = np.abs(samples)
    clipped = int(np.count_nonzero(magnitude > 1))
    companded = np.copysign(np.log1p(mu * np.minimum(magnitude, 1)) / np.log1p(mu), samples)
    return ((companded + 1) / 2 * mu + 0.5).astype(dtype), clipped  # the cast is the floor


def mu_law_decode(codes: np.ndarray, levels: int) -> np.ndarray:
    """Return samples, float32 in [-1, 1], for `codes` of any shape: the inverse of F.

    If `levels` is even, no code decodes to exactly 0: silence(levels) is half a step above it.
    """
    code_dtype(levels)
    mu = levels - 1
    companded = 2 * np.arange(levels, dtype=np.float64) / mu - 1
    table = np.copysign(np.expm1(np.abs(companded) * np.log1p(mu)) / mu, companded)
    return table.astype(np.float32)[codes]
