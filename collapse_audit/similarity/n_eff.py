"""N_eff: how many prototypes a head has in effect, from the number of neighbours of each one."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, log, sqrt

import numpy as np
import numpy.typing as npt

from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.partition import runs
from collapse_audit.similarity.predicate import Comparison
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Float64, Index, parts
from collapse_audit.similarity.sorted_groups import COLUMNS, ROWS, member_angles

# Prototypes drawn where counting the neighbours of all would take too long, and those that all are
# compared with first.
_DRAWN = 2048
_COLUMNS_FIRST = 1024
# The chance that the interval misses, at most.
_MISS = 0.01
# Angles are rounded up to this grid, so that the last bits of a machine do not move the sample.
_GRID = 2.0**26


@dataclass(frozen=True, slots=True)
class NEff:
    r"""Effective number of prototypes :math:`\sum_i 1 / n_i` at one threshold.

    :math:`n_i` is the number of prototypes closer than epsilon to prototype i, itself included: the
    diversity of order 0 of Leinster and Cobbold (2012) with a similarity of 0 or 1. It depends on
    no scan order and no grouping rule, and lies between the components and the mean of M over all
    scan orders (Caro 1979, Wei 1981).

    Attributes:
        value: The number, 1 to K.
        low: At most the number: equal to it where all neighbours were counted, else the lower end
            of an interval that holds it with a probability of at least 99 %.
        high: At least the number, likewise.
    """

    value: float
    low: float
    high: float

    @property
    def is_exact(self) -> bool:
        """Whether all neighbours were counted."""
        return self.low == self.high


def n_eff(neighbours: npt.NDArray[np.int64]) -> float:
    """Sum of 1 / (1 + neighbours), rounded once: equal in every order of the prototypes."""
    times = np.bincount(neighbours + 1)
    sizes = np.flatnonzero(times)
    return fsum((times[sizes] / sizes).tolist())


def counted(neighbours: npt.NDArray[np.int64]) -> NEff:
    """N_eff of prototypes whose neighbours (others closer than epsilon) were all counted."""
    value = n_eff(neighbours)
    return NEff(value, value, value)


def estimate_n_eff(comparison: Comparison, cover: Cover, component: Index, rows: Index) -> NEff:
    r"""N_eff of some whole components, from the neighbours of a sample.

    Of the members of its group, those within :math:`\theta - a_i` of the leader are certainly
    neighbours of a prototype at the angle :math:`a_i` from it, and so are those among 1,024 random
    prototypes that are compared with all: at least :math:`l_i` in one of the two ways, with itself.
    With i drawn with a probability proportional to :math:`1 / l_i`, the mean of
    :math:`l_i / n_i \in (0, 1]` times :math:`\sum_i 1 / l_i` is N_eff. The interval is the
    empirical Bernstein bound (Maurer and Pontil 2009, theorem 4, on both sides), cut at the number
    of components and at that sum, which hold for certain.

    Args:
        comparison: The prototypes and the threshold.
        cover: Their leader cover at that threshold.
        component: Component of each prototype (k).
        rows: Members of the components that are asked for, rising.

    Returns:
        The estimate; equal at every call (the sample has a fixed seed).
    """
    at_least = _certain_neighbours(comparison, cover, component, rows)
    most = fsum((1.0 / at_least).tolist())
    chance = (1.0 / at_least) / (1.0 / at_least).sum()
    drawn = np.random.default_rng(0).choice(len(rows), _DRAWN, p=chance)
    places, times = np.unique(drawn, return_counts=True)
    near = near_mass(comparison, component, rows, rows[places])
    share = at_least[places] / near
    mean = fsum((times * share).tolist()) / _DRAWN
    variance = fsum((times * (share - mean) ** 2).tolist()) / (_DRAWN - 1)
    doubt = log(4 / _MISS)
    half = sqrt(2 * variance * doubt / _DRAWN) + 7 * doubt / (3 * (_DRAWN - 1))
    components = len(np.unique(component[rows]))
    low = max(most * (mean - half), float(components))
    high = min(most * (mean + half), most)
    return NEff(min(max(most * mean, low), high), low, high)


def _certain_neighbours(
    comparison: Comparison, cover: Cover, component: Index, rows: Index
) -> Float64:
    """A lower bound of the prototypes closer than epsilon to each row, itself included."""
    groups = cover.group[rows]
    angle = np.ceil(member_angles(comparison, rows, cover.leaders[groups]) * _GRID) / _GRID
    places = np.sort(groups * 4.0 + angle)  # an angle is at most pi, and the groups stay apart
    reach = groups * 4.0 + comparison.threshold.angle - angle
    within = np.searchsorted(places, reach) - np.searchsorted(places, groups * 4.0)
    itself = 2 * angle < comparison.threshold.angle
    size = min(_COLUMNS_FIRST, len(rows))
    columns = np.sort(np.random.default_rng(1).choice(rows, size, replace=False))
    met = near_mass(comparison, component, columns, rows)
    least = np.maximum(within + ~itself, met + ~np.isin(rows, columns))
    return np.asarray(least, dtype=np.float64)


def near_mass(
    comparison: Comparison,
    component: Index,
    rows: Index,
    asked: Index,
    mass: Float64 | None = None,
) -> Float64:
    """Mass of all of some rows closer than epsilon to each that is asked for, its own included.

    Args:
        comparison: The prototypes and the threshold.
        component: Component of each prototype (k).
        rows: The rows that count.
        asked: Prototypes, rising.
        mass: Mass of each prototype (k); each counts 1 by default.

    Returns:
        The sums, in the order of ``asked``.
    """
    near = np.zeros(len(component))
    label = component[asked]
    members = rows[np.isin(component[rows], label)]
    for run in runs(members, component):
        mine = asked[np.isin(label, component[run])]  # small components come together
        for r in parts(len(mine), ROWS):
            operand = Operand(mine[r])
            for c in parts(len(run), COLUMNS):
                close = comparison.duplicates(operand, Operand(run[c]))
                if close is not None:
                    near[mine[r]] += close.sum(axis=1) if mass is None else close @ mass[run[c]]
    return near[asked]
