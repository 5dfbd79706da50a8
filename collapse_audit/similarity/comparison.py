"""Tiles of exact decisions: which rows are closer to which columns than the threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.exact import ExactPairs, Mask, Threshold
from collapse_audit.similarity.panels import Float32Panel, Index, Operand, Panel, RecheckPanel, Tile
from collapse_audit.similarity.row_sources import FoldedRows, RowSource, UnitRows

NONE = -1
# More doubtful pairs than this in a tile are cheaper to settle by a float32 product first.
_MANY = 8192
# Folding pays while it leaves at most this share of pairs to exact arithmetic (0.5 us each).
_FOLD_CANDIDATES = 1e-4
_FOLD_SAMPLE = 1024
_FOLDED_DIMENSIONS = (48, 64, 128)

PanelKind: TypeAlias = Callable[[RowSource], Panel]


class PanelSet:
    """The panels of one head, built when they are first needed and shared by all thresholds.

    Attributes:
        first: The product that decides the clear pairs.
        recheck: A finer one, for tiles that the first leaves open.
    """

    def __init__(self, prototypes: Prototypes, kind: PanelKind) -> None:
        self._prototypes = prototypes
        self._kind = kind
        self.first = kind(UnitRows(prototypes))
        self.recheck: Panel = RecheckPanel(prototypes)
        self._folded: dict[int, Panel] = {}

    def folded(self, dimensions: int) -> Panel:
        """The rows folded into fewer dimensions."""
        if dimensions not in self._folded:
            self._folded[dimensions] = self._kind(FoldedRows(self._prototypes, dimensions))
        return self._folded[dimensions]


class Comparison:
    """Compares prototypes at one threshold: a fast product first, exact arithmetic where in doubt.

    Every answer equals the predicate of :class:`ExactPairs` for every pair, whatever the panels.

    Args:
        prototypes: What is compared.
        threshold: Below which distance two are duplicates.
        panel: Kind of the first product; float32 through numpy by default.
    """

    def __init__(
        self, prototypes: Prototypes, threshold: Threshold, *, panel: PanelKind = Float32Panel
    ) -> None:
        self._set_up(prototypes, threshold, PanelSet(prototypes, panel))

    def _set_up(self, prototypes: Prototypes, threshold: Threshold, panels: PanelSet) -> None:
        self.prototypes = prototypes
        self.threshold = threshold
        self.exact = ExactPairs(prototypes)
        self._panels = panels
        self._fold: Panel | None = None

    @property
    def panel(self) -> Panel:
        """The product that decides the clear pairs."""
        return self._panels.first

    def at(self, epsilon: float) -> Comparison:
        """The same prototypes in the same panels at another threshold."""
        other = object.__new__(Comparison)
        other._set_up(self.prototypes, Threshold(epsilon), self._panels)
        return other

    def try_folding(self, apart: Index) -> None:
        """Screen with folded rows from now on, if that settles almost all pairs of ``apart``.

        Args:
            apart: Some prototypes no two of which are duplicates.
        """
        sample = Operand(apart[:_FOLD_SAMPLE])
        for dimensions in _FOLDED_DIMENSIONS:
            if 2 * dimensions > self.prototypes.d:
                return
            panel = self._panels.folded(dimensions)
            tile, low, _ = self._tile(panel, sample, sample)
            candidates = np.count_nonzero(tile >= low) - len(sample)
            if candidates <= _FOLD_CANDIDATES * tile.size:
                self._fold = panel
                return

    def duplicates(self, rows: Operand, columns: Operand) -> Mask | None:
        """Which pairs are closer than the threshold (rows x columns); ``None`` if no pair is."""
        screened = self._screen(rows, columns)
        if screened is None:
            return None
        mask, doubtful = screened
        r, c = np.divmod(doubtful, len(columns))
        mask[r, c] = self.exact.closer(rows.index[r], columns.index[c], self.threshold)
        return mask

    def first_duplicate(self, rows: Operand, columns: Operand) -> Index:
        """Position of the first column closer than the threshold, per row; -1 where none is."""
        screened = self._screen(rows, columns)
        if screened is None:
            return np.full(len(rows), NONE)
        certain, doubtful = screened
        first = np.where(certain.any(axis=1), certain.argmax(axis=1), len(columns))
        r, c = np.divmod(doubtful, len(columns))
        # Only a doubtful pair that comes before the first certain one can change the answer.
        matters = c < first[r]
        r, c = r[matters], c[matters]
        closer = self.exact.closer(rows.index[r], columns.index[c], self.threshold)
        np.minimum.at(first, r[closer], c[closer])
        return np.where(first < len(columns), first, NONE)

    def may_reach(self, rows: Operand, columns: Operand, cosines: npt.NDArray[np.float64]) -> Mask:
        """Pairs whose cosine may reach the row's value: a superset, no pair of which is missed."""
        tile = self.panel.tile(rows, columns)
        low = np.array([self.panel.band(float(cosine))[0] for cosine in cosines])
        return np.asarray(tile >= low[:, None])

    def _screen(self, rows: Operand, columns: Operand) -> tuple[Mask, Index] | None:
        """Pairs certainly closer than the threshold, and places of the doubtful ones."""
        if self._fold is not None:
            tile, low, _ = self._tile(self._fold, rows, columns)
            if tile.max() < low:
                return None
            candidates = np.flatnonzero(tile >= low)
            if candidates.size <= _MANY:
                return np.zeros(tile.shape, dtype=np.bool_), candidates
        tile, low, high = self._tile(self.panel, rows, columns)
        if tile.max() < low:
            return None
        doubtful = np.flatnonzero((tile >= low) & (tile <= high))
        if doubtful.size > _MANY:
            tile, low, high = self._tile(self._panels.recheck, rows, columns)
            doubtful = np.flatnonzero((tile >= low) & (tile <= high))
        return np.asarray(tile > high), doubtful

    def _tile(self, panel: Panel, rows: Operand, columns: Operand) -> tuple[Tile, Any, Any]:
        return panel.tile(rows, columns), *panel.band(self.threshold.cosine)
