"""The Euclidean metric: prototypes as points, duplicates if they are closer than a radius.

Points are scaled by a power of two, exactly, so that none is longer than one. Then
1 - |x - y|^2 / 2 stands for the cosine, which it is for unit rows, and the distance for the angle:
the walk through the thresholds asks for no more than the triangle inequality.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError, PrototypeError
from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.predicate import Comparison, ExactPairs, Threshold
from collapse_audit.similarity.products.bounds import chord_bound
from collapse_audit.similarity.products.lifted import LiftedPanels
from collapse_audit.similarity.products.panel import Operand, Panels
from collapse_audit.similarity.products.rows import Float64, Index, Mask, parts
from collapse_audit.similarity.whole_numbers import as_integers, whole_numbers

_PAIRS_AT_ONCE = 512
# Decided at once, of pairs at the threshold.
_TIES_AT_ONCE = 1 << 14
_REMEMBERED_PAIRS = 16384
# Differences of longer rows may leave float64.
_LARGEST_NORM = 2.0**1000
# Squares below this may have lost bits, or all of them; float64 ends at 2^-1074.
_SMALLEST_SQUARE = 2.0**-1000


class Points:
    """The effective rows of a head, as stored and in units of a power of two none is longer than.

    Attributes:
        stored: One point per row (k x d): the stored values of a plain layer, float32 or float64;
            g v / |v| in float64 of a weight-normed one.
        exponent: The power of two that is the unit.
    """

    def __init__(self, prototypes: Prototypes) -> None:
        rows, lengths, norms = prototypes.rows, prototypes.lengths, prototypes.norms
        if not norms.max() < _LARGEST_NORM:
            raise PrototypeError(
                f"{prototypes.name}: the norms reach {norms.max():.3g}, and float64 does not hold "
                "the distances of such rows.",
                hint="Divide the rows and the radius by a power of two.",
            )
        if (norms != lengths).any():
            factors = np.divide(norms, lengths, out=np.ones_like(norms), where=lengths > 0)
            rows = rows.astype(np.float64) * factors[:, None]
        self.stored: npt.NDArray[np.floating] = rows
        self.exponent = int(np.frexp(norms.max())[1])
        # float64 rows may hold numbers so small that only one rounding to the unit is exact enough
        self._scaled = np.ldexp(rows, -self.exponent) if rows.dtype == np.float64 else None

    @property
    def k(self) -> int:
        """Number of points."""
        return len(self.stored)

    @property
    def d(self) -> int:
        """Their dimension."""
        return int(self.stored.shape[1])

    def unit_rows(self, index: slice | Index = slice(None)) -> Float64:
        """Some or all points in the unit, float64; of norm one at most."""
        if self._scaled is not None:
            return np.asarray(self._scaled[index])
        return np.asarray(self.stored[index].astype(np.float64) * 2.0**-self.exponent)

    def distances(self, half_squares: Float64) -> Float64:
        """Distances of which half the squares, in the unit, are known."""
        return np.asarray(np.ldexp(np.sqrt(2.0 * half_squares), self.exponent))


class Radius(Threshold):
    """A Euclidean distance as the number it prints as, in units of a power of two.

    Attributes:
        level: The radius as it was typed.
        exact: The same as a fraction.
        squared: Its square in the unit; above 16, where it is beyond any distance, 16.
    """

    __slots__ = ("exact", "exponent", "squared")
    widest: ClassVar[float] = 2.0

    def __init__(self, radius: float, exponent: int) -> None:
        if not 0.0 < radius < float("inf"):
            raise ParameterError(f"a radius must be above 0 and finite, got {radius}.")
        self.level, self.exponent = float(radius), exponent
        self.exact = Fraction(repr(self.level))
        ratio = min(self.exact / Fraction(2) ** exponent, Fraction(4))
        self.angle = min(float(ratio), 3.0)  # wider than the widest by far
        self.squared = float(ratio * ratio)
        self.cosine = 1.0 - self.squared / 2.0
        self.distance = max(self.squared / 2.0, _SMALLEST_SQUARE)

    def at(self, level: float) -> Radius:
        """Another radius in the same unit."""
        return Radius(level, self.exponent)

    @property
    def half(self) -> float:
        """Half the radius, at most."""
        return self.level / 2 * (1 - 1e-12)

    @property
    def double(self) -> float:
        """Double the radius, at least."""
        return self.level * 2 * (1 + 1e-12)

    @staticmethod
    def angles(squared_chords: Float64) -> Float64:
        """Distances in the unit; the widest where none is known."""
        return np.asarray(np.sqrt(np.clip(squared_chords, 0.0, 4.0)))

    @staticmethod
    def cosines(angles: Float64) -> Float64:
        """What stands for the cosine at some distances, which may be wider than the widest."""
        return np.asarray(1.0 - np.minimum(angles, 2.0) ** 2 / 2.0)


class ExactDistances(ExactPairs):
    """Decides single pairs of points: float64 where beyond doubt, whole numbers where not."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._bound = chord_bound(points.d)
        self._known: dict[tuple[bytes, bytes, float], bool] = {}

    def scores(self, first: Index, second: Index) -> Float64:
        """Squared distances of pairs in the unit, as negative numbers: larger ones are closer."""
        out = np.empty(len(first))
        for part in parts(len(first), _PAIRS_AT_ONCE):
            between = self._points.unit_rows(first[part]) - self._points.unit_rows(second[part])
            out[part] = np.einsum("pd,pd->p", between, between)
        return -out

    def angles(self, first: Index, second: Index) -> Float64:
        """Distances of pairs in the unit, rounded upwards but for the last bits of the root."""
        return np.asarray(np.sqrt(-self.scores(first, second)) * (1.0 + self._bound))

    def decide(self, scores: Float64, first: Index, second: Index, threshold: Threshold) -> Mask:
        """Whether pairs are closer, from what :meth:`scores` gave for them."""
        radius = cast("Radius", threshold)
        gap = scores + radius.squared  # positive if closer
        result = np.asarray(gap > 0)
        doubt = self._bound * radius.squared + _SMALLEST_SQUARE
        doubtful = np.flatnonzero(np.abs(gap) <= doubt)
        for part in parts(len(doubtful), _TIES_AT_ONCE):
            pairs = doubtful[part]
            result[pairs] = self._closer(first[pairs], second[pairs], radius)
        return result

    def _closer(self, first: Index, second: Index, threshold: Radius) -> Mask:
        """|x - y|^2 < R^2 in whole numbers."""
        x, y = (self._points.stored[index].astype(np.float64) for index in (first, second))
        between = x - y
        # what the difference of two floats lost, exactly (Knuth 1969, theorem 4.2.2 B)
        back = between - x
        lost = (x - (between - back)) - (y + back)
        whole, exact, unit = whole_numbers(between)
        exact &= ~lost.any(axis=1)
        squares = np.einsum("pd,pd->p", whole, whole)
        unit[squares == 0] = 0
        result = np.zeros(len(first), dtype=np.bool_)
        for power in np.unique(unit[exact]):
            same = exact & (unit == power)
            limit = threshold.exact**2 / Fraction(4) ** int(power)
            most = min(-(-limit.numerator // limit.denominator) - 1, 1 << 60)
            result[same] = squares[same] <= most
        for p in np.flatnonzero(~exact):
            result[p] = self._long_closer(x[p], y[p], threshold)
        return result

    def _long_closer(self, x: Float64, y: Float64, threshold: Radius) -> bool:
        """The same for numbers that are too long for float64."""
        key = (x.tobytes(), y.tobytes(), threshold.level)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED_PAIRS:
                self._known.clear()
            whole, power = as_integers(np.concatenate([x, y]))
            pairs = zip(whole[: len(x)], whole[len(x) :], strict=True)
            squared = sum((a - b) ** 2 for a, b in pairs)
            self._known[key] = squared * Fraction(4) ** power < threshold.exact**2
        return self._known[key]


class EuclideanComparison(Comparison):
    """Compares points at one radius, as :class:`Comparison` does prototypes at one epsilon.

    Args:
        points: What is compared.
        radius: Below which distance two are duplicates.
    """

    def __init__(self, points: Points, radius: float) -> None:
        self.prototypes = self.points = points
        self.threshold = Radius(radius, points.exponent)
        self.exact = ExactDistances(points)
        self._panels: Panels = LiftedPanels(points)
        self._fold = None

    def may_reach(self, rows: Operand, columns: Operand, cosines: Float64) -> tuple[Index, Index]:
        """Pairs whose score may reach the row's value, by the sharper product at once."""
        # dead rows are one point to float32, and the nearest of the others all the same
        return self._panels.recheck.may_reach(rows, columns, cosines)
