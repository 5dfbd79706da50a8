"""The radius that is taken where none is given: a share of the median nearest distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.euclidean import EuclideanComparison, Points
from collapse_audit.similarity.nearest import NearestSearch
from collapse_audit.similarity.products.rows import Float64, parts
from collapse_audit.similarity.progress import Progress, silent
from collapse_audit.similarity.survey import survey

# For unit rows an epsilon of 0.025 is a distance of 0.224. The nearest of 512 random directions in
# 64 dimensions is 1.13 away, that of 65,536 in 256 dimensions 1.21.
_SHARE = 0.2
# Two of K rows that fill their volume are further apart than this share of the distance of two that
# are orthogonal, times the side of a K-th part of it: closer ones are near copies.
_NEAR_COPIES = 0.1
# Rows that differ by less than this share of their norms are one point.
_NOTHING = 1e-6
_ROWS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class DefaultRadius:
    """A comparison at the default radius, and how that was found.

    Attributes:
        comparison: The points at the radius.
        search: The nearest of all points, which were found on the way.
        median: Nearest distance that the radius is a share of; 0 if all are such copies of one.
        near: Distance below which rows were taken for copies.
        collapsed: Whether most rows have such copies, so that these were left out.
    """

    comparison: EuclideanComparison
    search: NearestSearch
    median: float
    near: float
    collapsed: bool


def default_radius(prototypes: Prototypes, *, progress: Progress = silent) -> DefaultRadius:
    """Find the radius: 0.2 of the median nearest distance of the rows without near copies."""
    # Where most have near copies, it is the median nearest distance of the leaders of a cover at
    # that distance. Three significant digits are what a report prints, the same on every machine.
    points = Points(prototypes)
    spread = _spread(points, prototypes)
    near = _rounded(_NEAR_COPIES * 2**0.5 * spread * points.k ** (-1 / points.d))
    comparison = EuclideanComparison(points, near)
    search = NearestSearch(comparison)
    cover = survey(comparison, nearest=search, progress=progress).cover
    nearest = points.distances(search.result().distance)
    apart = nearest[nearest >= near]
    collapsed = 2 * len(apart) < points.k
    if collapsed:
        apart = _nearest_distances(prototypes.take(cover.leaders), near)
    median = float(np.median(apart)) if len(apart) else 0.0
    radius = _rounded(_SHARE * (median or spread))
    return DefaultRadius(comparison.at(radius), search, median, near, collapsed)


def _spread(points: Points, prototypes: Prototypes) -> float:
    """Median distance of the rows from their mean; if that is nothing, their median norm."""
    total, distances = np.zeros(points.d), np.empty(points.k)
    blocks = list(parts(points.k, _ROWS))
    for part in blocks:
        total += points.unit_rows(part).sum(axis=0)
    for part in blocks:
        distances[part] = np.linalg.norm(points.unit_rows(part) - total / points.k, axis=1)
    norm = float(np.median(prototypes.norms[prototypes.norms > 0]))
    found = float(np.ldexp(np.median(distances), points.exponent))
    return found if found > _NOTHING * norm else norm


def _nearest_distances(prototypes: Prototypes, near: float) -> Float64:
    """Distance of each to the nearest other one; nothing if there is no other."""
    if prototypes.k < 2:
        return np.empty(0)
    points = Points(prototypes)
    found = survey(EuclideanComparison(points, near), nearest=True).nearest
    return np.empty(0) if found is None else points.distances(found.distance)


def _rounded(distance: float) -> float:
    return float(f"{distance:.3g}")
