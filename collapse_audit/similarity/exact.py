"""The predicate itself: is the cosine distance of two prototypes strictly below epsilon?"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes, check_epsilon
from collapse_audit.similarity.products.bounds import float64_bound
from collapse_audit.similarity.products.panel import Index, Mask

# Pairs gathered at once: two gathered blocks of this many rows stay in the second-level cache.
_PAIRS_AT_ONCE = 512
# Exact decisions remembered: copies of two rows at the threshold ask the same question each time.
_REMEMBERED_PAIRS = 16384


class Threshold:
    """A cosine-distance threshold as the number it prints as.

    Epsilon is read as the decimal that was typed: 0.4 is 2/5, not the double a little above it, so
    that a pair at a distance of exactly 2/5 is *not* below 0.4.

    Attributes:
        epsilon: The threshold, a float between 0 and 1.
        cosine: 1 - epsilon as a float.
        angle: The angle of that cosine, in radians.
    """

    __slots__ = ("angle", "cosine", "epsilon", "exact_cosine")

    def __init__(self, epsilon: float) -> None:
        self.epsilon = check_epsilon(epsilon)
        self.exact_cosine = 1 - Fraction(repr(self.epsilon))
        self.cosine = float(self.exact_cosine)
        self.angle = float(np.arccos(self.cosine))


class ExactPairs:
    """Decides single pairs: float64 where that is beyond doubt, rational arithmetic where not."""

    def __init__(self, prototypes: Prototypes) -> None:
        self._rows, self._lengths = prototypes.rows, prototypes.lengths
        self._bound = float64_bound(prototypes.d)
        self._known: dict[tuple[bytes, bytes, float], bool] = {}

    def cosines(self, first: Index, second: Index) -> npt.NDArray[np.float64]:
        """Cosines of pairs of prototypes, in float64, off by at most ``float64_bound(d)``."""
        out = np.empty(len(first))
        for start in range(0, len(first), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            a = self._rows[first[part]].astype(np.float64)
            b = self._rows[second[part]].astype(np.float64)
            out[part] = np.einsum("pd,pd->p", a, b)
        # One length after the other: their product may leave float64.
        out /= self._lengths[first]
        out /= self._lengths[second]
        return out

    def closer(self, first: Index, second: Index, threshold: Threshold) -> Mask:
        """Whether each pair is closer than the threshold, strictly and without rounding error."""
        return self.decide(self.cosines(first, second), first, second, threshold)

    def decide(
        self,
        cosines: npt.NDArray[np.float64],
        first: Index,
        second: Index,
        threshold: Threshold,
    ) -> Mask:
        """The same from cosines that :meth:`cosines` gave for these pairs."""
        result = cosines > threshold.cosine
        # One more ulp for the rounding of the threshold itself.
        doubtful = np.flatnonzero(np.abs(cosines - threshold.cosine) <= self._bound + 2.0**-52)
        for p in doubtful:
            result[p] = self._closer_exactly(int(first[p]), int(second[p]), threshold)
        return result

    def _closer_exactly(self, i: int, j: int, threshold: Threshold) -> bool:
        """<x, y> > t |x| |y| in whole numbers; t is positive because epsilon is below 1."""
        x, y = self._rows[i], self._rows[j]
        key = (x.tobytes(), y.tobytes(), threshold.epsilon)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED_PAIRS:
                self._known.clear()
            a, b = _as_integers(x), _as_integers(y)
            dot = sum(p * q for p, q in zip(a, b, strict=True))
            squares = sum(p * p for p in a) * sum(q * q for q in b)
            t = threshold.exact_cosine
            self._known[key] = dot > 0 and dot * dot * t.denominator**2 > t.numerator**2 * squares
        return self._known[key]


def _as_integers(row: npt.NDArray[np.floating]) -> list[int]:
    """The row times a power of two that makes every entry whole."""
    mantissas, exponents = np.frexp(row.astype(np.float64))
    whole = np.ldexp(mantissas, 53).astype(np.int64)
    shifts = exponents - exponents[whole != 0].min()
    return [int(m) << max(int(s), 0) for m, s in zip(whole, shifts, strict=True)]
