"""Links between groups: connected components, neighbour counts, and which groups are cliques."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.partition import runs
from collapse_audit.similarity.predicate import NONE, Comparison
from collapse_audit.similarity.products.bounds import float64_bound
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Float64, Index, Mask, parts
from collapse_audit.similarity.progress import Progress, silent

_ROWS = 1024
_COLUMNS = 2048
# Rounding of arccos and of the sums of angles below, far above their true size.
_ANGLE_SLACK = 1e-12
# Below this many hits a tile's linked groups are read from the hits themselves.
_FEW_HITS = 16384
# Members are compared with the leaders of the other side first where that is so many times cheaper
# than comparing them with its members.
_WORTH_A_LOOK = 4
# Links kept before those that connect nothing new are forgotten.
_MOST_LINKS = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """How the groups of a cover hang together.

    Attributes:
        component: Connected component of each scanned prototype (k); -1 if not scanned.
        num_components: How many there are.
        neighbours: Other prototypes closer than epsilon, for each prototype (k); 0 if not scanned.
        clique: Whether all members of a group are closer than epsilon to each other (m).
        radius: Upper bound of the angle between each leader and its members, radians (m).
    """

    component: Index
    num_components: int
    neighbours: npt.NDArray[np.int64]
    clique: Mask
    radius: Float64


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
    linker = _Linker(comparison, cover, within)
    done = 0
    for first, last, end in linker.segments():
        linker.compare_inside(first, last)
        linker.compare_with_later(first, last, end)
        done += last - first
        progress("links", done, linker.num_shared)
    return linker.result()


class _Linker:
    """Groups sorted by falling radius, members beside each other, and what was counted so far.

    Positions below count groups in that order, one run of parts after the other. Groups of one
    member come last in each.
    """

    def __init__(self, comparison: Comparison, cover: Cover, within: Index | None) -> None:
        self._comparison = comparison
        self._cover = cover
        self._theta = comparison.threshold.angle
        sizes = cover.sizes
        self._radius = _radii(comparison, cover)
        run = np.zeros(len(sizes), dtype=np.intp)
        self._ends: list[tuple[int, int]] = []  # of groups of several members, and of all, per run
        end = 0
        for number, leaders in enumerate(runs(cover.leaders, within)):
            groups = cover.group[leaders]
            run[groups] = number
            self._ends.append((end + int((sizes[groups] > 1).sum()), end + len(groups)))
            end += len(groups)
        # By radius, but groups of one member last even where all radii are zero.
        self._rank = np.lexsort((-self._radius, sizes == 1, run))
        self._sizes = sizes[self._rank]
        self._sorted_radius = self._radius[self._rank]
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        position = np.empty(len(sizes), dtype=np.intp)
        position[self._rank] = np.arange(len(sizes))
        scanned = np.flatnonzero(cover.group != NONE)
        positions = position[cover.group[scanned]]
        by_group = np.argsort(positions, kind="stable")
        self._members: Index = scanned[by_group]
        self._group_of: Index = positions[by_group]
        self.num_shared = int((sizes > 1).sum())
        self._tight = 2 * self._sorted_radius + _ANGLE_SLACK < self._theta
        self._clique = np.ones(len(sizes), dtype=np.bool_)
        self._neighbours = np.zeros(len(cover.group), dtype=np.int64)
        self._linked: list[Index] = []
        self._num_links = 0

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Groups of several members, about ``_ROWS`` members at once, and the end of their run."""
        first = 0
        for shared, end in self._ends:
            while first < shared:
                room = self._starts[first] + _ROWS
                last = int(np.searchsorted(self._starts, room, side="right")) - 1
                last = min(max(last, first + 1), shared)
                yield first, last, end
                first = last
            first = end

    def compare_inside(self, first: int, last: int) -> None:
        """Count the pairs inside a segment."""
        start, stop = int(self._starts[first]), int(self._starts[last])
        if self._tight[first:last].all() and not self._may_link(first, last, first, last).any():
            self._neighbours[self._members[start:stop]] += (
                self._sizes[self._group_of[start:stop]] - 1
            )
            return
        inside = np.zeros(stop - start, dtype=np.int64)
        for row in range(start, stop, _ROWS):
            rows = slice(row, min(row + _ROWS, stop))
            for column in range(row, stop, _ROWS):
                columns = slice(column, min(column + _ROWS, stop))
                hits = self._hits(rows, columns, same=column == row)
                if hits is None:
                    continue
                same_group = self._group_of[rows, None] == self._group_of[None, columns]
                own = hits & same_group
                inside[rows.start - start : rows.stop - start] += own.sum(axis=1)
                if column != row:
                    inside[columns.start - start : columns.stop - start] += own.sum(axis=0)
        others = self._sizes[self._group_of[start:stop]] - 1
        incomplete = self._group_of[start:stop][inside < others]
        self._clique[self._rank[incomplete]] = False

    def compare_with_later(self, first: int, last: int, end: int) -> None:
        """Count the pairs between a segment and the later groups that its groups may reach."""
        for column in range(last, end, _COLUMNS):
            may = self._may_link(first, last, column, min(column + _COLUMNS, end))
            if not may.any():
                continue
            row_groups = first + np.flatnonzero(may.any(axis=1))
            column_groups = column + np.flatnonzero(may.any(axis=0))
            rows, columns = self._members_of(row_groups), self._members_of(column_groups)
            looks = len(row_groups) * len(columns) + len(column_groups) * len(rows)
            if _WORTH_A_LOOK * looks < len(rows) * len(columns):
                rows = rows[self._may_reach(rows, column_groups)]
                columns = columns[self._may_reach(columns, row_groups)]
            for r in range(0, len(rows), _ROWS):
                for c in range(0, len(columns), _COLUMNS):
                    self._hits(rows[r : r + _ROWS], columns[c : c + _COLUMNS])

    def _may_link(self, first: int, last: int, column: int, end: int) -> Mask:
        """Pairs of groups (first..last x column..end) that the triangle inequality allows."""
        comparison, leaders = self._comparison, self._cover.leaders
        reach = self._theta + self._sorted_radius[first:last] + self._sorted_radius[column]
        rows = Operand(leaders[self._rank[first:last]])
        columns = Operand(leaders[self._rank[column:end]])
        r, c = comparison.panel.may_reach(rows, columns, np.cos(np.minimum(reach, np.pi)))
        later = column + c > first + r
        may = np.zeros((last - first, end - column), dtype=np.bool_)
        may[r[later], c[later]] = True
        return may

    def _may_reach(self, members: Index, groups: Index) -> Mask:
        """Which members may be linked to a member of any of some groups, by those leaders alone."""
        leaders = Operand(self._cover.leaders[self._rank[groups]])
        limit = np.cos(np.minimum(self._theta + self._sorted_radius[groups], np.pi))
        may = np.zeros(len(members), dtype=np.bool_)
        for part in parts(len(members), _COLUMNS):
            operand = Operand(self._members[members[part]])
            _, column = self._comparison.panel.may_reach(leaders, operand, limit)
            may[part.start + column] = True
        return may

    def _members_of(self, positions: Index) -> Index:
        """Places in the sorted members of all members of some groups."""
        sizes = self._sizes[positions]
        ends = np.cumsum(sizes)
        offset = np.repeat(self._starts[positions] - (ends - sizes), sizes)
        return np.asarray(np.arange(ends[-1]) + offset)

    def _hits(
        self, rows: slice | Index, columns: slice | Index, *, same: bool = False
    ) -> Mask | None:
        """Compare members, and count and link what is closer than the threshold."""
        comparison = self._comparison
        row_index, column_index = self._members[rows], self._members[columns]
        row_operand = Operand(row_index)
        column_operand = row_operand if same else Operand(column_index)
        hits = comparison.duplicates(row_operand, column_operand)
        if hits is None:
            return None
        self._neighbours[row_index] += hits.sum(axis=1)
        if not same:
            self._neighbours[column_index] += hits.sum(axis=0)
        self._link(hits, self._group_of[rows], self._group_of[columns])
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
        if self._num_links > _MOST_LINKS + len(self._sizes):
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
        m = len(self._sizes)
        pairs = np.concatenate([np.empty((0, 2), dtype=np.intp), *self._linked])
        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(m, m))
        count, label = connected_components(graph, directed=False)
        return int(count), label

    def result(self) -> Links:
        """Everything counted, once all segments were compared."""
        count, label = self._components()
        component = np.full(len(self._neighbours), NONE, dtype=np.intp)
        component[self._members] = label[self._group_of]
        return Links(
            component=component,
            num_components=count,
            neighbours=self._neighbours,
            clique=self._clique,
            radius=self._radius,
        )


def _radii(comparison: Comparison, cover: Cover) -> Float64:
    """Upper bound of the angle between each leader and its members; zero for single members."""
    sizes = cover.sizes
    radius = np.zeros(len(sizes))
    members = np.flatnonzero(cover.group != NONE)
    members = members[sizes[cover.group[members]] > 1]
    groups = cover.group[members]
    cosines = comparison.exact.cosines(members, cover.leaders[groups])
    bound = float64_bound(comparison.prototypes.d)
    angles = np.arccos(np.clip(cosines - bound, -1.0, 1.0)) + _ANGLE_SLACK
    np.maximum.at(radius, groups, angles)
    return radius
