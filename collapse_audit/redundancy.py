"""Redundancy: how many of the K prototypes are unique, and how often each one is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from collapse_audit.devices import pick_device
from collapse_audit.errors import ParameterError
from collapse_audit.norm_gap import find_norm_gap
from collapse_audit.prototypes import (
    DEFAULT_EPSILON,
    Metric,
    Prototypes,
    as_prototypes,
    check_metric,
)
from collapse_audit.similarity import (
    Bracket,
    Comparison,
    Cover,
    DefaultRadius,
    EuclideanComparison,
    Nearest,
    NearestSearch,
    NEff,
    Points,
    Progress,
    SweepLevel,
    Threshold,
    bracket_unique,
    choose_panels,
    connect_groups,
    counted,
    default_radius,
    near_mass,
    silent,
    survey,
)

if TYPE_CHECKING:
    import torch

# Arteaga et al. 2026, figure 3 has 0.025 to 0.5; the two smaller ones show how tight copies are.
SWEEP_EPSILONS = (0.005, 0.0125, 0.025, 0.05, 0.1, 0.25, 0.5)
# Of the radius. Between unit rows an epsilon is the distance sqrt(2 epsilon), so that the epsilons
# above are 0.45 to 4.5 times that of 0.025.
SWEEP_RADII = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True, eq=False)
class Redundancy:
    """Groups of duplicate prototypes at one epsilon, or one radius.

    Attributes:
        epsilon: Cosine distance below which two prototypes are duplicates; ``None`` in the
            Euclidean metric.
        groups: Group of each prototype (k, int64), numbered by falling size, so that
            ``redundancy_factors[groups]`` is how often each prototype is repeated.
        leaders: Index of the prototype that stands for each group (m, int64).
        components: Connected components of the duplicate graph (single linkage).
        neighbours: Other prototypes closer than that, for each prototype (k, int64).
        cliques: Whether all members of a group are closer than that to each other (m).
        bracket: How far M depends on the scan order and the counting rule.
        sweep: The counts at other thresholds, in rising order of these; may be empty.
        nearest: Nearest other prototype of each one; ``None`` if it was not asked for.
        radius: Euclidean distance below which two are duplicates; ``None`` in the cosine metric.
        notes: What a reader should know of how the radius was chosen, one line each.
    """

    epsilon: float | None
    groups: npt.NDArray[np.int64]
    leaders: npt.NDArray[np.int64]
    components: int
    neighbours: npt.NDArray[np.int64]
    cliques: npt.NDArray[np.bool_]
    bracket: Bracket
    sweep: tuple[SweepLevel, ...] = ()
    nearest: Nearest | None = None
    radius: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        """How prototypes were compared."""
        return "cosine" if self.radius is None else "euclidean"

    @property
    def threshold(self) -> float:
        """The epsilon or the radius."""
        return self.radius or self.epsilon or DEFAULT_EPSILON

    @property
    def k(self) -> int:
        """Number of prototypes, K."""
        return len(self.groups)

    @property
    def num_unique(self) -> int:
        """Unique prototypes M: leaders of the greedy cover in index order."""
        return len(self.leaders)

    @property
    def unique_fraction(self) -> float:
        """M / K, above 0 and at most 1."""
        return self.num_unique / self.k

    @property
    def isolated(self) -> int:
        """Prototypes without any duplicate."""
        return int((self.neighbours == 0).sum())

    @property
    def n_eff(self) -> NEff:
        """Effective number of prototypes: no scan order and no grouping rule changes it."""
        return counted(self.neighbours)

    @property
    def redundancy_factors(self) -> npt.NDArray[np.int64]:
        """Copies of each unique prototype, r_m (m, falling); they sum to K."""
        return np.bincount(self.groups, minlength=self.num_unique).astype(np.int64)

    @property
    def mean_redundancy(self) -> float:
        """Mean of r_m, which is K / M; at least 1."""
        return self.k / self.num_unique

    @property
    def gini(self) -> float:
        """Gini coefficient of r_m: 0 if all are repeated equally often, towards 1 if one is."""
        rising = self.redundancy_factors[::-1].astype(np.float64)
        m = len(rising)
        ranks = np.arange(1, m + 1)
        return float((2 * ranks - m - 1) @ rising / (m * rising.sum()))

    @property
    def effective_number(self) -> float:
        """Exp H(r / K): as many equally repeated prototypes would be as uneven; 1 to M."""
        share = self.redundancy_factors / self.k
        return float(np.exp(-(share * np.log(share)).sum()))

    @property
    def histogram(self) -> list[tuple[int, int]]:
        """(r, number of unique prototypes repeated r times), in rising order of r."""
        factor, count = np.unique(self.redundancy_factors, return_counts=True)
        return [(int(r), int(c)) for r, c in zip(factor, count, strict=True)]

    def __repr__(self) -> str:
        at = f"epsilon={self.epsilon:g}" if self.radius is None else f"radius={self.radius:g}"
        return f"Redundancy(k={self.k}, num_unique={self.num_unique}, {at})"


@dataclass(frozen=True, slots=True)
class Diversity:
    r"""Effective number of classes of a distribution p, where duplicates count as one class.

    Leinster and Cobbold (Ecology 2012, equation 1) with a similarity of 1 between prototypes closer
    than epsilon, else 0: :math:`(\sum_i p_i (Zp)_i^{q-1})^{1/(1-q)}` with :math:`(Zp)_i` the mass
    that is closer than epsilon to prototype i. No partition into classes is chosen. For uniform p
    the order 0 is N_eff; from 1 to K, falling with the order.

    Attributes:
        order_0: :math:`\sum_i p_i / (Zp)_i`: classes however rare.
        order_1: :math:`\exp(-\sum_i p_i \log (Zp)_i)`: like a perplexity.
        order_2: :math:`1 / \sum_i p_i (Zp)_i`: classes that are frequent.
    """

    order_0: float
    order_1: float
    order_2: float


def measure_diversity(
    prototypes: Prototypes | npt.ArrayLike | torch.Tensor,
    redundancy: Redundancy,
    probabilities: npt.ArrayLike,
    *,
    device: str = "auto",
) -> Diversity:
    """Effective number of the classes that a head predicts, such as with ``MLCD.probabilities``.

    Args:
        prototypes: The prototypes of one head, or their matrix (k x d).
        redundancy: What :func:`measure_redundancy` found in them, at the threshold asked for.
        probabilities: Mass of each prototype (k), at least 0; they sum to 1.
        device: As for :func:`measure_redundancy`.

    Returns:
        The diversity of orders 0, 1 and 2.

    Raises:
        ParameterError: If the redundancy is of other prototypes, or the probabilities are no
            distribution over them.
    """
    if not hasattr(redundancy, "leaders"):
        kind = type(redundancy).__name__
        raise ParameterError(f"redundancy must be what measure_redundancy gives, got {kind}.")
    prototypes = as_prototypes(prototypes, zero_rows=redundancy.metric == "euclidean")
    if redundancy.k != prototypes.k:
        raise ParameterError(
            f"the redundancy is of {redundancy.k} prototypes, and these are {prototypes.k}."
        )
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (prototypes.k,) or not (p >= 0).all() or not abs(p.sum() - 1) < 1e-6:
        raise ParameterError(f"probabilities must be {prototypes.k} masses that sum to 1.")
    comparison = _comparison(prototypes, redundancy.epsilon, redundancy.radius, device)
    cover = Cover(leaders=redundancy.leaders, group=redundancy.groups)
    component = connect_groups(comparison, cover).component
    present = np.flatnonzero(p)
    everyone = np.arange(prototypes.k)
    near, p = near_mass(comparison, component, everyone, present, p), p[present]
    return Diversity(
        order_0=float((p / near).sum()),
        order_1=float(np.exp(-(p * np.log(near)).sum())),
        order_2=float(1 / (p * near).sum()),
    )


def measure_redundancy(
    prototypes: Prototypes | npt.ArrayLike | torch.Tensor,
    *,
    epsilon: float | None = None,
    sweep: Sequence[float] | None = None,
    nearest: bool = True,
    device: str = "auto",
    metric: Metric = "cosine",
    radius: float | None = None,
    progress: Progress = silent,
) -> Redundancy:
    """Count the unique prototypes of a head and how often each one is repeated.

    Two prototypes are duplicates if their cosine distance is strictly below epsilon, or in the
    Euclidean metric if their distance is strictly below the radius. Being a duplicate is not
    transitive, so a grouping rule is needed: the greedy leader cover in index order (definition 4.1
    of Govindarajan et al. 2024 and 2.1 of Arteaga et al. 2026 ask for a partition with a
    representative within epsilon of every member, and fix no algorithm). ``components`` counts the
    same graph by single linkage and bounds M from below; ``bracket`` says how far any other scan
    order could be from M.

    Args:
        prototypes: The prototypes of one head, or their matrix (k x d).
        epsilon: Cosine distance, between 0 and 1; 0.025 by default.
        sweep: Other thresholds to count at; empty for none. By default :data:`SWEEP_EPSILONS`, or
            the radius times :data:`SWEEP_RADII`.
        nearest: Whether to find the nearest other prototype of each one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. The result is the same on each,
            and the Euclidean metric is computed on the CPU.
        metric: ``"cosine"``, by direction, or ``"euclidean"``, as the codes of a codebook are.
        radius: Euclidean distance, above 0. By default 0.2 of the median nearest distance of live
            rows without near copies, to three digits: between unit rows about what an epsilon of
            0.025 is.
        progress: Called with (stage, done, total) while it runs.

    Returns:
        The groups and counts; equal on every machine for the same stored weights.

    Raises:
        ParameterError: If a threshold is out of its range or not of the metric, or there is no such
            metric or device.
        PrototypeError: If rows are so long that float64 does not hold their distances.

    Example:
        >>> weight = np.array([[1.0, 0.0], [2.0, 0.01], [0.0, 1.0]])
        >>> measure_redundancy(Prototypes.from_weight(weight)).redundancy_factors.tolist()
        [2, 1]
        >>> measure_redundancy(weight, metric="euclidean", radius=0.1).num_unique
        3
    """
    prototypes = as_prototypes(prototypes, zero_rows=metric == "euclidean")
    comparison: Comparison | None = None
    search: NearestSearch | None = None
    notes: tuple[str, ...] = ()
    if check_metric(metric, epsilon, radius) == "euclidean":
        pick_device("cpu" if device == "auto" else device)  # an unknown one is refused here too
    if metric == "euclidean" and radius is None:
        live = _live(prototypes)
        default = default_radius(live, progress=progress)
        radius, notes = default.comparison.threshold.level, (_origin(default),)
        if live is prototypes:
            comparison, search = default.comparison, default.search
    comparison = comparison or _comparison(prototypes, epsilon, radius, device)
    if sweep is None:
        sweep = SWEEP_EPSILONS if radius is None else [share * radius for share in SWEEP_RADII]
    found = survey(
        comparison,
        sweep,
        nearest=search or nearest,
        progress=progress,
    )
    cover, links = found.cover, found.links
    bracket = bracket_unique(comparison, cover, links, progress=progress)
    rank = np.argsort(-cover.sizes, kind="stable")  # ties: the leader met first
    number = np.empty(len(rank), dtype=np.int64)
    number[rank] = np.arange(len(rank))
    return Redundancy(
        epsilon=comparison.threshold.level if radius is None else None,
        groups=number[cover.group],
        leaders=cover.leaders[rank].astype(np.int64),
        components=links.num_components,
        neighbours=links.neighbours,
        cliques=links.clique[rank],
        bracket=bracket,
        sweep=found.levels,
        nearest=_distances(found.nearest, comparison) if nearest and found.nearest else None,
        radius=None if radius is None else comparison.threshold.level,
        notes=notes,
    )


def _comparison(
    prototypes: Prototypes, epsilon: float | None, radius: float | None, device: str
) -> Comparison:
    """Compares prototypes in the metric whose threshold is given, or at the default epsilon."""
    if radius is not None:
        return EuclideanComparison(Points(prototypes), radius)
    panels = choose_panels(prototypes, device=device)
    threshold = Threshold(DEFAULT_EPSILON if epsilon is None else epsilon)
    return Comparison(prototypes, threshold, panels=panels)


def _distances(nearest: Nearest, comparison: Comparison) -> Nearest:
    """The nearest ones with the distances of the metric."""
    if not isinstance(comparison, EuclideanComparison):
        return nearest
    distance = comparison.points.distances(nearest.distance)
    return replace(nearest, distance=distance, metric="euclidean")


def _live(prototypes: Prototypes) -> Prototypes:
    """The rows that are not dead."""
    gap = find_norm_gap(prototypes.norms, prototypes.d)
    return prototypes if gap is None else prototypes.take(gap.live)


def _origin(default: DefaultRadius) -> str:
    """Where the default radius comes from."""
    share = f"the radius is 0.2 of the median nearest distance, {default.median:.3g}"
    copies = f"most rows are closer than {default.near:g} to another one"
    if not default.collapsed:
        return share
    if not default.median:
        return f"{copies}, and there is one such group: the radius is 0.2 of the median norm"
    return f"{copies}: {share}, of what is left when these count once"
