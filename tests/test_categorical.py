"""Sampling a code in compiled loops, against the same in plain PyTorch."""

import math

import numba
import numpy as np
import pytest
import torch
from test_products import guarded

from models.distributions.softmax import sample_categorical
from models.kernels.layout import round_up
from models.kernels.vectors import HALF, TILE
from sampling.compiled import categorical
from sampling.random_streams import RandomStreams

ALMOST_1 = 1 - 2 ** -53
INF, NAN = math.inf, math.nan

compiled_sample_categorical = categorical.sample_categorical


@numba.njit
def sample_rows(logits, levels, uniforms, temperature, top_p, probs, codes):
    """Draw a code for each row of logits, (codes · padded levels,)."""
    size = logits.size // codes.size
    for k in range(codes.size):
        codes[k] = compiled_sample_categorical(logits, k * size, levels, uniforms[k], temperature,
                                               top_p, probs)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def check_samples(codes, uniforms, temperature, top_p, *logits, within=1e-6):
    """Assert that codes (N,) are those that `sample_categorical` draws from logits (N, levels).

    Rounding may select another code where a uniform number is at the border of two codes, or a code
    at the border of `top_p`. Such a code must result from a change of that relative size `within`,
    for the first logits or for other given ones. Returns the numbers of these codes.
    """
    expected = sample_categorical(logits[0].double(), uniforms, temperature, top_p)
    other = (codes != expected).nonzero()[:, 0]
    codes, uniforms = codes[other], uniforms[other]
    near = torch.zeros(len(other), dtype=torch.bool)
    for rows in logits:
        for nucleus in (top_p * (1 - within), top_p, min(top_p * (1 + within), 1)):
            lowest, highest = (
                sample_categorical(rows[other], (uniforms + shift).clamp(0, ALMOST_1), temperature,
                                   nucleus)
                for shift in (-within, within))
            near |= (lowest <= codes) & (codes <= highest)
    assert near.all(), f"{codes[~near]} for {uniforms[~near]}"
    return other


LEVELS = sorted({2, 3, HALF, TILE - 1, TILE, TILE + 1, 2 * TILE, 3 * TILE + 5, 256, 1000})


def compiled_samples(logits, uniforms, temperature=1.0, top_p=1.0):
    """Codes (N,) that the kernel draws from logits (N, levels), in guarded memory."""
    levels, codes = logits.shape[1], np.empty(len(logits), np.int64)
    rows = np.pad(logits.numpy().astype(np.float32), ((0, 0), (0, round_up(levels) - levels)),
                  constant_values=-INF)
    probs = guarded(np.full(round_up(levels), NAN, np.float32), end=True)
    sample_rows(guarded(rows.ravel(), end=True), levels, uniforms.numpy(), float(temperature),
                float(top_p), probs, codes)
    return torch.from_numpy(codes)


@pytest.mark.parametrize("temperature,top_p", [
    (1, 1), (0.3, 1), (3, 1), (0, 1), (1, 0.9), (1, 0.5), (3, 0.5), (1, 1e-6), (0.3, 0.99),
    (5e-324, 1), (1e-30, 0.5), (1e300, 1), (1e300, 0.5), (0, 0.5)])
def test_equals_the_plain_sampler(temperature, top_p):
    count, borderline = 200, 0
    for levels in LEVELS:
        uniforms = RandomStreams(levels, [0]).next_uniforms(count)[0]
        uniforms[:20], uniforms[20:40] = 0, 1 - 2 ** -40
        for scale in (0.1, 2, 30):
            logits = scale * torch.randn(count, levels)
            logits[::3] = logits[::3].round()  # many are equal
            logits[1::4][torch.rand(count // 4, levels) < 0.5] = -INF
            logits[1::4, levels // 2] = 0
            ends = compiled_samples(logits, torch.full_like(uniforms, ALMOST_1), temperature, top_p)
            codes = compiled_samples(logits, uniforms, temperature, top_p)
            for some in (codes, ends):
                assert 0 <= some.min() and some.max() < levels
                assert (logits.gather(1, some[:, None]) > -INF).all()
            borderline += (check_samples(codes, uniforms, temperature, top_p, logits) >= 40).sum()
    assert borderline <= 2  # of 24,000


@pytest.mark.parametrize("levels", LEVELS)
def test_equal_logits_divide_the_interval_evenly(levels):
    """All probabilities are 1. Each uniform number is at a border of two codes or between two."""
    borders = torch.arange(levels, dtype=torch.float64)
    for shift in (0.01, 0.5, 0.99):
        for value in (0.0, -7.5, 3e30):
            logits = torch.full((levels, levels), value)
            for options in (dict(), dict(top_p=0.01), dict(temperature=1e-9)):
                codes = compiled_samples(logits, (borders + shift) / levels, **options)
                assert torch.equal(codes, torch.arange(levels))
    if levels & (levels - 1) == 0:
        codes = compiled_samples(torch.zeros(levels, levels), borders / levels)
        assert torch.equal(codes, torch.arange(levels))


@pytest.mark.parametrize("levels", LEVELS)
def test_draws_the_only_possible_code(levels):
    logits = torch.full((levels, levels), -INF)
    logits.fill_diagonal_(-3)
    huge = torch.full((levels, levels), -3e30)
    huge.fill_diagonal_(3e30)
    for one in (logits, huge):
        for uniform in (0, 0.5, ALMOST_1):
            uniforms = torch.full((levels,), uniform, dtype=torch.float64)
            for temperature in (0, 5e-324, 1e-3, 1, 1e3):
                for top_p in (1, 0.5):
                    codes = compiled_samples(one, uniforms, temperature, top_p)
                    assert torch.equal(codes, torch.arange(levels))


@pytest.mark.parametrize("probs,top_p,nucleus", [
    ([8, 4, 2, 1, 1], 0.5, {0}), ([8, 4, 2, 1, 1], 0.51, {0, 1}), ([1, 8, 4, 2, 1], 0.75, {1, 2}),
    ([1, 4, 2, 8, 1], 0.76, {1, 2, 3}), ([1, 4, 2, 8, 1], 0.88, {0, 1, 2, 3, 4}),
    ([8, 4, 2, 1, 1], 1e-6, {0}), ([4, 1, 4, 1, 4], 1e-6, {0, 2, 4}), ([1, 1], 0.5, {0, 1}),
    ([4, 1, 4, 1, 4], 0.9, {0, 1, 2, 3, 4}), ([2] * 7 + [1] * 100, 0.1, set(range(7)))])
def test_top_p_keeps_codes_as_probable_as_the_last_one(probs, top_p, nucleus):
    logits = torch.tensor(probs).log().expand(2000, -1)
    uniforms = RandomStreams(0, [0]).next_uniforms(2000)[0]
    for sampler in (compiled_samples, sample_categorical):
        assert set(sampler(logits, uniforms, 1.0, top_p).tolist()) == nucleus


@pytest.mark.parametrize("levels", [16, 64, 100, 256])
def test_rounding_draws_no_improbable_code(levels):
    """Sums in single precision may not reach uniform numbers so close to 1."""
    uniforms = 1 - torch.linspace(2 ** -40, 1e-6, 500, dtype=torch.float64)
    for _ in range(40):
        logits = 2 * torch.randn(1, levels)
        logits[0, -3:] = -60
        codes = compiled_samples(logits.expand(500, -1), uniforms)
        assert codes.max() < levels - 3
        check_samples(codes, uniforms, 1.0, 1.0, logits.expand(500, -1))


@pytest.mark.parametrize("temperature,top_p", [(1, 1), (0.5, 1), (2, 0.6)])
def test_frequencies_follow_the_distribution(temperature, top_p):
    count, logits = 200_000, torch.randn(1, 100)
    probs = (logits[0].double() / temperature).softmax(0)
    descending = probs.sort(descending=True).values
    probs *= probs >= descending[(descending.cumsum(0) < top_p - 1e-9).sum()]
    probs /= probs.sum()
    uniforms = RandomStreams(0, [0]).next_uniforms(count)[0]
    codes = compiled_samples(logits.expand(count, -1), uniforms, temperature, top_p)
    seen, expected = codes.bincount(minlength=100).double(), probs * count
    assert torch.equal(seen > 0, expected > 0)
    possible = expected > 0
    chi_squared = ((seen - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = int(possible.sum()) - 1
    assert abs(chi_squared - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_codes_are_in_range_even_for_nan_and_infinite_logits(value):
    uniforms = torch.tensor([0, 0.3, ALMOST_1], dtype=torch.float64)
    for levels in LEVELS:
        for where in (slice(None), slice(0, 1), slice(levels - 1, None), slice(None, None, 2)):
            logits = torch.randn(3, levels)
            logits[:, where] = value
            for temperature in (0, 5e-324, 1, 1e300):
                for top_p in (1, 0.5):
                    codes = compiled_samples(logits, uniforms, temperature, top_p)
                    assert 0 <= codes.min() and codes.max() < levels


def test_65536_levels():
    logits = torch.randn(20, 65536)
    logits[:10] = 0
    uniforms = RandomStreams(0, [0]).next_uniforms(20)[0]
    uniforms[::5] = ALMOST_1
    for options in ((1.0, 1.0), (1.0, 0.9), (0, 1.0)):
        # The sum of so many numbers rounds by 1e-6, which borders a tenth of the codes.
        check_samples(compiled_samples(logits, uniforms, *options), uniforms, *options, logits)
