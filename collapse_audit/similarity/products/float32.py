"""Rows in float32, multiplied by numpy or by torch."""

from __future__ import annotations

import numpy as np

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.products.bounds import format_bound, measured_bound
from collapse_audit.similarity.products.panel import (
    HostPanel,
    Operand,
    Tile,
    as_slice,
    torch_row_maxima,
)
from collapse_audit.similarity.products.rows import Float32, Index, RowSource, blocks


class Float32Panel(HostPanel):
    """Rows in float32, multiplied by numpy's BLAS; the path that needs no torch."""

    def __init__(self, source: RowSource) -> None:
        self._rows = np.empty(source.shape, dtype=np.float32)
        for part, rows in blocks(source):
            self._rows[part] = rows
        self.error = measured_bound(source.shape[1], residual=source.residual)
        self._buffer = np.empty(0, dtype=np.float32)

    def gather(self, index: Index) -> Float32:
        """Some rows, float32."""
        return self._rows[as_slice(index)]

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float32."""
        out = self._out(len(rows), len(columns))
        return np.matmul(rows.rows_of(self), columns.rows_of(self).T, out=out)

    def _out(self, rows: int, columns: int) -> Float32:
        if self._buffer.size < rows * columns:
            self._buffer = np.empty(rows * columns, dtype=np.float32)
        return self._buffer[: rows * columns].reshape(rows, columns)

    def codes(self, low: float, high: float) -> tuple[np.float32, np.float32]:
        """Thresholds rounded outwards to float32."""
        return _float32_below(low), -_float32_below(-high)


class TorchFloat32Panel(Float32Panel):
    """Rows in float32, multiplied by torch where its product is faster than numpy's."""

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float32."""
        import torch

        out = self._out(len(rows), len(columns))
        left, right = (torch.from_numpy(side.rows_of(self)) for side in (rows, columns))
        torch.mm(left, right.T, out=torch.from_numpy(out))
        return out

    def row_maxima(self, tile: Tile, width: int) -> Tile:
        """Largest scores of each row in stretches of columns (rows x stretches)."""
        found = torch_row_maxima(tile, width)
        return super().row_maxima(tile, width) if found is None else found


class RecheckPanel(Float32Panel):
    """The same products without keeping the rows: for the few tiles a coarser panel leaves open."""

    def __init__(self, prototypes: Prototypes) -> None:
        self._prototypes = prototypes
        self.error = format_bound("float32", prototypes.d)
        self._buffer = np.empty(0, dtype=np.float32)

    def gather(self, index: Index) -> Float32:
        """Some unit rows, rounded from float64."""
        return self._prototypes.unit_rows(index).astype(np.float32)


def _float32_below(value: float) -> np.float32:
    """The largest float32 at most ``value``."""
    rounded = np.float32(value)
    return rounded if rounded <= value else np.nextafter(rounded, np.float32(-np.inf))
