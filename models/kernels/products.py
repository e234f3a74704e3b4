"""Matrix products in compiled loops: outputs = addend + weights · inputs, for several columns.

Columns are whatever there are several of: sequences, images, pixels of a row, times, or, in the
gradient of a matrix, the rows of that matrix. A column's products are added in the order of its
inputs, for any number of columns. So a result does not depend, to the last bit, on the batch or on
the number of threads.

**Blocks.** A block computes some tiles of outputs for some columns. Its sums stay in registers
while a loop runs over the inputs. A step of the loop loads a row of weights (two registers for each
tile) and one input for each column. To reach the processor's limit, a block needs

- at least 8 sums: two multiply-adds begin in a cycle, and each takes four cycles;
- more multiply-adds than loads: a core begins as many of each in a cycle;
- no more registers than there are.

Full blocks have 6 columns. With 16 registers (AVX2, SSE) they have one tile: 12 sums, 2 weights and
1 input, 8 loads for 12 multiply-adds. With 32 registers (AVX-512, Arm) they have two tiles: 24
sums, 10 loads for 24 multiply-adds. The remaining columns take blocks of 4, 2 and 1. These have
more tiles, so that there are 8 sums again.

**Traffic.** All full blocks use a tile's weights before the next tile's turn: 4 kB for 64 inputs
with AVX2. These stay in the first-level cache, and each weight serves 6 columns, 12 operations for
4 bytes. A single column, as in drawing one sound, is as fast as the cache that holds the weights.
"""

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.compiling import OPTIONS, inlined
from models.kernels.gates import gate, gate_two
from models.kernels.vectors import (
    REGISTERS,
    TILE,
    add,
    broadcast,
    load,
    load_weights,
    multiply_add,
    relu,
    shift,
    store,
)

FULL_TILES = 2 if REGISTERS >= 32 else 1


# ------------------------------------------------------------------------------ blocks

def _make_block(tiles: int, columns: int):
    """An operation that computes a block: the arguments are `multiply`'s, without the counts."""
    @intrinsic
    def block(context, addend, addend_step, weights, tile_step, row_step, inputs, column_step,
              input_step, n, outputs, output_step):
        packed = weights.dtype == types.uint32

        def generate(context, builder, signature, args):
            (addend, addend_step, weights, tile_step, row_step, inputs, column_step, input_step, n,
             outputs, output_step) = args
            like = ir.VectorType(ir.FloatType(), TILE)

            def offset(step, count):
                return builder.mul(step, ir.Constant(step.type, count))

            def cell(base, step, tile, column):
                index = builder.add(offset(step, column), ir.Constant(step.type, tile * TILE))
                return builder.bitcast(builder.gep(base, [index]), like.as_pointer())

            cells = [(tile, column) for column in range(columns) for tile in range(tiles)]
            sums = [cgutils.alloca_once_value(
                builder, builder.load(cell(addend, addend_step, *place), align=4))
                for place in cells]
            with cgutils.for_range(builder, n) as loop:
                row = builder.gep(weights, [builder.mul(loop.index, row_step)])
                item = builder.gep(inputs, [builder.mul(loop.index, input_step)])
                rows = [load_weights(builder, builder.gep(row, [offset(tile_step, tile)]), packed)
                        for tile in range(tiles)]
                scales = [broadcast(builder, builder.load(
                    builder.gep(item, [offset(column_step, column)])), like)
                    for column in range(columns)]
                for (tile, column), total in zip(cells, sums, strict=True):
                    builder.store(multiply_add(builder, rows[tile], scales[column],
                                               builder.load(total)), total)
            for place, total in zip(cells, sums, strict=True):
                builder.store(builder.load(total), cell(outputs, output_step, *place), align=4)
            return context.get_dummy_value()

        return types.void(addend, types.intp, weights, types.intp, types.intp, inputs, types.intp,
                          types.intp, types.intp, outputs, types.intp), generate

    return block


def _make_columns(columns: int, most: int):
    """A function like `multiply` for a fixed number of columns; a block has up to `most` tiles.

    most: 2 or 4. The remaining tiles take a block of 2 and one of 1.
    """
    four, two, one = (_make_block(tiles, columns) for tiles in (4, 2, 1))

    @inlined
    def compute(addend, addend_step, weights, tile_step, row_step, inputs, column_step, input_step,
                n, outputs, output_step, tiles):
        tile = 0
        if most == 4:
            while tile + 4 <= tiles:
                four(shift(addend, tile * TILE), addend_step, shift(weights, tile * tile_step),
                     tile_step, row_step, inputs, column_step, input_step, n,
                     shift(outputs, tile * TILE), output_step)
                tile += 4
        if most >= 2:
            while tile + 2 <= tiles:
                two(shift(addend, tile * TILE), addend_step, shift(weights, tile * tile_step),
                    tile_step, row_step, inputs, column_step, input_step, n,
                    shift(outputs, tile * TILE), output_step)
                tile += 2
        while tile < tiles:
            one(shift(addend, tile * TILE), addend_step, shift(weights, tile * tile_step),
                tile_step, row_step, inputs, column_step, input_step, n,
                shift(outputs, tile * TILE), output_step)
            tile += 1

    return compute


_full_block, _full_block_of_a_tile = _make_block(FULL_TILES, 6), _make_block(1, 6)
_four_columns = _make_columns(4, FULL_TILES)
_two_columns = _make_columns(2, 2 * FULL_TILES)
_one_column = _make_columns(1, 4)


# ------------------------------------------------------------------------------ products

# numba would pass the option on from a caller that is `inlined`. Copies of all blocks at each call
# would take a minute to compile, and a call costs less than 10 ns.
@numba.njit(forceinline=False, **OPTIONS)
def multiply(addend, addend_step, weights, tile_step, row_step, inputs, column_step, input_step, n,
             outputs, output_step, tiles, columns):
    """Write addend + weights · inputs to `outputs`, which may be the addend.

    All but the counts n (inputs of a column), tiles and columns are pointers to float32, each with
    the steps in which it is read:

    addend, outputs: column c has its tiles · TILE numbers from c · step on.
    weights: the TILE weights of input j in tile t begin at t · tile_step + j · row_step. A pointer
        to uint32 has two weights of bfloat16 in each item, see `layout.pack_bf16`.
    inputs: input j of column c is at c · column_step + j · input_step.
    """
    if columns == 1:
        _one_column(addend, addend_step, weights, tile_step, row_step, inputs, column_step,
                    input_step, n, outputs, output_step, tiles)
        return
    full = columns // 6 * 6
    for tile in range(0, tiles if full else 0, FULL_TILES):
        for c in range(0, full, 6):
            if tile + FULL_TILES <= tiles:
                _full_block(shift(addend, c * addend_step + tile * TILE), addend_step,
                            shift(weights, tile * tile_step), tile_step, row_step,
                            shift(inputs, c * column_step), column_step, input_step, n,
                            shift(outputs, c * output_step + tile * TILE), output_step)
            else:
                _full_block_of_a_tile(
                    shift(addend, c * addend_step + tile * TILE), addend_step,
                    shift(weights, tile * tile_step), tile_step, row_step,
                    shift(inputs, c * column_step), column_step, input_step, n,
                    shift(outputs, c * output_step + tile * TILE), output_step)
    c = full
    if columns - c >= 4:
        _four_columns(shift(addend, c * addend_step), addend_step, weights, tile_step, row_step,
                      shift(inputs, c * column_step), column_step, input_step, n,
                      shift(outputs, c * output_step), output_step, tiles)
        c += 4
    if columns - c >= 2:
        _two_columns(shift(addend, c * addend_step), addend_step, weights, tile_step, row_step,
                     shift(inputs, c * column_step), column_step, input_step, n,
                     shift(outputs, c * output_step), output_step, tiles)
        c += 2
    if c < columns:
        _one_column(shift(addend, c * addend_step), addend_step, weights, tile_step, row_step,
                    shift(inputs, c * column_step), column_step, input_step, n,
                    shift(outputs, c * output_step), output_step, tiles)


# ------------------------------------------------------------------------------ copies and gates

@inlined
def copy_tiles(source, s, outputs, o, tiles):
    """Copy tiles of floats."""
    for i in range(0, tiles * TILE, TILE):
        store(outputs, o + i, load(source, s + i))


@inlined
def relu_tiles(inputs, i, i_step, outputs, o, o_step, tiles, columns):
    """Write the larger of 0 and each number of each column's tiles; in place if both are one."""
    for c in range(columns):
        for at in range(0, tiles * TILE, TILE):
            store(outputs, o + c * o_step + at, relu(load(inputs, i + c * i_step + at)))


@inlined
def gate_tiles(inputs, i, i_step, outputs, o, o_step, tiles, columns):
    """Gate each column's tiles of inputs: HALF outputs for each tile. See `layout.gate_lanes`."""
    for c in range(columns):
        x, y = i + c * i_step, o + c * o_step
        for _ in range(tiles // 2):
            store(outputs, y, gate_two(load(inputs, x), load(inputs, x + TILE)))
            x += 2 * TILE
            y += TILE
        if tiles % 2:
            store(outputs, y, gate(load(inputs, x)))


@inlined
def gate_sums(inputs, i, i_step, addend, a, outputs, o, o_step, tiles, columns):
    """`gate_tiles` of the inputs plus the tiles of `addend` from a on."""
    for c in range(columns):
        x, y, z = i + c * i_step, o + c * o_step, a
        for _ in range(tiles // 2):
            store(outputs, y, gate_two(
                add(load(inputs, x), load(addend, z)),
                add(load(inputs, x + TILE), load(addend, z + TILE))))
            x += 2 * TILE
            y += TILE
            z += 2 * TILE
        if tiles % 2:
            store(outputs, y, gate(add(load(inputs, x), load(addend, z))))
