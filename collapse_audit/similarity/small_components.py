"""Components of few prototypes: their pairs are listed once, for all smaller thresholds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from collapse_audit.similarity.cover import first_leaders
from collapse_audit.similarity.predicate import ExactPairs, Threshold
from collapse_audit.similarity.products.rows import Index
from collapse_audit.similarity.state import State, smallest_of

# At most 16 pairs a member: half a second for 65,536 members.
_MOST_MEMBERS = 32
_PAIRS_AT_ONCE = 1 << 18


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
        self._scores = np.empty(0)

    def take(self, rows: Index, component: Index) -> Index:
        """Take the components that are small enough; the members of those."""
        # rows rise, and are all of a component or none
        _, group, sizes = np.unique(component, return_inverse=True, return_counts=True)
        by_group = np.argsort(group, kind="stable")
        small = sizes[group[by_group]] <= _MOST_MEMBERS
        rows, size_of = rows[by_group][small], sizes[group[by_group]][small]
        found = [(self._later, self._earlier, self._scores)]
        for size in np.unique(size_of):
            for later, earlier in _pairs_inside(rows[size_of == size].reshape(-1, size)):
                found.append((later, earlier, self._exact.scores(later, earlier)))
        self._later, self._earlier, self._scores = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        self._members = np.union1d(self._members, rows)
        return rows

    def look(self, threshold: Threshold, state: State) -> None:
        """Put their groups and components at a threshold into the state."""
        # the threshold must not be larger than at the last call
        if not self._members.size:
            return
        closer = self._exact.decide(self._scores, self._later, self._earlier, threshold)
        self._later, self._earlier = self._later[closer], self._earlier[closer]
        self._scores = self._scores[closer]
        count = len(self._members)
        row = np.searchsorted(self._members, self._later)
        earlier = np.searchsorted(self._members, self._earlier)
        new = first_leaders(count, row, earlier)
        joined = new[earlier] & ~new[row]
        leader = np.arange(count)
        np.minimum.at(leader, row[joined], earlier[joined])
        graph = coo_array((np.ones(len(row), dtype=np.int8), (row, earlier)), shape=(count, count))
        neighbours = np.bincount(np.concatenate([row, earlier]), minlength=count)
        inside = np.bincount(leader[row[leader[row] == leader[earlier]]], minlength=count)
        sizes = np.bincount(leader, minlength=count)
        members = self._members
        state.leader[members] = members[leader]
        state.component[members] = smallest_of(
            members, connected_components(graph, directed=False)[1]
        )
        state.neighbours[members] = neighbours
        state.clique[members] = inside == sizes * (sizes - 1) // 2


def _pairs_inside(components: Index) -> Iterator[tuple[Index, Index]]:
    """All pairs (later, earlier) of the members of components of one size (components x size)."""
    later, earlier = np.tril_indices(components.shape[1], -1)
    step = max(1, _PAIRS_AT_ONCE // max(1, len(later)))
    for start in range(0, len(components), step):
        part = components[start : start + step]
        yield part[:, later].ravel(), part[:, earlier].ravel()
