"""Tiles of exact decisions: which rows are closer to which columns than the threshold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.exact import ExactPairs, Index, Mask, Threshold
from collapse_audit.similarity.panels import Float32Panel, Operand, Panel, Tile

NONE = -1


class Comparison:
    """Compares prototypes at one threshold: a fast product first, exact arithmetic where in doubt.

    Every answer equals the predicate of :class:`ExactPairs` for every pair, whatever the panel.
    """

    def __init__(
        self, prototypes: Prototypes, threshold: Threshold, *, panel: Panel | None = None
    ) -> None:
        self.prototypes = prototypes
        self.threshold = threshold
        self.panel = panel or Float32Panel(prototypes)
        self.exact = ExactPairs(prototypes)
        self._low, self._high = self.panel.certain(threshold.cosine)

    def at(self, epsilon: float) -> Comparison:
        """The same prototypes in the same panel at another threshold."""
        return Comparison(self.prototypes, Threshold(epsilon), panel=self.panel)

    def take(self, index: Index) -> Operand:
        """Gather some prototypes once, to compare them several times."""
        return self.panel.take(index)

    def duplicates(self, rows: Operand, columns: Operand) -> Mask | None:
        """Which pairs are closer than the threshold (rows x columns); ``None`` if no pair is."""
        tile = self.panel.tile(rows, columns)
        if tile.max() < self._low:
            return None
        mask = np.asarray(tile >= self._low)
        doubtful = mask & (tile <= self._high)
        r, c = np.divmod(np.flatnonzero(doubtful), len(columns))
        if r.size:
            mask[r, c] = self.exact.closer(rows.index[r], columns.index[c], self.threshold)
        return mask

    def first_duplicate(self, rows: Operand, columns: Operand) -> npt.NDArray[np.intp]:
        """Position of the first column closer than the threshold, per row; -1 where none is."""
        first = np.full(len(rows), NONE, dtype=np.intp)
        tile = self.panel.tile(rows, columns)
        suspects = np.flatnonzero(tile.max(axis=1) >= self._low)
        if suspects.size:
            first[suspects] = self._first(tile[suspects], rows.index[suspects], columns)
        return first

    def scores_at_least(
        self, rows: Operand, columns: Operand, cosines: npt.NDArray[np.float64]
    ) -> Mask:
        """Pairs whose cosine may reach the row's value: a superset, no pair of which is missed."""
        tile = self.panel.tile(rows, columns)
        low = np.array([self.panel.certain(float(cosine))[0] for cosine in cosines])
        return np.asarray(tile >= low[:, None])

    def _first(self, tile: Tile, rows: Index, columns: Operand) -> npt.NDArray[np.intp]:
        certain = tile > self._high
        first = np.where(certain.any(axis=1), certain.argmax(axis=1), len(columns))
        # Only a doubtful pair that comes before the first certain one can change the answer.
        doubtful = (tile >= self._low) & ~certain
        r, c = np.divmod(np.flatnonzero(doubtful), len(columns))
        matters = c < first[r]
        r, c = r[matters], c[matters]
        closer = self.exact.closer(rows[r], columns.index[c], self.threshold)
        np.minimum.at(first, r[closer], c[closer])
        return np.where(first < len(columns), first, NONE)
