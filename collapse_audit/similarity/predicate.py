"""The predicate: is the cosine distance of two prototypes strictly below epsilon?

``ExactPairs`` decides single pairs, and ``Comparison`` tiles of them: by a fast product where its
error bound allows it, and exactly where not.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from fractions import Fraction
from math import sqrt
from typing import ClassVar, Self, TypeVar

import numpy as np

from collapse_audit.prototypes import Prototypes, check_epsilon
from collapse_audit.similarity.products.bounds import float64_bound
from collapse_audit.similarity.products.choice import NUMPY, PanelPair, PanelSet
from collapse_audit.similarity.products.panel import Operand, Panel, Panels
from collapse_audit.similarity.products.rows import Float64, Index, Mask, Rows, parts
from collapse_audit.similarity.whole_numbers import as_integers, whole_numbers

NONE = -1
# Half and double angles are rounded outwards by this much, which only widens a bracket.
_SLACK = 1e-12
# Pairs gathered at once: two gathered blocks of this many rows stay in the second-level cache.
_PAIRS_AT_ONCE = 512
# Pairs at the threshold decided at once.
_TIES_AT_ONCE = 1 << 16
# Exact decisions remembered: copies of two rows at the threshold ask the same question each time.
_REMEMBERED_PAIRS = 16384
# More doubtful pairs than this in a tile are cheaper to settle by a float32 product first.
_MANY = 8192

Answer = TypeVar("Answer")


class Threshold:
    """A cosine-distance threshold as the number it prints as, and what a walk needs of its metric.

    Epsilon is read as the decimal that was typed: 0.4 is 2/5, not the double a little above it, so
    that a pair at a distance of exactly 2/5 is *not* below 0.4.

    Attributes:
        level: The threshold, epsilon: a float between 0 and 1.
        cosine: 1 - epsilon as a float.
        distance: Half the squared chord that belongs to it, which is epsilon.
        angle: The angle of that cosine, in radians; angles obey the triangle inequality.
        widest: The largest angle there is.
    """

    __slots__ = ("angle", "cosine", "distance", "exact_cosine", "level")
    widest: ClassVar[float] = float(np.pi)

    def __init__(self, epsilon: float) -> None:
        self.level = self.distance = check_epsilon(epsilon)
        self.exact_cosine = 1 - Fraction(repr(self.level))
        self.cosine = float(self.exact_cosine)
        self.angle = float(np.arccos(self.cosine))

    def at(self, level: float) -> Threshold:
        """Another threshold of the same metric."""
        return Threshold(level)

    @property
    def half(self) -> float:
        """The level at half the angle, at most."""
        return (1 - sqrt(1 - self.level / 2)) * (1 - _SLACK)

    @property
    def double(self) -> float | None:
        """The level at double the angle, at least; ``None`` where no threshold is so large."""
        double = 2 - 2 * (1 - self.level) ** 2 + _SLACK
        return double if double < 1 else None

    @staticmethod
    def angles(squared_chords: Float64) -> Float64:
        """Angles of chords; the widest where none is known and the chord is infinite."""
        return np.asarray(2.0 * np.arcsin(np.sqrt(np.clip(squared_chords, 0.0, 4.0)) / 2.0))

    @staticmethod
    def cosines(angles: Float64) -> Float64:
        """Cosines of angles, which may be wider than the widest."""
        return np.asarray(np.cos(np.minimum(angles, np.pi)))


class ExactPairs:
    """Decides single pairs: float64 where that is beyond doubt, rational arithmetic where not."""

    def __init__(self, prototypes: Prototypes) -> None:
        self._rows, self._lengths = prototypes.rows, prototypes.lengths
        self._bound = float64_bound(prototypes.d)
        self._known: dict[tuple[bytes, bytes, float], bool] = {}

    def scores(self, first: Index, second: Index) -> Float64:
        """Cosines of pairs of prototypes, in float64, off by at most ``float64_bound(d)``."""
        out = np.empty(len(first))
        for part in parts(len(first), _PAIRS_AT_ONCE):
            a = self._rows[first[part]].astype(np.float64)
            b = self._rows[second[part]].astype(np.float64)
            out[part] = np.einsum("pd,pd->p", a, b)
        # One length after the other: their product may leave float64.
        out /= self._lengths[first]
        out /= self._lengths[second]
        return out

    def closer(self, first: Index, second: Index, threshold: Threshold) -> Mask:
        """Whether each pair is closer than the threshold, strictly and without rounding error."""
        return self.decide(self.scores(first, second), first, second, threshold)

    def angles(self, first: Index, second: Index) -> Float64:
        """Angles of pairs, rounded upwards but for the last bits of the arc cosine."""
        return np.arccos(np.clip(self.scores(first, second) - self._bound, -1.0, 1.0))

    def decide(
        self,
        scores: Float64,
        first: Index,
        second: Index,
        threshold: Threshold,
    ) -> Mask:
        """The same from what :meth:`scores` gave for these pairs."""
        result = scores > threshold.cosine
        # One more ulp for the rounding of the threshold itself.
        doubtful = np.flatnonzero(np.abs(scores - threshold.cosine) <= self._bound + 2.0**-52)
        for part in parts(len(doubtful), _TIES_AT_ONCE):
            pairs = doubtful[part]
            result[pairs] = self._closer_exactly(first[pairs], second[pairs], threshold)
        return result

    def _closer_exactly(self, first: Index, second: Index, threshold: Threshold) -> Mask:
        """<x, y> > t |x| |y| in whole numbers; t is positive because epsilon is below 1."""
        index, place = np.unique(np.concatenate([first, second]), return_inverse=True)
        whole, exact, _ = whole_numbers(self._rows[index])
        i, j = place[: len(first)], place[len(first) :]
        squares = np.einsum("kd,kd->k", whole, whole)
        dots = np.einsum("pd,pd->p", whole[i], whole[j])
        result = _exceeds(dots, squares[i], squares[j], threshold.exact_cosine)
        for p in np.flatnonzero(~(exact[i] & exact[j])):
            result[p] = self._long_closer_exactly(int(first[p]), int(second[p]), threshold)
        return result

    def _long_closer_exactly(self, i: int, j: int, threshold: Threshold) -> bool:
        """The same for rows whose numbers are too long for float64."""
        x, y = self._rows[i], self._rows[j]
        key = (x.tobytes(), y.tobytes(), threshold.level)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED_PAIRS:
                self._known.clear()
            a, b = as_integers(x)[0], as_integers(y)[0]
            dot = sum(p * q for p, q in zip(a, b, strict=True))
            squares = sum(p * p for p in a) * sum(q * q for q in b)
            t = threshold.exact_cosine
            self._known[key] = dot > 0 and dot * dot * t.denominator**2 > t.numerator**2 * squares
        return self._known[key]


class Comparison:
    """Compares prototypes at one threshold: a fast product first, exact arithmetic where in doubt.

    Every answer equals the predicate of :class:`ExactPairs` for every pair, whatever the panels.

    Args:
        prototypes: What is compared.
        threshold: Below which distance two are duplicates.
        panels: Kinds of the products; float32 through numpy by default.
    """

    def __init__(
        self, prototypes: Prototypes, threshold: Threshold, *, panels: PanelPair = NUMPY
    ) -> None:
        self.prototypes: Rows = prototypes
        self.threshold = threshold
        self.exact = ExactPairs(prototypes)
        self._panels: Panels = PanelSet(prototypes, panels)
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

    def at(self, level: float) -> Self:
        """The same prototypes in the same panels at another threshold of the same metric."""
        other = copy(self)
        other.threshold, other._fold = self.threshold.at(level), None
        return other

    def try_folding(self, apart: Index) -> None:
        """Screen with folded rows from now on, if that settles almost all pairs of ``apart``."""
        # no two of those are duplicates
        self._fold = self._panels.folded(apart, self.threshold.cosine) or self._fold

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

    def may_reach(self, rows: Operand, columns: Operand, cosines: Float64) -> tuple[Index, Index]:
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


def _exceeds(dots: Float64, first: Float64, second: Float64, cosine: Fraction) -> Mask:
    """Dot > cosine |x| |y|, from exact dots and squared lengths of whole numbers."""
    square, part = cosine.denominator**2, cosine.numerator**2
    largest = int(max(1.0, first.max(), second.max())) ** 2  # of the squared dots too
    kind = np.int64 if largest * square < 2**62 else object
    dots, first, second = (values.astype(np.int64).astype(kind) for values in (dots, first, second))
    return np.asarray((dots > 0) & (dots * dots * square > part * first * second), dtype=np.bool_)
