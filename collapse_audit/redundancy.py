"""Redundancy: how many of the K prototypes are unique, and how often each one is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import DEFAULT_EPSILON, Prototypes, as_prototypes
from collapse_audit.similarity import (
    Bracket,
    Comparison,
    Cover,
    Nearest,
    NEff,
    Progress,
    SweepLevel,
    Threshold,
    bracket_unique,
    choose_panels,
    connect_groups,
    counted,
    near_mass,
    silent,
    survey,
)

if TYPE_CHECKING:
    import torch

# Arteaga et al. 2026, figure 3 has 0.025 to 0.5; the two smaller ones show how tight copies are.
SWEEP_EPSILONS = (0.005, 0.0125, 0.025, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Redundancy:
    """Groups of duplicate prototypes at one epsilon.

    Attributes:
        epsilon: Cosine distance below which two prototypes are duplicates.
        groups: Group of each prototype (k, int64), numbered by falling size, so that
            ``redundancy_factors[groups]`` is how often each prototype is repeated.
        leaders: Index of the prototype that stands for each group (m, int64).
        components: Connected components of the duplicate graph (single linkage).
        neighbours: Other prototypes within epsilon, for each prototype (k, int64).
        cliques: Whether all members of a group are within epsilon of each other (m).
        bracket: How far M depends on the scan order and the counting rule.
        sweep: The counts at other thresholds, in rising order of epsilon; may be empty.
        nearest: Nearest other prototype of each one; ``None`` if it was not asked for.
    """

    epsilon: float
    groups: npt.NDArray[np.int64]
    leaders: npt.NDArray[np.int64]
    components: int
    neighbours: npt.NDArray[np.int64]
    cliques: npt.NDArray[np.bool_]
    bracket: Bracket
    sweep: tuple[SweepLevel, ...] = ()
    nearest: Nearest | None = None

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
        return f"Redundancy(k={self.k}, num_unique={self.num_unique}, epsilon={self.epsilon:g})"


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
    prototypes: Prototypes,
    redundancy: Redundancy,
    probabilities: npt.NDArray[np.float64],
    *,
    device: str = "auto",
) -> Diversity:
    """Effective number of the classes that a head predicts, such as with ``MLCD.probabilities``.

    Args:
        prototypes: The prototypes of one head.
        redundancy: Their groups, at the epsilon that is asked for.
        probabilities: Mass of each prototype (k), at least 0; they sum to 1.
        device: As for :func:`measure_redundancy`.

    Returns:
        The diversity of orders 0, 1 and 2.

    Raises:
        ParameterError: If the probabilities are no distribution over these prototypes.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (prototypes.k,) or not (p >= 0).all() or not abs(p.sum() - 1) < 1e-6:
        raise ParameterError(f"probabilities must be {prototypes.k} masses that sum to 1.")
    panels = choose_panels(prototypes, device=device)
    comparison = Comparison(prototypes, Threshold(redundancy.epsilon), panels=panels)
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
    epsilon: float = DEFAULT_EPSILON,
    sweep: Sequence[float] = SWEEP_EPSILONS,
    nearest: bool = True,
    device: str = "auto",
    progress: Progress = silent,
) -> Redundancy:
    """Count the unique prototypes of a head and how often each one is repeated.

    Two prototypes are duplicates if their cosine distance is strictly below epsilon. Being a
    duplicate is not transitive, so a grouping rule is needed: the greedy leader cover in index
    order (definition 4.1 of Govindarajan et al. 2024 and 2.1 of Arteaga et al. 2026 ask for a
    partition with a representative within epsilon of every member, and fix no algorithm).
    ``components`` counts the same graph by single linkage and bounds M from below; ``bracket``
    says how far any other scan order could be from M.

    Args:
        prototypes: The prototypes of one head, or their matrix (k x d).
        epsilon: Cosine distance, between 0 and 1.
        sweep: Other thresholds to count at; empty for none.
        nearest: Whether to find the nearest other prototype of each one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. The result is the same on each.
        progress: Called with (stage, done, total) while it runs.

    Returns:
        The groups and counts; equal on every machine for the same stored weights.

    Raises:
        ParameterError: If a threshold is not between 0 and 1, or there is no such device.

    Example:
        >>> weight = np.array([[1.0, 0.0], [2.0, 0.01], [0.0, 1.0]])
        >>> measure_redundancy(Prototypes.from_weight(weight)).redundancy_factors.tolist()
        [2, 1]
    """
    prototypes = as_prototypes(prototypes)
    panels = choose_panels(prototypes, device=device)
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    found = survey(comparison, sweep, nearest=nearest, progress=progress)
    cover, links = found.cover, found.links
    bracket = bracket_unique(comparison, cover, links, progress=progress)
    rank = np.argsort(-cover.sizes, kind="stable")  # ties: the leader met first
    number = np.empty(len(rank), dtype=np.int64)
    number[rank] = np.arange(len(rank))
    return Redundancy(
        epsilon=float(epsilon),
        groups=number[cover.group],
        leaders=cover.leaders[rank].astype(np.int64),
        components=links.num_components,
        neighbours=links.neighbours,
        cliques=links.clique[rank],
        bracket=bracket,
        sweep=found.levels,
        nearest=found.nearest,
    )
