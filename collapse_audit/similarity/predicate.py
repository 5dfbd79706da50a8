"""Tiles of exact decisions: which rows are closer to which columns than the threshold."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.exact import ExactPairs, Threshold
from collapse_audit.similarity.products.panel import (
    Float32Panel,
    Index,
    Mask,
    Operand,
    Panel,
    PanelKind,
    RecheckPanel,
)
from collapse_audit.similarity.products.rows import (
    FoldedRows,
    SomeRows,
    UnitRows,
    leading_directions,
)

NONE = -1
# More doubtful pairs than this in a tile are cheaper to settle by a float32 product first.
_MANY = 8192
# Folding pays while it leaves at most this share of pairs to exact arithmetic: 0.5 us each, and a
# further look at the tile. The sample cannot tell much less.
_FOLD_CANDIDATES = 5e-6
_FOLD_SAMPLE = 1024
_FOLDED_DIMENSIONS = (*range(48, 129, 4), *range(144, 513, 16))

Answer = TypeVar("Answer")


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

    @cached_property
    def _coarser(self) -> type[Panel] | None:
        return self.first.coarser()

    @property
    def coarse_kind(self) -> PanelKind:
        """What makes the cheapest product, for questions that only ask for candidates."""
        return self._coarser or self._kind

    @cached_property
    def coarse(self) -> Panel:
        """The cheapest product of the unit rows, for such questions."""
        return self._coarser(UnitRows(self._prototypes)) if self._coarser else self.first

    @cached_property
    def _directions(self) -> npt.NDArray[np.float64]:
        widest = min(_FOLDED_DIMENSIONS[-1], self._prototypes.d // 2)
        return leading_directions(self._prototypes, widest)

    def fold(self, dimensions: int) -> FoldedRows:
        """The rows folded into fewer dimensions, not yet in a panel."""
        columns = (self._coarser or self.first).tail_columns
        directions = self._directions[:, : dimensions - columns]
        return FoldedRows(self._prototypes, directions, tail_columns=columns)

    def folded(self, dimensions: int) -> Panel:
        """The panel of folded rows, to ask for candidates."""
        if dimensions not in self._folded:
            self._folded[dimensions] = self.coarse_kind(self.fold(dimensions))
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

    @property
    def block_rows(self) -> int:
        """Rows that a scan should compare with leaders at once, as things stand."""
        return (self._fold or self.panel).block_rows

    @property
    def coarse_panel(self) -> Panel:
        """The cheapest product, for questions that only ask for candidates."""
        return self._panels.coarse

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
        sample = Operand(np.arange(len(apart[:_FOLD_SAMPLE])))
        most = _FOLD_CANDIDATES * len(sample) ** 2

        def settles(dimensions: int) -> bool:
            folded = self._panels.fold(dimensions)
            trial = self._panels.coarse_kind(SomeRows(folded, apart[:_FOLD_SAMPLE]))
            return trial.candidates(sample, sample, self.threshold.cosine).size <= most

        tried = [n for n in _FOLDED_DIMENSIONS if 2 * n <= self.prototypes.d]
        fewest = bisect_left(tried, True, key=settles)
        if fewest < len(tried):
            self._fold = self._panels.folded(tried[fewest])

    def duplicates(self, rows: Operand, columns: Operand) -> Mask | None:
        """Which pairs are closer than the threshold (rows x columns); ``None`` if no pair is.

        Where an operand is compared with itself, no prototype counts as close to itself.

        Returns:
            A mask to keep or change.
        """
        hits = self._folded_hits(rows, columns)
        if hits is not None:
            if not hits[0].size:
                return None
            mask = np.zeros((len(rows), len(columns)), dtype=np.bool_)
            mask[hits] = True
        else:
            screened = self._settled(lambda p: p.screen(rows, columns, self.threshold.cosine))
            if screened is None:
                return None
            mask, doubtful = screened
            mask[self._decided(rows, columns, doubtful)] = True
        if rows is columns:
            np.fill_diagonal(mask, val=False)
        return mask

    def first_duplicate(self, rows: Operand, columns: Operand) -> Index | None:
        """First column closer than the threshold, per row; -1 where none is; or ``None`` at all."""
        hits = self._folded_hits(rows, columns)
        if hits is not None:
            if not hits[0].size:
                return None
            first = np.full(len(rows), len(columns))
        else:
            found = self._settled(lambda p: p.first_certain(rows, columns, self.threshold.cosine))
            if found is None:
                return None
            first, doubtful = found
            hits = self._decided(rows, columns, doubtful)
        np.minimum.at(first, *hits)
        first[first == len(columns)] = NONE
        return first if (first != NONE).any() else None

    def may_reach(
        self, rows: Operand, columns: Operand, cosines: npt.NDArray[np.float64]
    ) -> tuple[Index, Index]:
        """Pairs whose cosine may reach the row's value: a superset, sharper where it is large."""
        pairs = self._panels.first.may_reach(rows, columns, cosines)
        if pairs[0].size <= _MANY:
            return pairs
        return self._panels.recheck.may_reach(rows, columns, cosines)

    def _folded_hits(self, rows: Operand, columns: Operand) -> tuple[Index, Index] | None:
        """Places of the pairs closer than the threshold; ``None`` if folding leaves too many."""
        if self._fold is None:
            return None
        pairs = self._fold.candidates(rows, columns, self.threshold.cosine)
        return self._decided(rows, columns, pairs) if pairs.size <= _MANY else None

    def _decided(self, rows: Operand, columns: Operand, pairs: Index) -> tuple[Index, Index]:
        """Rows and columns of those pairs, given as flat places, that are closer indeed."""
        if not pairs.size:
            return pairs, pairs
        r, c = np.divmod(pairs, len(columns))
        closer = self.exact.closer(rows.index[r], columns.index[c], self.threshold)
        return r[closer], c[closer]

    def _settled(
        self, question: Callable[[Panel], tuple[Answer, Index] | None]
    ) -> tuple[Answer, Index] | None:
        """The first product's answer, or that of a finer one where too much is left in doubt."""
        answer = question(self._panels.first)
        if answer is not None and answer[1].size > _MANY:
            return question(self._panels.recheck)
        return answer
