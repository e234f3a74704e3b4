"""Convolutions of channels-last images, a row at a time, and their kernels' gradients.

C neighbouring pixels of a row are C · n adjacent numbers, so a kernel of R rows and C columns needs
R products for a row of outputs. All are `products.multiply`:

- forward: pixels are the columns, and the kernel's (C, n) the inputs, of tiles of output features;
- the images' gradient is the same with the kernel reversed and transposed;
- the kernel's gradient: the kernel's (C, n) are the columns, and the pixels of all rows the inputs,
  of tiles of output features.

Nothing is padded here: images lie in memory with the zeros around them that a kernel reads. The
distance between rows, their `pitch`, is in pixels.
"""

import numba

from models.kernels.compiling import OPTIONS
from models.kernels.layout import round_up
from models.kernels.products import FULL_TILES, multiply
from models.kernels.vectors import TILE, load, pointer, store

# Floats of the gradient that a kernel's gradient reads at a time: half a first-level cache. Read
# from a copy without gaps, because pixels that are a power of two apart would share cache lines.
PANEL = 4096


@numba.njit(**OPTIONS)
def convolve_row(inputs, i, pitch, n, R, C, weights, w, start, s, start_step, outputs, o, o_step,
                 width, features, spare):
    """Write `features` numbers for each of `width` pixels to outputs, from o on in steps of o_step.

    inputs: the kernel's first pixel is at i. weights: (tiles, R · C · n, TILE) from w on.
    start: what the sums start from, whole tiles for each pixel, from s on in steps of start_step;
    may be `outputs`. spare: memory for (width, tiles · TILE).
    """
    tiles = round_up(features) // TILE
    if features == tiles * TILE:
        target, step = pointer(outputs, o), o_step
    else:
        target, step = pointer(spare, 0), tiles * TILE
    sums, sums_step = pointer(start, s), start_step
    for r in range(R):
        multiply(sums, sums_step, pointer(weights, w + r * C * n * TILE), R * C * n * TILE, TILE,
                 pointer(inputs, i + r * pitch * n), n, 1, C * n, target, step, tiles, width)
        sums, sums_step = target, step
    if features < tiles * TILE:
        for j in range(width):
            for k in range(features):
                outputs[o + j * o_step + k] = spare[j * tiles * TILE + k]


@numba.njit(**OPTIONS)
def add_kernel_gradient(inputs, i, pitch, n, R, C, dy, g, dy_pitch, height, width, wide, dkernel, k,
                        panel):
    """Add the gradient of a kernel, (R · C · n, wide) from k on.

    inputs: as of `convolve_row` for the first row. dy: the outputs' gradient, `wide` numbers for
    each pixel, whole tiles; the rows begin at g in steps of dy_pitch pixels, with zeros between.
    panel: memory for PANEL floats.
    """
    rows, pixels = height, width
    if pitch == dy_pitch:  # all rows are one long row
        rows, pixels = 1, (height - 1) * pitch + width
    tiles = wide // TILE
    most = PANEL // (FULL_TILES * TILE)
    for row in range(rows):
        for begin in range(0, pixels, most):
            count = min(most, pixels - begin)
            for tile in range(0, tiles, FULL_TILES):
                several = min(FULL_TILES, tiles - tile)
                o = 0
                for t in range(tile, tile + several):
                    a = g + (row * dy_pitch + begin) * wide + t * TILE
                    for _ in range(count):
                        store(panel, o, load(dy, a))
                        o += TILE
                        a += wide
                for r in range(R):
                    total = pointer(dkernel, k + r * C * n * wide + tile * TILE)
                    multiply(total, wide, pointer(panel, 0), count * TILE, TILE,
                             pointer(inputs, i + ((row + r) * pitch + begin) * n), 1, n, count,
                             total, wide, several, C * n)


@numba.njit(**OPTIONS)
def add_pixels(dy, g, dy_pitch, height, width, wide, totals, t, one):
    """Add the numbers of all pixels, laid out as in `add_kernel_gradient`: `wide` sums from t.

    one: an array of a 1, by which the product multiplies them.
    """
    total = pointer(totals, t)
    multiply(total, 0, pointer(dy, g), TILE, wide, pointer(one, 0), 0, 0,
             (height - 1) * dy_pitch + width, total, 0, wide // TILE, 1)
