"""The vector operations of compiled kernels, each against the same in double precision."""

import math

import numba
import numpy as np
import pytest
import torch

from models.kernels.layout import pack_bf16, round_up
from models.kernels.products import multiply
from models.kernels.vectors import (
    HALF,
    TILE,
    add,
    add_scaled,
    exponential,
    float_from_bits,
    gate,
    load,
    load_half,
    max_lane,
    pointer,
    store,
    sum_lanes,
    zero_below,
)

INF, ONE = math.inf, np.ones(1, np.float32)
RANDOM = np.random.default_rng(0)


@numba.njit
def gate_of(inputs, outputs):
    for i in range(0, inputs.size, TILE):
        store(outputs, i // 2, gate(load(inputs, i)))


@numba.njit
def exponential_of(inputs, top, scale, outputs):
    for i in range(0, inputs.size, TILE):
        store(outputs, i, exponential(load(inputs, i), top, scale))


@numba.njit
def lane_operations(inputs, threshold, outputs):
    """Operations on one vector: outputs (4, TILE); returns the highest lane and the sum."""
    vector = load(inputs, 0)
    store(outputs[0], 0, add(vector, load(inputs, 1)))
    store(outputs[1], 0, add_scaled(vector, load(inputs, 1), inputs, 2))
    store(outputs[2], 0, zero_below(vector, threshold))
    store(outputs[3], HALF, load_half(inputs, 0))
    store(outputs[3], 0, load_half(inputs, HALF))
    return max_lane(vector), sum_lanes(vector)


@numba.njit
def row_of(weights, index, addend, outputs):
    """Multiply one row of weights by 1."""
    multiply(pointer(addend, 0), 0, pointer(weights, index * weights.shape[1]), 0, 0,
             pointer(ONE, 0), 0, 0, 1, pointer(outputs, 0), 0, 1, 1)


@numba.njit
def float_of_bits(bits):
    return float_from_bits(np.int32(bits))


def floats(*numbers):
    return np.array(numbers, np.float32)


SPECIAL = floats(0, -0.0, 1e-45, -1e-45, 1e-40, 1e-38, 1e-8, -1e-8, 1e-4, -1e-4, 0.1, -0.1, 0.5, 1,
                 -1, 9.99, 10, 10.01, -10, 17, -17, 39.9, 40, 40.1, -40, 88, -88, 89, 104, -104,
                 1e4, -1e4, 1e30, -1e30, 3.4e38, -3.4e38, INF, -INF)


def gate_with(a, b):
    """The compiled gate of a and b, and the exact one: two arrays."""
    a, b = (np.ravel(one) for one in np.broadcast_arrays(a, b))
    missing = round_up(a.size, HALF) - a.size
    inputs = np.stack([np.pad(one, (0, missing)).reshape(-1, HALF) for one in (a, b)], axis=1)
    outputs = np.empty(a.size + missing, np.float32)
    gate_of(inputs.ravel(), outputs)
    with np.errstate(over="ignore"):
        exact = np.tanh(a.astype(np.float64)) / (1 + np.exp(-b.astype(np.float64)))
    return outputs[:a.size], exact


def test_gate():
    dense = np.linspace(-45, 45, 1801, dtype=np.float32)
    near_0 = np.concatenate([sign * np.logspace(-45, 0, 400, dtype=np.float32)
                             for sign in (1, -1)])
    for a, b in ((SPECIAL[:, None], SPECIAL), (dense[:, None], dense), (SPECIAL[:, None], dense),
                 (dense[:, None], SPECIAL), (near_0[:, None], dense),
                 (np.linspace(-11, 11, 1_000_000, dtype=np.float32), floats(50)),
                 (floats(50), np.linspace(-50, 50, 1_000_000, dtype=np.float32))):
        values, exact = gate_with(a, b)
        assert np.abs(values - exact).max() < 3e-7
    for zero in (0.0, -0.0):
        values, _ = gate_with(floats(zero), np.concatenate((SPECIAL, dense)))
        assert (values == 0).all()


@pytest.mark.parametrize("top", [0.0, -20.0, 1e4, 3e30])
@pytest.mark.parametrize("scale", [1.0, 1 / 3, 1 / 0.3, 1e-6, 1e30])
def test_exponential(top, scale):
    top, scale = np.float32(top), np.float32(scale)
    inputs = np.concatenate([top - span * np.linspace(0, 1, 20 * TILE, dtype=np.float32)
                             for span in floats(1e-3 / scale, 1 / scale, 130 / scale)])
    inputs[:TILE] = floats(-INF, -3e38, *[top] * (TILE - 2))
    values = np.empty_like(inputs)
    exponential_of(inputs, top, scale, values)
    exponent = float(scale) * (inputs.astype(np.float64) - float(top)) / math.log(2)
    assert (values[exponent < -126 - 1e-4] == 0).all() and values[0] == 0
    assert (values[exponent > -126 + 1e-4] >= np.float32(2 ** -126)).all()
    assert (values[inputs == top] == 1).all() and values.max() == 1
    normal = exponent > -126 + 1e-4
    # The error grows with the exponent, because the exponent itself is rounded.
    allowed = 2e-7 + 1.5e-7 * np.abs(exponent[normal])
    assert (np.abs(values[normal] / np.exp2(exponent[normal]) - 1) < allowed).all()


def test_lanes():
    for threshold in (-INF, -0.5, 0.0, 0.3, INF):
        inputs = RANDOM.standard_normal(TILE + 1).astype(np.float32)
        inputs[3], inputs[TILE - 1] = threshold, -INF if threshold == -INF else 4
        vector, shifted = inputs[:TILE], inputs[1:]
        outputs = np.empty((4, TILE), np.float32)
        top, whole = lane_operations(inputs, np.float32(threshold), outputs)
        assert (outputs[0] == vector + shifted).all()
        scaled = vector.astype(np.float64) + shifted.astype(np.float64) * inputs[2]
        assert np.allclose(outputs[1], scaled, rtol=3e-7, atol=3e-7, equal_nan=True)
        assert (outputs[2] == np.where(vector >= threshold, vector, 0)).all()
        assert (outputs[3] == np.roll(vector, HALF)).all()
        assert top == vector.max()
        assert whole == vector.sum() or abs(whole - vector.astype(np.float64).sum()) < 1e-5


@pytest.mark.parametrize("lane", range(TILE))
def test_max_and_sum_read_every_lane(lane):
    inputs, outputs = np.zeros(TILE + 1, np.float32), np.empty((4, TILE), np.float32)
    inputs[lane] = 1
    assert lane_operations(inputs, np.float32(0), outputs) == (1, 1)
    inputs[:TILE] = -INF
    inputs[lane] = -2
    assert lane_operations(inputs, np.float32(0), outputs) == (-2, -INF)


def test_float_of_bits():
    for number in floats(0, 1, 2 ** -126, 0.3, 1e-45):
        assert float_of_bits(number.view(np.int32)) == number


@pytest.mark.parametrize("bf16", [False, True])
def test_weights_of_32_and_of_16_bits(bf16):
    torch.manual_seed(0)
    weights = torch.randn(5, TILE) * torch.logspace(-38, 38, 5)[:, None]
    weights[0, :4] = torch.tensor([0.0, -0.0, INF, -INF])
    weights = (weights.bfloat16().float() if bf16 else weights).numpy()
    stored = pack_bf16(weights) if bf16 else weights
    assert stored.nbytes == weights.nbytes / (2 if bf16 else 1)
    for index in range(5):
        outputs = np.empty(TILE, np.float32)
        row_of(stored, index, np.full(TILE, -0.0, np.float32), outputs)  # -0 + x is x for any x
        assert (outputs.view(np.int32) == weights[index].view(np.int32)).all()  # also the sign of 0
