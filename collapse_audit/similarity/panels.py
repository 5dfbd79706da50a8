"""Panels: rows in a fast arithmetic, and tiles of their products with a proved bound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.error_bounds import format_bound, measured_bound
from collapse_audit.similarity.row_sources import FLOAT32_RESIDUAL, RowSource

Index: TypeAlias = npt.NDArray[np.intp]
# Scores of rows x columns as something ordered like them: float32, or the bits of positive bf16.
Tile: TypeAlias = npt.NDArray[Any]

ROWS_AT_ONCE = 2048


class Operand:
    """Some prototypes, gathered once in each panel they are multiplied in.

    Attributes:
        index: Which prototypes.
    """

    __slots__ = ("_gathered", "index")

    def __init__(self, index: Index) -> None:
        self.index = index
        self._gathered: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.index)

    def rows_of(self, panel: Panel) -> Any:
        """The rows of these prototypes in a panel."""
        if id(panel) not in self._gathered:
            self._gathered[id(panel)] = panel.gather(self.index)
        return self._gathered[id(panel)]


class Panel(ABC):
    """Rows of unit norm in one arithmetic.

    Attributes:
        error: Proved bound on |score - inner product| for every pair of rows.
        rounding: Relative error of the values of a tile beyond that, where scores are stored in
            fewer bits than they were summed in.
        lowest: A code below all others.
    """

    error: float
    rounding: float = 0.0
    lowest: Any = -np.inf

    @abstractmethod
    def gather(self, index: Index) -> Any:
        """Some rows, contiguous."""

    @abstractmethod
    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs (rows x columns); valid until the next call."""

    @abstractmethod
    def codes(self, low: float, high: float) -> tuple[Any, Any]:
        """A code at most ``low`` and one at least ``high``, as they stand in a tile."""

    def band(self, cosine: float) -> tuple[Any, Any]:
        """Codes (low, high): below low proves cosine <= c, above high proves cosine > c."""
        return self.codes(cosine - self.error, cosine + self.error)

    def values(self, tile: Tile) -> npt.NDArray[np.float32]:
        """The scores that a tile stands for."""
        return tile


class Float32Panel(Panel):
    """Rows in float32, multiplied by numpy's BLAS; the path that needs no torch."""

    def __init__(self, source: RowSource) -> None:
        self._rows = np.empty(source.shape, dtype=np.float32)
        for start in range(0, len(self._rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            self._rows[part] = source.block(part)
        self.error = measured_bound(source.shape[1], residual=FLOAT32_RESIDUAL)
        self._buffer = np.empty(0, dtype=np.float32)

    def gather(self, index: Index) -> npt.NDArray[np.float32]:
        """Some rows, float32."""
        return self._rows[as_slice(index)]

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float32."""
        out = self._out(len(rows), len(columns))
        return np.matmul(rows.rows_of(self), columns.rows_of(self).T, out=out)

    def _out(self, rows: int, columns: int) -> npt.NDArray[np.float32]:
        if self._buffer.size < rows * columns:
            self._buffer = np.empty(rows * columns, dtype=np.float32)
        return self._buffer[: rows * columns].reshape(rows, columns)

    def codes(self, low: float, high: float) -> tuple[np.float32, np.float32]:
        """Thresholds rounded outwards to float32."""
        return _float32_below(low), -_float32_below(-high)


class RecheckPanel(Float32Panel):
    """The same products without keeping the rows: for the few tiles a coarser panel leaves open."""

    def __init__(self, prototypes: Prototypes) -> None:
        self._prototypes = prototypes
        self.error = format_bound("float32", prototypes.d)
        self._buffer = np.empty(0, dtype=np.float32)

    def gather(self, index: Index) -> npt.NDArray[np.float32]:
        """Some unit rows, rounded from float64."""
        return self._prototypes.unit_rows(index).astype(np.float32)


def as_slice(index: Index) -> Index | slice:
    """The same places as a slice where they are consecutive, which spares a copy."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _float32_below(value: float) -> np.float32:
    """The largest float32 at most ``value``."""
    rounded = np.float32(value)
    return rounded if rounded <= value else np.nextafter(rounded, np.float32(-np.inf))
