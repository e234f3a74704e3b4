"""Which columns each dilated layer of a WaveNet computes, and in which chunks."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class LayerPlan(NamedTuple):
    """What a layer computes, in rows: time t of B sequences is the rows t · B to (t + 1) · B - 1.

    begin: the first row of its input.
    first: the first row that it computes.
    shift: rows between a row and the one d times before.
    chunks: (first row, end, source): source is the row d times before the first row, or None for
        times less than d after the beginning, where x_{t-d} is the first column.
    largest_chunk: the number of rows in it.
    offset: row i is at offset + i in the activations of all layers.
    end: the row after this layer's last one in the activations of all layers.
    """

    begin: int
    first: int
    shift: int
    chunks: list[tuple[int, int, int | None]]
    largest_chunk: int
    offset: int
    end: int


def plan_layers(T: int, B: int, outputs: int, dilations: Sequence[int],
                length: int) -> list[LayerPlan]:
    """Plan the layers so that each computes only what the outputs need.

    Args:
        T: columns of the first layer's input. It is constant before its first column, so one column
            stands for all times before.
        B: number of sequences.
        outputs: how many of the last times have a skip connection.
        dilations: d of each layer.
        length: the most times in a chunk. No chunk crosses a multiple of it.
    """
    layers: list[LayerPlan] = []
    begin, end, needed = 0, 0, outputs + sum(dilations)
    for d in dilations:
        needed -= d
        first = max(T - needed, begin)
        known = min(max(begin + d, first), T)  # from here on t - d is not before the beginning
        chunks: list[tuple[int, int, int | None]] = [
            (i * B, j * B, None) for i, j in _chunks(first, known, length)]
        chunks += [(i * B, j * B, (i - d) * B) for i, j in _chunks(known, T, length)]
        layers.append(LayerPlan(begin * B, first * B, d * B, chunks,
                                max(j - i for i, j, _ in chunks),
                                end - first * B, end + (T - first) * B))
        begin, end = first, layers[-1].end
    return layers


def _chunks(first: int, end: int, length: int) -> Iterator[tuple[int, int]]:
    """The times from `first` to `end`, cut at all multiples of `length`."""
    while first < end:
        cut = min((first // length + 1) * length, end)
        yield first, cut
        first = cut
