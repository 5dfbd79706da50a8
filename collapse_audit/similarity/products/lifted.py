r"""Euclidean distances as products: rows with two more entries, one of which counts as negative.

For rows of norm at most one, with q = |x|^2 / 2, the lifted row is (x, 1 - q, q), and with the last
product subtracted

.. math:: x_i \cdot x_j + (1 - q_i)(1 - q_j) - q_i q_j = 1 - \lVert x_i - x_j \rVert^2 / 2 ,

which for unit rows is their cosine, and stands for it everywhere. By Cauchy-Schwarz its error is
bounded as that of an inner product is; lifted rows have norms sqrt(1 + 2 q^2), at most sqrt(1.5).
"""

from __future__ import annotations

import numpy as np

from collapse_audit.similarity.products.bounds import lifted_bound, measured_bound
from collapse_audit.similarity.products.float32 import Float32Panel
from collapse_audit.similarity.products.panel import HostPanel, Operand, Panel, Tile
from collapse_audit.similarity.products.rows import (
    FLOAT32_RESIDUAL,
    Float64,
    Index,
    Rows,
    parts,
)

_LARGEST_NORM = 1.25  # a little above sqrt(1.5), for the roundings of the norms
_ROWS_AT_ONCE = 2048


class LiftedPanel(Float32Panel):
    """Lifted rows in float32, multiplied by numpy."""

    def __init__(self, points: Rows) -> None:
        self._rows = np.empty((points.k, points.d + 2), dtype=np.float32)
        for part in parts(points.k, _ROWS_AT_ONCE):
            self._rows[part] = _lifted(points.unit_rows(part))
        self.error = measured_bound(points.d + 2, residual=FLOAT32_RESIDUAL, norm=_LARGEST_NORM)
        self._buffer = np.empty(0, dtype=np.float32)

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float32."""
        out = self._out(len(rows), len(columns))
        return np.matmul(rows.rows_of(self), _negated(columns.rows_of(self)).T, out=out)


class LiftedRecheckPanel(HostPanel):
    """The same in float64 without keeping the rows: for the tiles that float32 leaves open."""

    def __init__(self, points: Rows) -> None:
        self._points = points
        self.error = lifted_bound(points.d)

    def gather(self, index: Index) -> Float64:
        """Some lifted rows."""
        return _lifted(self._points.unit_rows(index))

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float64."""
        return np.asarray(rows.rows_of(self) @ _negated(columns.rows_of(self)).T)

    def codes(self, low: float, high: float) -> tuple[float, float]:
        """Thresholds as they are."""
        return low, high

    def score_of(self, cosines: Float64) -> Float64:
        """A score that every pair of such a cosine certainly reaches, in float64."""
        return np.asarray(cosines - self.error)


class LiftedPanels:
    """The panels of points, shared by all radii."""

    def __init__(self, points: Rows) -> None:
        self.first: Panel = LiftedPanel(points)
        self.recheck: Panel = LiftedRecheckPanel(points)

    @property
    def coarse(self) -> Panel:
        """The first panel: there is no cheaper one."""
        return self.first

    def folded(self, apart: Index, cosine: float) -> Panel | None:
        """None: points are not folded."""


def _lifted(rows: Float64) -> Float64:
    half_squares = np.einsum("kd,kd->k", rows, rows) / 2.0
    return np.column_stack([rows, 1.0 - half_squares, half_squares])


def _negated(lifted: Tile) -> Tile:
    """Lifted rows whose last product is subtracted."""
    negated = lifted.copy()
    negated[:, -1] *= -1
    return negated
