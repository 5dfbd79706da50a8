"""Panels: the unit rows in a fast arithmetic, and tiles of their products with a proved bound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.error_bounds import measured_bound
from collapse_audit.similarity.exact import Index

# A tile of scores as something ordered like the scores: floats, or the bits of positive bf16.
Tile: TypeAlias = npt.NDArray[Any]

_ROWS_AT_ONCE = 2048


class Operand:
    """Some prototypes, ready to be multiplied.

    Attributes:
        index: Which prototypes.
        matrix: Their rows in the panel's arithmetic, contiguous.
    """

    __slots__ = ("index", "matrix")

    def __init__(self, index: Index, matrix: Any) -> None:
        self.index = index
        self.matrix = matrix

    def __len__(self) -> int:
        return len(self.index)


class Panel(ABC):
    """The unit rows of all prototypes in one arithmetic.

    Attributes:
        error: Proved bound on |score - cosine| for every pair.
    """

    error: float

    @abstractmethod
    def take(self, index: Index) -> Operand:
        """Gather some rows."""

    @abstractmethod
    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs (rows x columns); valid until the next call."""

    @abstractmethod
    def certain(self, cosine: float) -> tuple[Any, Any]:
        """Codes (low, high): a code below low proves cosine <= c, one above high proves > c."""


class Float32Panel(Panel):
    """Rows in float32, multiplied by numpy's BLAS; the path that needs no torch."""

    def __init__(self, prototypes: Prototypes) -> None:
        self._rows = np.empty((prototypes.k, prototypes.d), dtype=np.float32)
        self.error = _fill_and_measure(prototypes, self._rows)
        self._buffer = np.empty(0, dtype=np.float32)

    def take(self, index: Index) -> Operand:
        """Gather some rows."""
        return Operand(index, self._rows[index])

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float32."""
        size = len(rows) * len(columns)
        if self._buffer.size < size:
            self._buffer = np.empty(size, dtype=np.float32)
        out = self._buffer[:size].reshape(len(rows), len(columns))
        return np.matmul(rows.matrix, columns.matrix.T, out=out)

    def certain(self, cosine: float) -> tuple[np.float32, np.float32]:
        """Thresholds rounded outwards to float32."""
        low = np.nextafter(np.float32(cosine - self.error), np.float32(-np.inf))
        high = np.nextafter(np.float32(cosine + self.error), np.float32(np.inf))
        return low, high


def _fill_and_measure(prototypes: Prototypes, out: npt.NDArray[np.float32]) -> float:
    """Write the unit rows as float32 and return the bound their measured rounding gives."""
    residual = largest = 0.0
    for start in range(0, prototypes.k, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        unit = prototypes.unit_rows(part)
        out[part] = unit
        stored = out[part].astype(np.float64)
        largest = max(largest, float(np.einsum("kd,kd->k", stored, stored).max()))
        stored -= unit
        residual = max(residual, float(np.einsum("kd,kd->k", stored, stored).max()))
    return measured_bound(prototypes.d, residual=residual**0.5, largest_norm=largest**0.5)
