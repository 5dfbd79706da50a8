r"""How many clusters do data have? The plateaus of M(epsilon) over k-means centres, or no answer.

k-means with many more centres than clusters smooths the data; M(epsilon) is the number of connected
components of those centres, two of which are linked if half their squared distance is below epsilon
(single linkage; for unit rows that is the cosine distance). A count that a wide range of epsilon
leaves alone is that of well-separated clusters. The plateau of m clusters has the width

.. math:: w_m = \log \frac{\sup \{\epsilon : M(\epsilon) = m\}}{\inf \{\epsilon : M(\epsilon) = m\}}

It is for data, never for the prototypes of a head: how many of those differ follows the objective.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.report.clusters_document import CLUSTERS_SCHEMA, ClustersDocument
from collapse_audit.report.clusters_text import clusters_to_table
from collapse_audit.report.documents import SCHEMA_VERSION, TOOL
from collapse_audit.report.json_text import to_json

#: Least width of an accepted plateau: epsilon doubles.
LEAST_WIDTH: Final = math.log(2)
#: An accepted plateau is this many times as wide as the next one.
LEAST_LEAD: Final = 2.0
#: Samples of the smallest part, and of all: of fewer, two clusters in one part are overlooked.
LEAST_SAMPLES, LEAST_DATA = 20, 300
#: Level of the tests that a part looks like one cluster, divided by the number of parts.
LEVEL: Final = 0.05

_FEWEST_CENTRES, _MOST_CENTRES, _ROWS_PER_CENTRE = 8, 64, 8
_LEAST_SHARE = 0.5  # of the mean number of samples: centres with fewer are outliers
_GRID = 60

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plateau:
    """A count that a range of epsilon leaves alone.

    Attributes:
        clusters: The count m.
        start: Largest epsilon with more components; M is m above it.
        stop: Largest epsilon with m components.
        votes: Bootstraps whose widest plateau has this count.
    """

    clusters: int
    start: float
    stop: float
    votes: int

    @property
    def width(self) -> float:
        """Logarithm of stop / start."""
        return math.log(self.stop / self.start)


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of one component of the widest plateau.

    Attributes:
        samples: How many.
        elongation: Standard deviation along the longest axis over that along the next, at least 1.
        p_round: P-value of the likelihood-ratio test that the variances along the two are equal.
        p_normal: P-value of D'Agostino and Pearson's test that the samples are normal along the
            longest axis.

    Below :data:`LEAST_SAMPLES` samples the shape is ``None``.
    """

    samples: int
    elongation: float | None = None
    p_round: float | None = None
    p_normal: float | None = None


@dataclass(frozen=True, eq=False)
class ClusterEstimate:
    """The plateaus of M(epsilon), and the number of clusters if they allow one.

    Epsilon is relative to the total variance of the data, which is the mean of half the squared
    distance between two samples: no result depends on the unit of the data.

    Attributes:
        n: Samples.
        d: Their dimension.
        centres: Centres K of k-means.
        kept: Centres with at least half the mean number of samples; the others are outliers.
        bootstraps: How often the samples were drawn again.
        seed: Of the draws and of k-means.
        plateaus: Those with 1 < m < K / 2, the widest first.
        parts: The components of the widest plateau, the largest first.
        epsilons: Logarithmic grid of epsilon (60, rising).
        counts: M at each of them (int64).
        low: 5 % quantile of M over the bootstraps (int64).
        high: 95 % quantile of M over the bootstraps (int64).
    """

    n: int
    d: int
    centres: int
    kept: int
    bootstraps: int
    seed: int
    plateaus: tuple[Plateau, ...]
    parts: tuple[Part, ...]
    epsilons: Rows
    counts: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    @property
    def clusters(self) -> int | None:
        """The number of clusters, or ``None`` for no estimate."""
        return None if self.reason else self.plateaus[0].clusters

    @cached_property
    def reason(self) -> str:
        """The first condition that fails, as a clause; empty if there is an estimate."""
        return next(self._failures(), "")

    def _failures(self) -> Iterator[str]:
        """The conditions that fail, in their order."""
        if not self.plateaus:
            yield "M(epsilon) has no plateau between 1 and K / 2"
            return
        best, m = self.plateaus[0], self.plateaus[0].clusters
        if best.width < LEAST_WIDTH:
            factor = f"{math.exp(best.width):.2f}"
            yield f"no count holds while epsilon doubles (the best, {m}, over a factor of {factor})"
        if len(self.plateaus) > 1 and best.width < LEAST_LEAD * self.plateaus[1].width:
            yield f"the plateaus of {m} and of {self.plateaus[1].clusters} are both wide"
        if 2 * best.votes <= self.bootstraps:
            yield f"only {best.votes} of {self.bootstraps} bootstraps agree with {m}"
        if self.n < LEAST_DATA:
            yield f"{self.n} samples are too few to tell near clusters apart ({LEAST_DATA} needed)"
        if (fewest := min(part.samples for part in self.parts)) < LEAST_SAMPLES:
            yield f"the smallest of {m} parts has {fewest} samples, too few to judge its shape"
        if min(part.p_round or 0.0 for part in self.parts) < LEVEL / m:
            yield f"one of {m} parts is longer than it is wide: several clusters?"
        if min(part.p_normal or 0.0 for part in self.parts) < LEVEL / m:
            yield f"one of {m} parts is not normal along its longest axis: several clusters?"

    def to_dict(self) -> ClustersDocument:
        """The estimate as ``--format json`` prints it."""
        return {
            "schema": CLUSTERS_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tool": TOOL.copy(),
            "clusters": self.clusters,
            "reason": self.reason,
            "n": self.n,
            "d": self.d,
            "centres": self.centres,
            "kept": self.kept,
            "bootstraps": self.bootstraps,
            "seed": self.seed,
            "plateaus": [
                {
                    "clusters": plateau.clusters,
                    "start": plateau.start,
                    "stop": plateau.stop,
                    "width": plateau.width,
                    "votes": plateau.votes,
                }
                for plateau in self.plateaus
            ],
            "parts": [
                {
                    "samples": part.samples,
                    "elongation": part.elongation,
                    "p_round": part.p_round,
                    "p_normal": part.p_normal,
                }
                for part in self.parts
            ],
            "curve": {
                "epsilon": self.epsilons.tolist(),
                "clusters": self.counts.tolist(),
                "low": self.low.tolist(),
                "high": self.high.tolist(),
            },
        }

    def to_json(self) -> str:
        """The estimate as JSON."""
        return to_json(self.to_dict())

    def __repr__(self) -> str:
        answer = f"clusters={self.clusters}" if not self.reason else f"reason={self.reason!r}"
        return f"ClusterEstimate({answer}, n={self.n}, d={self.d}, centres={self.centres})"

    def __str__(self) -> str:
        return clusters_to_table(self.to_dict())


def estimate_clusters(
    data: npt.ArrayLike, *, centres: int | None = None, bootstraps: int = 16, seed: int = 0
) -> ClusterEstimate:
    """Estimate the number of clusters of data, or abstain.

    There is an estimate m if its plateau, the widest with 1 < m < K / 2, is as wide as a doubling
    of epsilon and twice as wide as the next, the majority of bootstraps has it as well, and each of
    the m parts looks like one cluster: as wide as long, and normal along its longest axis.

    Args:
        data: Samples (n x d), one row each; compared by Euclidean distance, so columns of different
            units have to be scaled before. The order of the rows does not matter.
        centres: Centres K of k-means, 8 to n; by default one for eight samples, at most 64. Only
            counts below K / 2 can be found.
        bootstraps: How often the samples are drawn again with replacement, at least 1.
        seed: Of the draws and of k-means, 0 or more; equal seeds give equal results.

    Returns:
        The estimate, with everything it was decided by.

    Raises:
        ParameterError: If the data are no matrix of finite real numbers, have too few different
            rows, or another argument is out of its range.

    Example:
        >>> from sklearn.datasets import make_blobs
        >>> data, _ = make_blobs(600, 5, centers=4, cluster_std=0.8, random_state=0)
        >>> estimate_clusters(data).clusters
        4
    """
    rows, repeats = np.unique(_checked(data), axis=0, return_counts=True)
    n = int(repeats.sum())
    k = _check_centres(centres, n, len(rows))
    for name, value, least in (("bootstraps", bootstraps, 1), ("seed", seed, 0)):
        if value < least:
            raise ParameterError(f"{name} must be {least} or more, got {value}.")
    # in an order of their own, whatever that of the caller was
    rows = np.repeat(_in_own_units(rows, repeats), repeats, axis=0)
    draws = np.random.default_rng(seed).spawn(bootstraps + 1)
    whole = _Linkage.of(rows, k, draws[0])
    if not len(whole.merges):
        raise ParameterError(f"nearly all of the {n} rows are the same: there is nothing to tell.")
    again = [_Linkage.of(rows[draw.integers(n, size=n)], k, draw) for draw in draws[1:]]
    votes = [ranked[0][0] for found in again if (ranked := found.plateaus(k))]
    plateaus = tuple(Plateau(*found, votes.count(found[0])) for found in whole.plateaus(k))
    grid = np.geomspace(whole.merges[0], 2 * whole.merges[-1], _GRID)
    low, high = np.quantile(
        [found.components(grid) for found in again], (0.05, 0.95), axis=0, method="inverted_cdf"
    )
    return ClusterEstimate(
        n=n,
        d=rows.shape[1],
        centres=k,
        kept=len(whole.centres),
        bootstraps=bootstraps,
        seed=seed,
        plateaus=plateaus,
        parts=whole.parts(rows, plateaus[0].clusters) if plateaus else (),
        epsilons=grid,
        counts=whole.components(grid),
        low=low,
        high=high,
    )


@dataclass(frozen=True, eq=False)
class _Linkage:
    """Centres of k-means that stand for enough samples, and their single linkage."""

    centres: Rows
    tree: Rows  # of scipy

    @classmethod
    def of(cls, rows: Rows, k: int, draw: np.random.Generator) -> _Linkage:
        """Place k centres and leave out those of outliers."""
        from scipy.cluster.hierarchy import linkage  # heavy, all of them
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        start = int(draw.integers(2**31))
        # threads add up in any order, and equal seeds are to give equal results
        with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
            # which warns where a bootstrap has fewer different rows than centres
            found = KMeans(k, n_init=1, random_state=start).fit(rows)
        samples = np.bincount(found.labels_, minlength=k)
        centres = found.cluster_centers_[samples >= _LEAST_SHARE * len(rows) / k]
        tree = linkage(centres, "single") if len(centres) > 1 else np.empty((0, 4))
        return cls(centres, tree)

    @cached_property
    def merges(self) -> Rows:
        """The epsilons at which two components become one, rising."""
        merges: Rows = np.square(self.tree[:, 2]) / 2
        return np.maximum(merges, np.finfo(float).tiny)

    def components(self, epsilons: Rows) -> npt.NDArray[np.int64]:
        """M at each epsilon."""
        return len(self.centres) - np.searchsorted(self.merges, epsilons)

    def plateaus(self, k: int) -> list[tuple[int, float, float]]:
        """Count, start and stop of the plateaus with 1 < m < k / 2, the widest first."""
        merges = self.merges[::-1].tolist()
        found = [
            (m, merges[m - 1], merges[m - 2])
            for m in range(2, min(len(merges), (k - 1) // 2) + 1)
            if merges[m - 1] < merges[m - 2]
        ]
        return sorted(found, key=lambda plateau: plateau[1] / plateau[2])

    def parts(self, rows: Rows, m: int) -> tuple[Part, ...]:
        """The shapes of the m components, each with the samples that are nearest to its centres."""
        from scipy.cluster.hierarchy import fcluster
        from sklearn.metrics import pairwise_distances_argmin

        part = fcluster(self.tree, m, "maxclust")[pairwise_distances_argmin(rows, self.centres)]
        shapes = (_shape(rows[part == number]) for number in range(1, m + 1))
        return tuple(sorted(shapes, key=attrgetter("samples"), reverse=True))


def _shape(samples: Rows) -> Part:
    """How long and how normal a part is along its longest axis."""
    from scipy.stats import chi2, normaltest

    n = len(samples)
    if n < LEAST_SAMPLES:
        return Part(n)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(samples, rowvar=False)))
    if variances[-1] < np.finfo(float).eps:  # copies of one row, but for rounding
        return Part(n, elongation=1.0, p_round=1.0, p_normal=0.0)
    # equal where there is one column; a part on a line is as long as rounding lets it be
    long, wide = variances[-1], max(variances[-2:][0], np.finfo(float).eps * variances[-1])
    statistic = 2 * n * math.log((long + wide) / (2 * math.sqrt(long * wide)))
    with warnings.catch_warnings(action="ignore"):  # about parts that are nearly copies of one row
        p_normal = float(normaltest(samples @ axes[:, -1]).pvalue)
    return Part(
        samples=n,
        elongation=math.sqrt(long / wide),
        p_round=float(chi2.sf(statistic, 2)),
        p_normal=p_normal,
    )


def _checked(data: npt.ArrayLike) -> Rows:
    """The data as a matrix of finite numbers."""
    try:
        given = np.asarray(data)
    except ValueError as error:
        raise ParameterError("data must be a matrix, and its rows differ in length.") from error
    if given.ndim != 2 or given.dtype.kind not in "fiub" or not given.shape[1]:
        raise ParameterError(
            f"data must be a matrix of real numbers (n x d), got {given.dtype} of shape "
            f"{given.shape}."
        )
    rows = given.astype(np.float64)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ParameterError(
            f"data hold NaN or infinite values in {bad.sum():,} rows (first: {bad.argmax()}).",
            hint="Leave those rows out, or fill their gaps.",
        )
    return rows


def _check_centres(centres: int | None, n: int, different: int) -> int:
    """How many centres to place; they need as many different rows."""
    least = _FEWEST_CENTRES * _ROWS_PER_CENTRE
    if centres is None and n < least:
        raise ParameterError(
            f"{n} rows are too few for an estimate: {least} are needed.",
            hint=f"`centres={_FEWEST_CENTRES}` tries with fewer.",
        )
    k = min(_MOST_CENTRES, n // _ROWS_PER_CENTRE) if centres is None else centres
    if not _FEWEST_CENTRES <= k <= n:
        raise ParameterError(
            f"centres must be {_FEWEST_CENTRES} to {n}, the number of rows, got {k}."
        )
    if different < k:
        raise ParameterError(
            f"data have {different} different rows, fewer than the {k} centres of k-means.",
            hint="" if different > 1 else "They are constant.",
        )
    return k


def _in_own_units(rows: Rows, repeats: npt.NDArray[np.int64]) -> Rows:
    """Rows of mean 0 and total variance 1, without overflow on the way."""
    rows = rows / np.abs(rows).max()
    rows = rows - np.average(rows, axis=0, weights=repeats)
    scaled: Rows = rows / np.abs(rows).max()
    total = np.average(np.square(scaled).sum(axis=1), weights=repeats)
    return scaled / math.sqrt(total)
