"""The layout of a network's weights for compiled kernels.

A matrix is stored in rows of TILE weights: the weights of one input to TILE outputs. The outputs of
a row are its *lanes*. A list of lanes says which output each lane computes, or -1 for none.
"""

from typing import Any, TypeVar

import numpy as np
import torch
from numba.extending import register_jitable

from models.kernels.vectors import HALF, TILE

CACHE_LINE = 64  # bytes

Arrays = TypeVar("Arrays", bound=Any)  # a named tuple with arrays and plain values


@register_jitable
def round_up(size, multiple=TILE):
    """The least multiple of `multiple` that is at least `size`. Also callable in kernels."""
    return -(-size // multiple) * multiple


# ------------------------------------------------------------------------------ lanes

def consecutive_lanes(begin: int, end: int) -> np.ndarray:
    """Lanes that compute the outputs `begin` to end - 1 in order: (tiles · TILE,)."""
    lanes = np.full(round_up(end - begin), -1)
    lanes[:end - begin] = np.arange(begin, end)
    return lanes


def gate_lanes(begin: int, end: int, width: int) -> np.ndarray:
    """Lanes that compute a gate's inputs for the features `begin` to end - 1: (tiles · TILE,).

    Each tile has the tanh inputs of HALF features, then the σ inputs of the same features, which
    are `width` outputs later.
    """
    features = np.full(round_up(end - begin, HALF), -1)
    features[:end - begin] = np.arange(begin, end)
    features = features.reshape(-1, HALF)
    return np.stack((features, np.where(features < 0, -1, features + width)), axis=1).ravel()


# ------------------------------------------------------------------------------ packing

def to_numpy(tensor: torch.Tensor | np.ndarray | None) -> np.ndarray:
    """A parameter's values as an array. Raises TypeError for None, an absent bias."""
    if tensor is None:
        raise TypeError("the layer has no such parameter")
    return tensor.detach().cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor


def flat(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers, one-dimensional as kernels take them. Those of a contiguous tensor on the
    CPU are not copied, so what a kernel writes to them is in the tensor."""
    return to_numpy(tensor).reshape(-1)


def pack_rows(weight: torch.Tensor | np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """Lay out a matrix (out, inputs) for `products.multiply`, tile after tile.

    Returns (tiles · inputs, TILE), float32; 0 where a lane computes nothing.
    """
    weight = to_numpy(weight)
    selected = weight[lanes].astype(np.float32, copy=False)
    selected[lanes < 0] = 0
    tiles = selected.reshape(len(lanes) // TILE, TILE, weight.shape[1])
    return np.ascontiguousarray(tiles.transpose(0, 2, 1)).reshape(-1, TILE)


def pack_lanes(vector: torch.Tensor | np.ndarray, lanes: np.ndarray,
               fill: float = 0) -> np.ndarray:
    """Lay out biases (…, out) in the order of `lanes`: (…, tiles · TILE), float32.

    fill: the value where a lane computes nothing.
    """
    return np.where(lanes < 0, fill, to_numpy(vector)[..., lanes]).astype(np.float32)


def pack_bf16(rows: np.ndarray) -> np.ndarray:
    """Pack rows that bfloat16 represents exactly into 16 bits per weight.

    rows: (rows, TILE), float32 -> (rows, HALF), uint32; see `vectors.load_row`.
    """
    bits = rows.view(np.uint32)
    return np.ascontiguousarray(bits[:, :HALF] >> 16 | bits[:, HALF:] & 0xFFFF0000)


# ------------------------------------------------------------------------------ alignment

def aligned_zeros(shape, dtype: Any = np.float32) -> np.ndarray:
    """An array of zeros that begins at a cache line, so that no vector crosses one needlessly."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    begin = -memory.ctypes.data % CACHE_LINE
    return memory[begin:begin + size].view(dtype).reshape(shape)


def align_arrays(weights: Arrays) -> Arrays:
    """A copy of a named tuple whose arrays begin at a cache line; integers become int64."""
    return weights._make(_align(field) if isinstance(field, np.ndarray) else field
                         for field in weights)


def _align(array: np.ndarray) -> np.ndarray:
    aligned = aligned_zeros(array.shape, np.int64 if array.dtype.kind == "i" else array.dtype)
    aligned[...] = array
    return aligned
