"""Matrix products, biases and gates in compiled loops, against the same in PyTorch and numpy."""

import ctypes
import math
import mmap
import sys

import numba
import numpy as np
import pytest
import torch

from models.kernels.compiling import KernelCache
from models.kernels.layout import (
    consecutive_lanes,
    gate_lanes,
    pack_lanes,
    pack_rows,
    round_up,
)
from models.kernels.products import (
    copy_tiles,
    gate_sums,
    gate_tiles,
    multiply,
    relu_tiles,
)
from models.kernels.vectors import HALF, TILE, pointer

INF, NAN = math.inf, math.nan
ONE = np.ones(1, np.float32)
RANDOM = np.random.default_rng(0)


@numba.njit
def products(weights, at, n, inputs, i, i_step, outputs, o, o_step, tiles, columns):
    multiply(pointer(outputs, o), o_step, pointer(weights, at * TILE), n * TILE, TILE,
             pointer(inputs, i), i_step, 1, n, pointer(outputs, o), o_step, tiles, columns)


@numba.njit
def product(addend, addend_step, weights, tile_step, row_step, inputs, column_step, input_step, n,
            outputs, output_step, tiles, columns):
    multiply(pointer(addend, 0), addend_step, pointer(weights, 0), tile_step, row_step,
             pointer(inputs, 0), column_step, input_step, n, pointer(outputs, 0), output_step,
             tiles, columns)


@numba.njit
def relu_and_gate(inputs, i_step, bias, relus, gates, tiles, columns):
    relu_tiles(inputs, 0, i_step, relus, 0, i_step, tiles, columns)
    gate_sums(inputs, 0, i_step, bias, 0, gates, 0, i_step, tiles, columns)


@numba.njit
def copy_add_gate(bias, b, tiles, outputs, o, o_step, columns, gated, g, g_step):
    """Copy a bias to the first column, add it to all columns, then gate them."""
    copy_tiles(bias, b, outputs, o, tiles)
    multiply(pointer(outputs, o), o_step, pointer(bias, b), TILE, 0, pointer(ONE, 0), 0, 0, 1,
             pointer(outputs, o), o_step, tiles, columns)
    gate_tiles(outputs, o, o_step, gated, g, g_step, tiles, columns)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def guarded(array, end):
    """A copy of an array directly before (end) or after memory that ends the process if touched."""
    if sys.platform == "win32":
        return array.copy()
    page = mmap.PAGESIZE
    size = round_up(array.nbytes, page)
    memory = mmap.mmap(-1, size + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (address, address + page + size):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    result = np.frombuffer(memory, array.dtype, array.size,
                           page + (size - array.nbytes if end else 0)).reshape(array.shape)
    result[...] = array
    return result


def test_compilation_is_announced_once(capsys):
    cache = KernelCache(__file__)

    @numba.njit
    def compiled(number):
        return round_up(number)

    def twice(number):
        compiled(number)
        compiled(number)

    for argument, announced in ((1.0, 1), (1.0, 0), (1, 1)):  # each type compiles once
        cache.prepare("test sampler", lambda: twice(argument))  # noqa: B023, called at once
        assert capsys.readouterr().err.count("compiling the test sampler") == announced
    compiled(np.float32(1))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", range(14))
@pytest.mark.parametrize("out,n", [(1, 1), (TILE, 3), (TILE + 1, 17), (3 * TILE - 1, HALF),
                                   (6 * TILE, 5)])
def test_a_column_is_the_same_alone_and_nothing_else_is_written(out, n, columns):
    weight = torch.randn(out, n)
    rows = np.concatenate((np.full((2, TILE), NAN, np.float32),
                           pack_rows(weight, consecutive_lanes(0, out))))
    tiles, i_step, o_step = round_up(out) // TILE, n + 2, round_up(out) + 3
    inputs = RANDOM.standard_normal(3 + columns * i_step).astype(np.float32)
    before = RANDOM.standard_normal(5 + columns * o_step + 1).astype(np.float32)
    outputs = before.copy()
    products(rows, 2, n, inputs, 3, i_step, outputs, 5, o_step, tiles, columns)
    changed = np.zeros(outputs.shape, bool)
    for c in range(columns):
        own = slice(5 + c * o_step, 5 + c * o_step + round_up(out))
        changed[own.start:own.start + out] = True
        column = inputs[3 + c * i_step:][:n]
        expected = before[own][:out] + weight.double().numpy() @ column
        assert np.allclose(outputs[own][:out], expected, rtol=0, atol=1e-5)
        alone = before[own].copy()
        products(rows, 2, n, column.copy(), 0, 0, alone, 0, 0, tiles, 1)
        assert (alone == outputs[own]).all()
    assert (outputs[~changed] == before[~changed]).all()


@pytest.mark.parametrize("columns", [1, 3, 8, 13])
@pytest.mark.parametrize("tiles", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 37])
@pytest.mark.parametrize("shared, transposed", [(False, False), (True, False), (False, True)])
def test_a_product_with_any_steps(columns, tiles, n, shared, transposed):
    """shared: all columns have one addend. transposed: a column's inputs are far apart and the
    weights' rows lie as an array of numbers does, as where a matrix's gradient is computed."""
    out = tiles * TILE
    inputs = RANDOM.standard_normal((n + 1, columns + 2) if transposed else (columns, n + 2))
    inputs = inputs.astype(np.float32)
    steps = (1, columns + 2) if transposed else (n + 2, 1)
    columns_of_inputs = inputs[:n, :columns] if transposed else inputs[:, :n].T
    if transposed:
        matrix = RANDOM.standard_normal((n + 1, out + 5)).astype(np.float32)
        weights, weight_steps, rows = matrix, (TILE, out + 5), matrix[:n, :out]
    else:
        weights = RANDOM.standard_normal((tiles, n + 1, TILE)).astype(np.float32)
        weight_steps, rows = ((n + 1) * TILE, TILE), weights[:, :n].swapaxes(0, 1).reshape(n, out)
    addend = RANDOM.standard_normal((1 if shared else columns, out + 1)).astype(np.float32)
    before, outputs = addend.copy(), np.full((columns, out + 3), NAN, np.float32)
    product(addend.ravel(), 0 if shared else out + 1, weights.ravel(), *weight_steps,
            inputs.ravel(), *steps, n, outputs.ravel(), out + 3, tiles, columns)
    expected = addend[:, :out] + columns_of_inputs.T.astype(float) @ rows
    assert np.allclose(outputs[:, :out], expected, rtol=0, atol=1e-4)
    assert np.isnan(outputs[:, out:]).all() and (addend == before).all()


@pytest.mark.parametrize("tiles", range(1, 6))
def test_relus_and_gates_of_sums(tiles):
    inputs = RANDOM.standard_normal((3, tiles * TILE)).astype(np.float32)
    bias, relus, gates = inputs[2] * 2, np.empty_like(inputs), np.empty_like(inputs)
    relu_and_gate(inputs.ravel(), tiles * TILE, bias, relus.ravel(), gates.ravel(), tiles, 3)
    assert (relus == np.maximum(inputs, 0)).all()
    a, b = (inputs + bias).astype(float).reshape(3, tiles, 2, HALF).swapaxes(0, 2).swapaxes(1, 2)
    expected = (np.tanh(a) / (1 + np.exp(-b))).reshape(3, tiles * HALF)
    assert np.allclose(gates[:, :tiles * HALF], expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("width", [1, HALF - 1, HALF, HALF + 1, 2 * HALF + 5])
def test_biases_and_gates(width):
    bias, columns, lanes = torch.randn(2 * width), 3, gate_lanes(0, width, width)
    packed = pack_lanes(bias, lanes)
    tiles, features = packed.size // TILE, round_up(width, HALF)
    before = RANDOM.standard_normal(2 + columns * (packed.size + 4)).astype(np.float32)
    outputs, gated = before.copy(), np.full(1 + columns * (features + 1), NAN, np.float32)
    nan = np.array([NAN], np.float32)
    copy_add_gate(np.concatenate((nan, packed)), 1, tiles, outputs, 2, packed.size + 4,
                  columns, gated, 1, features + 1)
    for c in range(columns):
        own = slice(2 + c * (packed.size + 4), 2 + c * (packed.size + 4) + packed.size)
        expected = packed + (packed if c == 0 else before[own])
        assert (outputs[own] == expected).all()
        in_order = np.empty(2 * width)
        in_order[lanes[lanes >= 0]] = expected[lanes >= 0]
        a, b = in_order[:width], in_order[width:]
        values = gated[1 + c * (features + 1):][:width]
        assert np.allclose(values, np.tanh(a) / (1 + np.exp(-b)), rtol=0, atol=3e-7)
        outputs[own] = before[own]
    assert (outputs == before).all() and np.isnan(gated[::features + 1]).all()


def test_lanes_without_an_output_are_zero_or_filled():
    weight, bias = torch.randn(5, 3), torch.randn(2, 5)
    lanes = consecutive_lanes(1, 4)
    rows = pack_rows(weight, lanes).reshape(-1, 3, TILE)
    assert rows.shape[0] == 1 and not rows[0, :, 3:].any()
    assert torch.equal(torch.from_numpy(rows[0, :, :3]).t(), weight[1:4])
    assert (pack_lanes(bias, lanes, -INF)[:, 3:] == -INF).all()
    assert torch.equal(torch.from_numpy(pack_lanes(bias, lanes)[:, :3]), bias[:, 1:4])
