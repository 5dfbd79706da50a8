"""A gap in the norms: the rows below it are dead, as codes are that no training step reached."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10

import numpy as np
import numpy.typing as npt

#: Live norms begin at least so many times higher than the dead ones end.
SMALLEST_RATIO = 10.0
# Of K rows of independent normal entries in D dimensions, n lie a factor q below the next with
# probability of about q^(-n D): from a millionth down that is no accident.
_ACCIDENT = 6.0
# At least this share of the rows lies above the gap, and two: fewer are outliers, not what lives.
_FEWEST_LIVE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class NormGap:
    """A gap in the norms of a head.

    Attributes:
        dead: Rising indices of the rows below it.
        live: Rising indices of the rows above it, at least two.
        largest_dead: Largest norm below it.
        smallest_live: Smallest norm above it, at least ten times that.
    """

    dead: npt.NDArray[np.intp]
    live: npt.NDArray[np.intp]
    largest_dead: float
    smallest_live: float


def find_norm_gap(norms: npt.NDArray[np.float64], d: int) -> NormGap | None:
    r"""Find the uppermost gap in the norms of K rows below which rows count as dead.

    With the norms in rising order, rows 1 to n are dead if :math:`q = |w_{n+1}| / |w_n| \ge 10`,
    if :math:`n D \log_{10} q \ge 6`, and if at least two rows and 1 % of them are above.

    Args:
        norms: Norm of every row (k), not negative.
        d: Dimension of the rows, D.

    Returns:
        The gap, or ``None`` if there is none.
    """
    rising = np.sort(norms)
    most = max(0, len(rising) - max(2, int(np.ceil(_FEWEST_LIVE * len(rising)))))
    steps = rising[:-1] <= rising[1:] / SMALLEST_RATIO
    for last in np.flatnonzero((steps & (rising[1:] > 0))[:most])[::-1]:
        below, above = float(rising[last]), float(rising[last + 1])
        if below == 0 or (last + 1) * d * (log10(above) - log10(below)) >= _ACCIDENT:
            dead = norms <= below
            return NormGap(np.flatnonzero(dead), np.flatnonzero(~dead), below, above)
    return None
