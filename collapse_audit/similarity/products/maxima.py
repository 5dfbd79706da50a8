"""Which chunks of columns can hold the nearest prototype of a row: the largest score of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from collapse_audit.similarity.products.panel import Operand, Panel
from collapse_audit.similarity.products.rows import Float32, Float64, Index, parts
from collapse_audit.similarity.progress import Progress

_ROWS = 1024
_COLUMNS = 2048
# Rows that look again at a chunk, at once.
_ROWS_AGAIN = 4096
# Columns in a chunk: few, because a row looks again at every column of a chunk that may hold its
# nearest; more where one score per row and chunk would take too much memory.
_WIDTH = 256
_CHUNKS = 256


class ChunkMaxima:
    """The largest score of every row in every chunk of columns, without the row itself."""

    def __init__(
        self,
        panel: Panel,
        rows: Index,  # whose nearest is sought, sorted; either all columns or a part of them
        columns: Index,  # among which it is sought, sorted
        *,
        # pairs whose cosine may reach the row's value, told by a sharper product
        again: Callable[[Operand, Operand, Float64], tuple[Index, Index]],
        # cosine of a neighbour already found, for some rows; -inf where there is none, and 2 where
        # none is sought; asked anew for every batch
        known: Callable[[Index], Float64],
        progress: Progress,  # called with ("nearest", rows done, rows in all)
    ) -> None:
        self._panel = panel
        self._again = again
        self._known = known
        self._rows = rows
        self._columns = columns
        self._width = _WIDTH * -(-len(columns) // (_WIDTH * _CHUNKS))
        chunks = -(-len(columns) // self._width)
        # Codes keep no order among negative scores: chunks without a positive one stay at zero.
        self._maxima = np.zeros((chunks, len(rows)), dtype=np.float32)
        symmetric = len(rows) == len(columns)
        blocks = [(part, Operand(columns[part])) for part in parts(len(columns), _COLUMNS)]
        for part in parts(len(rows), _ROWS):
            operand = Operand(rows[part])
            for other, against in blocks[part.start // _COLUMNS if symmetric else 0 :]:
                by_row, by_column = panel.maxima(operand, against, _WIDTH)
                self._record(part, other, by_row, by_column, symmetric=symmetric)
            progress("nearest", part.stop, len(rows))
        self._best = np.zeros(len(rows), dtype=np.intp)
        largest = self._maxima[0].copy()
        for chunk, maxima in enumerate(self._maxima):  # numpy's argmax takes 7 times as long
            self._best[maxima > largest] = chunk
            np.maximum(largest, maxima, out=largest)
        self._reached = panel.reached(largest)

    def _record(
        self, part: slice, other: slice, by_row: Float32, by_column: Float32, *, symmetric: bool
    ) -> None:
        for place, start in enumerate(range(other.start, other.stop, _WIDTH)):
            chunk = self._maxima[start // self._width, part]
            np.maximum(chunk, by_row[:, place], out=chunk)
        if symmetric and other.start >= part.stop:
            for place, start in enumerate(range(part.start, part.stop, _WIDTH)):
                chunk = self._maxima[start // self._width, other]
                np.maximum(chunk, by_column[place], out=chunk)

    def pairs(self) -> Iterator[tuple[Index, Index]]:
        """Batches of pairs that may be nearest: first in the chunk with a row's largest score."""
        # What that chunk holds usually excludes the others. Every row's nearest is in, unless the
        # known one is nearer.
        for chunk in range(len(self._maxima)):
            yield from self._in_chunk(np.flatnonzero(self._best == chunk), chunk)
        score = self._score(np.arange(len(self._rows)))
        for chunk, maxima in enumerate(self._maxima):
            near = np.flatnonzero((maxima >= score) & (self._best != chunk))
            near = near[maxima[near] >= self._score(near)]
            yield from self._in_chunk(near, chunk)

    def _score(self, near: Index) -> Float32 | Float64:
        """A score that the nearest of some rows certainly reaches, by what is known by now."""
        return self._panel.score_of(np.maximum(self._reached[near], self._known(self._rows[near])))

    def _in_chunk(self, near: Index, chunk: int) -> Iterator[tuple[Index, Index]]:
        """Pairs of some rows with the columns of a chunk that may reach what is known by then."""
        start = chunk * self._width
        stop = min(start + self._width, len(self._columns))
        for part in parts(len(near), _ROWS_AGAIN):
            for other in parts(stop, _COLUMNS, start=start):
                rows = self._rows[near[part]]
                floor = np.maximum(self._reached[near[part]], self._known(rows))
                sought = np.flatnonzero(floor <= 1.0)
                if not sought.size:
                    continue
                operand, columns = Operand(rows[sought]), Operand(self._columns[other])
                r, c = self._again(operand, columns, floor[sought])
                i, j = operand.index[r], columns.index[c]
                yield i[i != j], j[i != j]
