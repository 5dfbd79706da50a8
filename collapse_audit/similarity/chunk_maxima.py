"""Which chunks of columns can hold the nearest prototype of a row: the largest score of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from collapse_audit.similarity.panels import Index, Operand, Panel
from collapse_audit.similarity.progress import Progress

_ROWS = 1024
_COLUMNS = 2048
# Columns in a chunk: few, because a row looks again at every column of a chunk that may hold its
# nearest; more where one score per row and chunk would take too much memory.
_WIDTH = 512
_CHUNKS = 128


class ChunkMaxima:
    """The largest score of every row in every chunk of columns, without the row itself.

    Args:
        panel: What multiplies.
        rows: Prototypes whose nearest is sought, sorted; either all columns or a part of them.
        columns: Prototypes among which it is sought, sorted.
        progress: Called with ("nearest", rows done, rows in all).
    """

    def __init__(self, panel: Panel, rows: Index, columns: Index, progress: Progress) -> None:
        self._panel = panel
        self._rows = rows
        self._columns = columns
        self._width = _WIDTH * -(-len(columns) // (_WIDTH * _CHUNKS))
        chunks = -(-len(columns) // self._width)
        # Codes keep no order among negative scores: chunks without a positive one stay at zero.
        self._maxima = np.zeros((len(rows), chunks), dtype=np.float32)
        symmetric = len(rows) == len(columns)
        for part in parts(len(rows), _ROWS):
            first = part.start // _COLUMNS * _COLUMNS if symmetric else 0
            for other in parts(len(columns), _COLUMNS, start=first):
                self._record(part, other, symmetric=symmetric)
            progress("nearest", part.stop, len(rows))

    def _record(self, part: slice, other: slice, *, symmetric: bool) -> None:
        rows, columns = Operand(self._rows[part]), Operand(self._columns[other])
        by_row, by_column = self._panel.maxima(rows, columns, _WIDTH)
        for place, start in enumerate(range(other.start, other.stop, _WIDTH)):
            chunk = self._maxima[part, start // self._width]
            np.maximum(chunk, by_row[:, place], out=chunk)
        if symmetric and other.start >= part.stop:
            for place, start in enumerate(range(part.start, part.stop, _WIDTH)):
                chunk = self._maxima[other, start // self._width]
                np.maximum(chunk, by_column[place], out=chunk)

    def candidates(self, known: npt.NDArray[np.float64]) -> Iterator[tuple[Index, Index]]:
        """Pairs that may be nearest, in batches.

        Args:
            known: Cosine of a neighbour already found, for each row; -inf where there is none.

        Yields:
            Rows and columns of pairs: every row's nearest, unless the known one is nearer.
        """
        floor = np.maximum(self._panel.reached(self._maxima.max(axis=1)), known)
        score = self._panel.score_of(floor)
        for chunk in range(self._maxima.shape[1]):
            start = chunk * self._width
            stop = min(start + self._width, len(self._columns))
            near = np.flatnonzero(self._maxima[:, chunk] >= score)
            for part in parts(len(near), _ROWS):
                rows = near[part]
                operand = Operand(self._rows[rows])
                for other in parts(stop, _COLUMNS, start=start):
                    columns = Operand(self._columns[other])
                    r, c = self._panel.may_reach(operand, columns, floor[rows])
                    i, j = operand.index[r], columns.index[c]
                    yield i[i != j], j[i != j]


def parts(count: int, size: int, *, start: int = 0) -> Iterator[slice]:
    """Slices of ``size`` that cover ``start`` to ``count``."""
    return (slice(first, min(first + size, count)) for first in range(start, count, size))
