"""Matrix products and a code's choice in compiled samplers, against the same in plain PyTorch."""

import ctypes
import math
import mmap
import sys

import numba
import numpy as np
import pytest
import torch

from models.kernels.compiling import KernelCache
from models.kernels.products import (
    accumulate,
    add_to,
    consecutive,
    copy,
    gate_lanes,
    gates,
    lanes_of,
    padded,
    pick,
    rows_of,
)
from models.kernels.vectors import HALF, TILE
from sampling.random_streams import Draws, choose

ALMOST_1 = 1 - 2 ** -53
INF, NAN = math.inf, math.nan
RANDOM = np.random.default_rng(0)


@numba.njit
def products(weights, at, n, inputs, i, i_step, outputs, o, o_step, tiles, columns):
    accumulate(weights, at, n, inputs, i, i_step, outputs, o, o_step, tiles, columns)


@numba.njit
def copy_add_gate(bias, b, tiles, outputs, o, o_step, columns, gated, g, g_step):
    """Copy a bias to the first column, add it to all columns, then their gates."""
    copy(bias, b, outputs, o, tiles)
    add_to(outputs, o, o_step, bias, b, tiles, columns)
    gates(outputs, o, o_step, gated, g, g_step, tiles, columns)


@numba.njit
def picks(logits, levels, uniforms, temperature, top_p, odds, codes):
    """The code of each row of logits, (codes · padded levels,)."""
    size = logits.size // codes.size
    for k in range(codes.size):
        codes[k] = pick(logits, k * size, levels, uniforms[k], temperature, top_p, odds)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def floats(*numbers):
    return np.array(numbers, np.float32)


def guarded(array, end):
    """A copy of an array, right before (end) or after memory that ends the process if touched."""
    if sys.platform == "win32":
        return array.copy()
    page = mmap.PAGESIZE
    size = padded(array.nbytes, page)
    memory = mmap.mmap(-1, size + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (address, address + page + size):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    result = np.frombuffer(memory, array.dtype, array.size,
                           page + (size - array.nbytes if end else 0)).reshape(array.shape)
    result[...] = array
    return result


def check_choice(codes, uniforms, temperature, top_p, *logits, within=1e-6):
    """Codes (N,) are those that `choose` makes of logits (N, levels).

    But where a random number is at the very border of two codes, or a code at that of the most
    probable ones, rounding may choose otherwise: then it must be what choice there is `within` so
    much, by the first logits or by others given. Returns the numbers of codes of that kind.
    """
    other = (codes != choose(logits[0].double(), uniforms, temperature, top_p)).nonzero()[:, 0]
    codes, uniforms = codes[other], uniforms[other]
    near = torch.zeros(len(other), dtype=torch.bool)
    for one in logits:
        for kept in (top_p * (1 - within), top_p, min(top_p * (1 + within), 1)):
            lowest, highest = (choose(one[other], (uniforms + shift).clamp(0, ALMOST_1),
                                      temperature, kept) for shift in (-within, within))
            near |= (lowest <= codes) & (codes <= highest)
    assert near.all(), f"{codes[~near]} for {uniforms[~near]}"
    return other


def test_compilation_is_announced_once_and_nothing_else_is(capsys):
    cache = KernelCache(__file__)

    @numba.njit
    def compiled(number):
        return padded(number)

    def twice(number):
        compiled(number)
        compiled(number)

    for first, heard in ((1.0, 1), (1.0, 0), (1, 1)):  # a kind of argument after the other
        cache.prepare("test", lambda: twice(first))  # noqa: B023, called at once
        assert capsys.readouterr().err.count("compiling the test sampler") == heard
    compiled(np.float32(1))
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------ products

@pytest.mark.parametrize("columns", range(10))
@pytest.mark.parametrize("out,n", [(1, 1), (TILE, 3), (TILE + 1, 17), (3 * TILE - 1, HALF)])
def test_products(out, n, columns):
    """Exactly in each column what it is alone, and nothing written anywhere else."""
    weight = torch.randn(out, n)
    rows = np.concatenate((np.full((2, TILE), NAN, np.float32),
                           rows_of(weight, consecutive(0, out))))
    tiles, i_step, o_step = padded(out) // TILE, n + 2, padded(out) + 3
    inputs = RANDOM.standard_normal(3 + columns * i_step).astype(np.float32)
    before = RANDOM.standard_normal(5 + columns * o_step + 1).astype(np.float32)
    outputs = before.copy()
    products(rows, 2, n, inputs, 3, i_step, outputs, 5, o_step, tiles, columns)
    changed = np.zeros(outputs.shape, bool)
    for c in range(columns):
        mine = slice(5 + c * o_step, 5 + c * o_step + padded(out))
        changed[mine.start:mine.start + out] = True
        given = inputs[3 + c * i_step:][:n]
        expected = before[mine][:out] + weight.double().numpy() @ given
        assert np.allclose(outputs[mine][:out], expected, rtol=0, atol=1e-5)
        alone = before[mine].copy()
        products(rows, 2, n, given.copy(), 0, 0, alone, 0, 0, tiles, 1)
        assert (alone == outputs[mine]).all()
    assert (outputs[~changed] == before[~changed]).all()


@pytest.mark.parametrize("width", [1, HALF - 1, HALF, HALF + 1, 2 * HALF + 5])
def test_biases_and_gates(width):
    bias, columns = torch.randn(2 * width), 3
    lanes = lanes_of(bias, gate_lanes(0, width, width))
    tiles, features = lanes.size // TILE, padded(width, HALF)
    before = RANDOM.standard_normal(2 + columns * (lanes.size + 4)).astype(np.float32)
    outputs, gated = before.copy(), np.full(1 + columns * (features + 1), NAN, np.float32)
    copy_add_gate(np.concatenate((floats(NAN), lanes)), 1, tiles, outputs, 2, lanes.size + 4,
                  columns, gated, 1, features + 1)
    of_lane = gate_lanes(0, width, width)
    for c in range(columns):
        mine = slice(2 + c * (lanes.size + 4), 2 + c * (lanes.size + 4) + lanes.size)
        expected = lanes + (lanes if c == 0 else before[mine])
        assert (outputs[mine] == expected).all()
        in_order = np.empty(2 * width)
        in_order[of_lane[of_lane >= 0]] = expected[of_lane >= 0]
        a, b = in_order[:width], in_order[width:]
        values = gated[1 + c * (features + 1):][:width]
        assert np.allclose(values, np.tanh(a) / (1 + np.exp(-b)), rtol=0, atol=3e-7)
        outputs[mine] = before[mine]
    assert (outputs == before).all() and np.isnan(gated[::features + 1]).all()


def test_lanes_of_nothing_compute_nothing():
    weight, bias = torch.randn(5, 3), torch.randn(2, 5)
    rows = rows_of(weight, consecutive(1, 4)).reshape(-1, 3, TILE)
    assert rows.shape[0] == 1 and not rows[0, :, 3:].any()
    assert torch.equal(torch.from_numpy(rows[0, :, :3]).t(), weight[1:4])
    assert (lanes_of(bias, consecutive(1, 4), -INF)[:, 3:] == -INF).all()
    assert torch.equal(torch.from_numpy(lanes_of(bias, consecutive(1, 4))[:, :3]), bias[:, 1:4])


# ------------------------------------------------------------------------------ a code's choice

LEVELS = sorted({2, 3, HALF, TILE - 1, TILE, TILE + 1, 2 * TILE, 3 * TILE + 5, 256, 1000})


def picked(logits, uniforms, temperature=1.0, top_p=1.0):
    """Codes (N,) that the kernel picks by logits (N, levels), in guarded memory."""
    levels, codes = logits.shape[1], np.empty(len(logits), np.int64)
    rows = np.pad(logits.numpy().astype(np.float32), ((0, 0), (0, padded(levels) - levels)),
                  constant_values=-INF)
    odds = guarded(np.full(padded(levels), NAN, np.float32), end=True)
    picks(guarded(rows.ravel(), end=True), levels, uniforms.numpy(), float(temperature),
          float(top_p), odds, codes)
    return torch.from_numpy(codes)


@pytest.mark.parametrize("temperature,top_p", [
    (1, 1), (0.3, 1), (3, 1), (0, 1), (1, 0.9), (1, 0.5), (3, 0.5), (1, 1e-6), (0.3, 0.99),
    (5e-324, 1), (1e-30, 0.5), (1e300, 1), (1e300, 0.5), (0, 0.5)])
def test_picks_what_choose_does(temperature, top_p):
    count, others = 200, 0
    for levels in LEVELS:
        uniforms = Draws(levels, [0]).next(count)[0]
        uniforms[:20], uniforms[20:40] = 0, 1 - 2 ** -40
        for scale in (0.1, 2, 30):
            logits = scale * torch.randn(count, levels)
            logits[::3] = logits[::3].round()  # many are equal
            logits[1::4][torch.rand(count // 4, levels) < 0.5] = -INF
            logits[1::4, levels // 2] = 0
            ends = picked(logits, torch.full_like(uniforms, ALMOST_1), temperature, top_p)
            codes = picked(logits, uniforms, temperature, top_p)
            for some in (codes, ends):
                assert 0 <= some.min() and some.max() < levels
                assert (logits.gather(1, some[:, None]) > -INF).all()
            others += (check_choice(codes, uniforms, temperature, top_p, logits) >= 40).sum()
    assert others <= 2  # of 24,000


@pytest.mark.parametrize("levels", LEVELS)
def test_picks_among_equals_exactly(levels):
    """Where all odds are 1, and one by one at each border of two codes."""
    borders = torch.arange(levels, dtype=torch.float64)
    for shift in (0.01, 0.5, 0.99):
        for value in (0.0, -7.5, 3e30):
            logits = torch.full((levels, levels), value)
            for options in (dict(), dict(top_p=0.01), dict(temperature=1e-9)):
                codes = picked(logits, (borders + shift) / levels, **options)
                assert torch.equal(codes, torch.arange(levels))
    if levels & (levels - 1) == 0:
        codes = picked(torch.zeros(levels, levels), borders / levels)
        assert torch.equal(codes, torch.arange(levels))


@pytest.mark.parametrize("levels", LEVELS)
def test_picks_the_only_one_there_is(levels):
    logits = torch.full((levels, levels), -INF)
    logits.fill_diagonal_(-3)
    huge = torch.full((levels, levels), -3e30)
    huge.fill_diagonal_(3e30)
    for one in (logits, huge):
        for uniform in (0, 0.5, ALMOST_1):
            uniforms = torch.full((levels,), uniform, dtype=torch.float64)
            for temperature in (0, 5e-324, 1e-3, 1, 1e3):
                for top_p in (1, 0.5):
                    codes = picked(one, uniforms, temperature, top_p)
                    assert torch.equal(codes, torch.arange(levels))


@pytest.mark.parametrize("odds,top_p,kept", [
    ([8, 4, 2, 1, 1], 0.5, {0}), ([8, 4, 2, 1, 1], 0.51, {0, 1}), ([1, 8, 4, 2, 1], 0.75, {1, 2}),
    ([1, 4, 2, 8, 1], 0.76, {1, 2, 3}), ([1, 4, 2, 8, 1], 0.88, {0, 1, 2, 3, 4}),
    ([8, 4, 2, 1, 1], 1e-6, {0}), ([4, 1, 4, 1, 4], 1e-6, {0, 2, 4}), ([1, 1], 0.5, {0, 1}),
    ([4, 1, 4, 1, 4], 0.9, {0, 1, 2, 3, 4}), ([2] * 7 + [1] * 100, 0.1, set(range(7)))])
def test_top_p_keeps_those_as_probable_as_the_last(odds, top_p, kept):
    logits = torch.tensor(odds).log().expand(2000, -1)
    uniforms = Draws(0, [0]).next(2000)[0]
    for pick_codes in (picked, lambda *args: choose(args[0], args[1], 1.0, args[3])):
        assert set(pick_codes(logits, uniforms, 1.0, top_p).tolist()) == kept


@pytest.mark.parametrize("levels", [16, 64, 100, 256])
def test_rounding_does_not_make_the_improbable_happen(levels):
    """Uniform numbers so close to 1 that sums in single precision may not reach them."""
    uniforms = 1 - torch.linspace(2 ** -40, 1e-6, 500, dtype=torch.float64)
    for _ in range(40):
        logits = 2 * torch.randn(1, levels)
        logits[0, -3:] = -60
        codes = picked(logits.expand(500, -1), uniforms)
        assert codes.max() < levels - 3
        check_choice(codes, uniforms, 1.0, 1.0, logits.expand(500, -1))


@pytest.mark.parametrize("temperature,top_p", [(1, 1), (0.5, 1), (2, 0.6)])
def test_frequencies_are_the_distribution(temperature, top_p):
    count, logits = 200_000, torch.randn(1, 100)
    odds = (logits[0].double() / temperature).softmax(0)
    falling = odds.sort(descending=True).values
    odds *= odds >= falling[(falling.cumsum(0) < top_p - 1e-9).sum()]
    odds /= odds.sum()
    codes = picked(logits.expand(count, -1), Draws(0, [0]).next(count)[0], temperature, top_p)
    seen, expected = codes.bincount(minlength=100).double(), odds * count
    assert torch.equal(seen > 0, expected > 0)
    kept = expected > 0
    chi_squared = ((seen - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = int(kept.sum()) - 1
    assert abs(chi_squared - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_code_is_in_range_whatever_the_logits_are(value):
    uniforms = torch.tensor([0, 0.3, ALMOST_1], dtype=torch.float64)
    for levels in LEVELS:
        for where in (slice(None), slice(0, 1), slice(levels - 1, None), slice(None, None, 2)):
            logits = torch.randn(3, levels)
            logits[:, where] = value
            for temperature in (0, 5e-324, 1, 1e300):
                for top_p in (1, 0.5):
                    codes = picked(logits, uniforms, temperature, top_p)
                    assert 0 <= codes.min() and codes.max() < levels


def test_picks_among_65536():
    logits = torch.randn(20, 65536)
    logits[:10] = 0
    uniforms = Draws(0, [0]).next(20)[0]
    uniforms[::5] = ALMOST_1
    for options in ((1.0, 1.0), (1.0, 0.9), (0, 1.0)):
        # Sums of so many rounded numbers: within 1e-6, which a tenth of the codes lie beside.
        check_choice(picked(logits, uniforms, *options), uniforms, *options, logits)
