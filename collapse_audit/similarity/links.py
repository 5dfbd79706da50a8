"""Links between groups: connected components, neighbour counts, and which groups are cliques."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from collapse_audit.similarity.components import Components
from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.predicate import Comparison
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Index, Mask
from collapse_audit.similarity.progress import Progress, silent
from collapse_audit.similarity.sorted_groups import ANGLE_SLACK, COLUMNS, ROWS, SortedGroups

# Below this many hits a tile's linked groups are read from the hits themselves.
_FEW_HITS = 16384
# Links kept before those that connect nothing new are forgotten.
_MOST_LINKS = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Links(Components):
    """How the groups of a cover hang together: their components, and what pairs tell.

    Attributes:
        neighbours: Other prototypes closer than epsilon, for each prototype (k); 0 if not scanned.
        clique: Whether all members of a group are closer than epsilon to each other (m).
    """

    neighbours: npt.NDArray[np.int64]
    clique: Mask


def link_groups(
    comparison: Comparison,
    cover: Cover,
    *,
    within: Index | None = None,
    progress: Progress = silent,
) -> Links:
    """Connect the groups of a cover, and count the neighbours of every prototype.

    A group is connected by construction. Two groups g, h can only be linked if their leaders are
    closer than theta + r_g + r_h (triangle inequality for angles), so most pairs of groups are
    never looked at; where 2 r_g < theta all members are neighbours of one another, which needs no
    product either. Two groups of one member each are never linked: both are leaders. No list of
    pairs of prototypes is ever held.

    Args:
        comparison: The prototypes and the threshold.
        cover: Their leader cover at the same threshold.
        within: As for :func:`leader_cover`.
        progress: Called with ("links", groups done, groups in all).

    Returns:
        Components, neighbour counts and cliques, all exact.
    """
    linker = _Linker(SortedGroups(comparison, cover, within))
    done = 0
    for first, last, end in linker.groups.segments():
        linker.compare_inside(first, last)
        linker.compare_with_later(first, last, end)
        done += last - first
        progress("links", done, linker.groups.num_shared)
    return linker.result()


class _Linker:
    """What was counted and linked so far."""

    def __init__(self, groups: SortedGroups) -> None:
        self.groups = groups
        self._tight = 2 * groups.radius + ANGLE_SLACK < groups.comparison.threshold.angle
        self._clique = np.ones(len(groups.sizes), dtype=np.bool_)
        self._neighbours = np.zeros(len(groups.cover.group), dtype=np.int64)
        self._linked: list[Index] = []
        self._num_links = 0

    def compare_inside(self, first: int, last: int) -> None:
        """Count the pairs inside a segment."""
        groups = self.groups
        start, stop = int(groups.starts[first]), int(groups.starts[last])
        if self._tight[first:last].all() and not groups.may_link(first, last, first, last).any():
            self._neighbours[groups.members[start:stop]] += (
                groups.sizes[groups.group_of[start:stop]] - 1
            )
            return
        inside = np.zeros(stop - start, dtype=np.int64)
        for row in range(start, stop, ROWS):
            rows = slice(row, min(row + ROWS, stop))
            for column in range(row, stop, ROWS):
                columns = slice(column, min(column + ROWS, stop))
                hits = self._hits(rows, columns, same=column == row)
                if hits is None:
                    continue
                same_group = groups.group_of[rows, None] == groups.group_of[None, columns]
                own = hits & same_group
                inside[rows.start - start : rows.stop - start] += own.sum(axis=1)
                if column != row:
                    inside[columns.start - start : columns.stop - start] += own.sum(axis=0)
        others = groups.sizes[groups.group_of[start:stop]] - 1
        incomplete = groups.group_of[start:stop][inside < others]
        self._clique[groups.rank[incomplete]] = False

    def compare_with_later(self, first: int, last: int, end: int) -> None:
        """Count the pairs between a segment and the later groups that its groups may reach."""
        groups = self.groups
        for column in range(last, end, COLUMNS):
            may = groups.may_link(first, last, column, min(column + COLUMNS, end))
            if not may.any():
                continue
            rows, columns = groups.candidates(may, first, column)
            for r in range(0, len(rows), ROWS):
                for c in range(0, len(columns), COLUMNS):
                    self._hits(rows[r : r + ROWS], columns[c : c + COLUMNS])

    def _hits(
        self, rows: slice | Index, columns: slice | Index, *, same: bool = False
    ) -> Mask | None:
        """Compare members, and count and link what is closer than the threshold."""
        groups = self.groups
        row_index, column_index = groups.members[rows], groups.members[columns]
        row_operand = Operand(row_index)
        column_operand = row_operand if same else Operand(column_index)
        hits = groups.comparison.duplicates(row_operand, column_operand)
        if hits is None:
            return None
        self._neighbours[row_index] += hits.sum(axis=1)
        if not same:
            self._neighbours[column_index] += hits.sum(axis=0)
        self._link(hits, groups.group_of[rows], groups.group_of[columns])
        return hits

    def _link(self, hits: Mask, row_groups: Index, column_groups: Index) -> None:
        if np.count_nonzero(hits) <= _FEW_HITS:
            r, c = np.divmod(np.flatnonzero(hits), hits.shape[1])
            pairs = np.stack([row_groups[r], column_groups[c]], axis=1)
        else:
            row_starts = np.flatnonzero(np.diff(row_groups, prepend=-1))
            column_starts = np.flatnonzero(np.diff(column_groups, prepend=-1))
            by_column = np.logical_or.reduceat(hits, column_starts, axis=1)
            r, c = np.nonzero(np.logical_or.reduceat(by_column, row_starts, axis=0))
            pairs = np.stack([row_groups[row_starts[r]], column_groups[column_starts[c]]], axis=1)
        self._linked.append(np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0))
        self._num_links += len(self._linked[-1])
        if self._num_links > _MOST_LINKS + len(self.groups.sizes):
            self._forget_paths()

    def _forget_paths(self) -> None:
        """Keep one link of each group, to the first one of its component: at most m in all."""
        _, label = self._components()
        _, first = np.unique(label, return_index=True)
        pairs = np.stack([np.arange(len(label)), first[label]], axis=1)
        self._linked = [pairs[pairs[:, 0] != pairs[:, 1]]]
        self._num_links = len(self._linked[0])

    def _components(self) -> tuple[int, Index]:
        """Number of components of the groups linked so far, and that of each group."""
        m = len(self.groups.sizes)
        pairs = np.concatenate([np.empty((0, 2), dtype=np.intp), *self._linked])
        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(m, m))
        count, label = connected_components(graph, directed=False)
        return int(count), label

    def result(self) -> Links:
        """Everything counted, once all segments were compared."""
        count, label = self._components()
        return Links(
            component=self.groups.spread(label),
            num_components=count,
            neighbours=self._neighbours,
            clique=self._clique,
            radius=self.groups.radius_of_group,
        )
