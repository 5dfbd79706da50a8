"""The radius that is taken where none is given: a share of the median nearest distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.euclidean import EuclideanComparison, Points
from collapse_audit.similarity.nearest import NearestSearch, first_copies
from collapse_audit.similarity.products.rows import Index
from collapse_audit.similarity.progress import Progress, silent

#: For unit rows an epsilon of 0.025 is a distance of 0.224, and the nearest of 512 random directions
#: in 64 dimensions is 1.12 away, that of 65,536 in 256 dimensions 1.2.
SHARE = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A comparison at the default radius.

    Attributes:
        comparison: The points at the radius.
        median: The median nearest distance that it is a share of; 0 if all points are one.
        search: The nearest of all points, where they were found on the way.
    """

    comparison: EuclideanComparison
    median: float
    search: NearestSearch | None


def begin_with_default_radius(
    prototypes: Prototypes, live: Index, *, progress: Progress = silent
) -> Begun:
    """Find the radius: 0.2 of the median nearest distance of live rows, without exact copies.

    Three significant digits, so that it is what a report prints, and the same on every machine.
    Where all rows are one, any radius gives the same: the same share of their norm is taken.
    """
    points = Points(prototypes)
    copy_of = first_copies(points)
    distinct = live[copy_of[live] == live]
    some = points if len(distinct) == points.k else Points(prototypes.take(distinct))
    comparison = EuclideanComparison(some, 1.0)
    search = NearestSearch(comparison)
    everyone = np.arange(some.k)
    search.find(everyone, everyone, Cover(everyone, everyone), progress=progress)
    nearest = some.distances(search.result().distance)
    median = float(np.median(nearest)) if some.k > 1 else 0.0
    radius = float(f"{SHARE * (median or float(prototypes.norms.max())):.3g}")
    if some is points:
        return Begun(comparison.at(radius), median, search)
    return Begun(EuclideanComparison(points, radius), median, None)
