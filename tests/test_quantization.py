import numpy as np
import pytest

from common.errors import UserError
from datasets.quantization import (
    code_dtype,
    decode_sound,
    dequantize_pixels,
    encode_sound,
    linear_decode,
    linear_encode,
    mu_law_decode,
    mu_law_encode,
    quantize_pixels,
    silence,
)

AUDIO = (2, 3, 16, 255, 256, 1024, 65536)


@pytest.mark.parametrize("levels", [2, 3, 4, 8, 100, 256])
def test_pixel_levels_are_equal_intervals_and_both_ends_are_exact(levels):
    pixels = np.arange(256, dtype=np.uint8)
    codes = quantize_pixels(pixels, levels)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [pixel * levels // 256 for pixel in range(256)]
    shown = dequantize_pixels(np.arange(levels, dtype=np.uint8), levels)
    assert shown.dtype == np.uint8
    assert shown.tolist() == [int(code * 255 / (levels - 1) + 0.5) for code in range(levels)]
    assert (shown[0], shown[-1]) == (0, 255)
    if levels in (2, 4, 8, 256):  # elsewhere rounding may leave the interval
        assert (quantize_pixels(shown, levels) == np.arange(levels)).all()


@pytest.mark.parametrize("levels", AUDIO)
def test_every_sound_code_decodes_and_encodes_to_itself(levels):
    codes = np.arange(levels)
    samples = mu_law_decode(codes, levels)
    assert samples.dtype == np.float32 and (np.diff(samples) > 0).all()
    again, clipped = mu_law_encode(samples, levels)
    assert again.dtype == code_dtype(levels) and clipped == 0
    assert (again == codes).all()


@pytest.mark.parametrize("levels", AUDIO)
def test_ends_and_silence_of_mu_law(levels):
    codes, _ = mu_law_encode([-1, 0, 1, -0.0], levels)
    assert codes.tolist() == [0, levels // 2, levels - 1, levels // 2]
    assert silence(levels) == levels // 2
    assert mu_law_decode(np.array([0, levels - 1]), levels).tolist() == [-1, 1]


def test_mu_law_is_the_published_formula_to_the_nearest_code():
    samples = np.random.default_rng(0).uniform(-1, 1, 5000)
    companded = np.sign(samples) * np.log(1 + 255 * np.abs(samples)) / np.log(256)
    codes, _ = mu_law_encode(samples, 256)
    assert np.abs(codes - (companded + 1) / 2 * 255).max() <= 0.5 + 1e-9


def test_samples_beyond_full_scale_are_clipped_and_counted():
    codes, clipped = mu_law_encode(np.array([1.5, -2, 1, -1, 0.2], np.float32), 256)
    assert clipped == 2
    assert codes[:4].tolist() == [255, 0, 255, 0]


def test_dtype_of_the_codes():
    assert code_dtype(256) == np.uint8
    assert code_dtype(257) == np.uint16


@pytest.mark.parametrize("levels", [-1, 0, 1, 257])
def test_image_levels_out_of_range(levels):
    with pytest.raises(UserError, match="levels"):
        quantize_pixels(np.zeros(3, np.uint8), levels)
    with pytest.raises(UserError, match="levels"):
        dequantize_pixels(np.zeros(3, np.uint8), levels)


@pytest.mark.parametrize("levels", [-1, 0, 1, 65537])
def test_audio_levels_out_of_range(levels):
    for call in (lambda: code_dtype(levels), lambda: mu_law_encode([0.0], levels),
                 lambda: mu_law_decode(np.array([0]), levels)):
        with pytest.raises(UserError, match="levels"):
            call()


# ------------------------------------------------------------------------------ equal intervals

@pytest.mark.parametrize("levels", AUDIO)
def test_every_linear_code_decodes_and_encodes_to_itself(levels):
    codes = np.arange(levels)
    samples = linear_decode(codes, levels)
    assert samples.dtype == np.float32 and samples[silence(levels)] == 0
    assert np.allclose(np.diff(samples), 2 / levels, rtol=1e-2)
    again, clipped = linear_encode(samples, levels)
    assert again.dtype == code_dtype(levels) and clipped == 0
    assert (again == codes).all()


def test_65536_linear_levels_are_the_samples_of_a_16_bit_wav():
    pcm = np.arange(-2 ** 15, 2 ** 15)
    codes, clipped = linear_encode(pcm / 2 ** 15, 65536)
    assert (codes == pcm + 2 ** 15).all() and clipped == 0
    assert (linear_decode(codes, 65536) * 2 ** 15 == pcm).all()
    codes, clipped = linear_encode(np.array([1.0, 1.2, -3.0]), 65536)
    assert codes.tolist() == [65535, 65535, 0] and clipped == 2


def test_16_bits_hold_a_tone_with_90_db_and_256_levels_with_38():
    tone = np.sin(np.arange(80_000) * 0.0731)
    for levels, encoding, low, high in ((65536, "linear", 97, 99), (65536, "mulaw", 75, 85),
                                        (256, "mulaw", 36, 40)):
        error = decode_sound(encode_sound(tone, levels, encoding)[0], levels, encoding) - tone
        assert low < 10 * np.log10(np.square(tone).mean() / np.square(error).mean()) < high
