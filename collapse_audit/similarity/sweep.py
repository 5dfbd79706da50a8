"""How the counts change with epsilon, without starting again at every level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from collapse_audit.similarity.cover import Cover, first_leaders, leader_cover
from collapse_audit.similarity.links import Links, link_groups
from collapse_audit.similarity.predicate import Comparison, ExactPairs, Threshold
from collapse_audit.similarity.products.rows import Float64, Index
from collapse_audit.similarity.progress import Progress, silent

# At most 16 pairs a member: half a second for 65,536 members.
_MOST_MEMBERS = 32
_PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class SweepLevel:
    """Counts at one threshold.

    Attributes:
        epsilon: Cosine distance below which two prototypes are duplicates.
        greedy: Unique prototypes by the leader cover in index order (M).
        components: Connected components of the duplicate graph; at most ``greedy``.
        isolated: Prototypes without any duplicate; at most ``components``.
        pairs: Pairs of duplicates.
    """

    epsilon: float
    greedy: int
    components: int
    isolated: int
    pairs: int


def sweep_levels(
    comparison: Comparison, epsilons: Sequence[float], *, progress: Progress = silent
) -> tuple[SweepLevel, ...]:
    """Count unique prototypes, components, isolated prototypes and pairs at several thresholds.

    From the largest threshold down: prototypes in different components stay apart at every
    smaller one, so each component is settled on its own. An isolated prototype needs no further
    look, and a group whose members are all within the threshold of each other none until the
    threshold falls below its diameter. Other small components are counted from their own pairs.
    What is left for a whole pass at a level is usually a small part of the head.

    Args:
        comparison: The prototypes; its own threshold does not matter.
        epsilons: Thresholds in any order, at least one.
        progress: Called with ("sweep", levels done, levels in all).

    Returns:
        One entry per distinct threshold, in rising order; each equals a count from scratch.
    """
    falling = sorted(set(epsilons), reverse=True)
    angles = np.array([Threshold(epsilon).angle for epsilon in falling])
    counts = np.zeros((len(falling), 4), dtype=np.int64)
    wake = np.zeros(comparison.prototypes.k, dtype=np.intp)
    small = SmallComponents(comparison.exact)
    for level, epsilon in enumerate(falling):
        counts[level] += small.counts(Threshold(epsilon))
        awake = np.flatnonzero(wake == level)
        if awake.size:
            here = comparison.at(epsilon)
            cover = leader_cover(here, order=awake)
            links = link_groups(here, cover)
            neighbours = links.neighbours[awake]
            isolated, pairs = (neighbours == 0).sum(), neighbours.sum() // 2
            counts[level] += len(cover.leaders), links.num_components, isolated, pairs
            wake[awake] = _settle(cover, links, awake, level=level, angles=angles, counts=counts)
            restless = awake[wake[awake] == level + 1]
            wake[small.take(restless, links.component[restless])] = len(falling)
        progress("sweep", level + 1, len(falling))
    rising = zip(reversed(falling), counts[::-1].tolist(), strict=True)
    return tuple(SweepLevel(epsilon, *numbers) for epsilon, numbers in rising)


def _settle(
    cover: Cover,
    links: Links,
    awake: Index,
    *,
    level: int,
    angles: Float64,
    counts: npt.NDArray[np.int64],
) -> Index:
    """Level at which each awake prototype must be looked at again; counts those it can skip."""
    groups_of_component = np.bincount(
        links.component[cover.leaders], minlength=links.num_components
    )
    alone = groups_of_component[links.component[cover.leaders]] == 1
    # A component that is one group of diameter 2 r stays whole while theta > 2 r.
    diameter = np.where(cover.sizes == 1, 0.0, 2.0 * links.radius + 1e-9)
    again = np.searchsorted(-angles, -diameter)
    again = np.where(alone & (again > level), again, level + 1)
    skips = again > level + 1
    sizes = cover.sizes[skips]
    ones = np.ones_like(sizes)
    each = np.stack([ones, ones, sizes == 1, sizes * (sizes - 1) // 2], axis=1)
    # What a group adds to each of the levels it sleeps through: on at the next, off at waking.
    change = np.zeros((len(counts) + 1, 4), dtype=np.int64)
    change[level + 1] = each.sum(axis=0)
    np.subtract.at(change, again[skips], each)
    counts += np.cumsum(change, axis=0)[:-1]
    return np.asarray(again[cover.group[awake]], dtype=np.intp)


class SmallComponents:
    """Members of small components, and those of their pairs that are still duplicates.

    Pairs of different components stay apart at every smaller threshold, so that a component needs
    no product with the others.
    """

    def __init__(self, exact: ExactPairs) -> None:
        self._exact = exact
        self._members = np.empty(0, dtype=np.intp)
        self._later = np.empty(0, dtype=np.intp)
        self._earlier = np.empty(0, dtype=np.intp)
        self._cosines = np.empty(0)

    def take(self, rows: Index, component: npt.NDArray[np.integer]) -> Index:
        """Take the components that are small enough; the members of those."""
        # rows rise, and are all of a component or none
        _, group, sizes = np.unique(component, return_inverse=True, return_counts=True)
        by_group = np.argsort(group, kind="stable")
        small = sizes[group[by_group]] <= _MOST_MEMBERS
        rows, size_of = rows[by_group][small], sizes[group[by_group]][small]
        found = [(self._later, self._earlier, self._cosines)]
        for size in np.unique(size_of):
            for later, earlier in _pairs_inside(rows[size_of == size].reshape(-1, size)):
                found.append((later, earlier, self._exact.cosines(later, earlier)))
        self._later, self._earlier, self._cosines = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        self._members = np.union1d(self._members, rows)
        return rows

    def counts(self, threshold: Threshold) -> tuple[int, int, int, int]:
        """Leaders in index order, components, isolated members and pairs of duplicates."""
        # the threshold must not be larger than at the last call
        closer = self._exact.decide(self._cosines, self._later, self._earlier, threshold)
        self._later, self._earlier = self._later[closer], self._earlier[closer]
        self._cosines = self._cosines[closer]
        count = len(self._members)
        row = np.searchsorted(self._members, self._later)
        earlier = np.searchsorted(self._members, self._earlier)
        graph = coo_array((np.ones(len(row), dtype=np.int8), (row, earlier)), shape=(count, count))
        touched = np.zeros(count, dtype=np.bool_)
        touched[row] = touched[earlier] = True
        return (
            int(first_leaders(count, row, earlier).sum()),
            int(connected_components(graph, directed=False, return_labels=False)) if count else 0,
            int(count - touched.sum()),
            len(row),
        )


def _pairs_inside(components: Index) -> Iterator[tuple[Index, Index]]:
    """All pairs (later, earlier) of the members of components of one size (components x size)."""
    later, earlier = np.tril_indices(components.shape[1], -1)
    step = max(1, _PAIRS_AT_ONCE // max(1, len(later)))
    for start in range(0, len(components), step):
        part = components[start : start + step]
        yield part[:, later].ravel(), part[:, earlier].ravel()
