"""Groups of a cover in an order that keeps what cannot be linked apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.partition import runs
from collapse_audit.similarity.predicate import NONE, Comparison
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Float64, Index, Mask, parts

ROWS = 1024
COLUMNS = 2048
# Rounding of an arc cosine and of the sums of angles below, far above their true size.
ANGLE_SLACK = 1e-12
# Members are compared with the leaders of the other side first where that is so many times cheaper
# than comparing them with its members.
_WORTH_A_LOOK = 4


class SortedGroups:
    """Groups by falling radius, members beside each other, one run of parts after the other.

    Positions count groups in that order. Groups of one member come last in each run; two of them
    are never linked, for both are leaders.
    """

    def __init__(self, comparison: Comparison, cover: Cover, within: Index | None) -> None:
        self.comparison = comparison
        self.cover = cover
        sizes, radius = cover.sizes, _radii(comparison, cover)
        run = np.zeros(len(sizes), dtype=np.intp)
        self._ends: list[tuple[int, int]] = []  # of groups of several members, and of all, per run
        end = 0
        for number, leaders in enumerate(runs(cover.leaders, within)):
            groups = cover.group[leaders]
            run[groups] = number
            self._ends.append((end + int((sizes[groups] > 1).sum()), end + len(groups)))
            end += len(groups)
        # Group at each position: by radius, but groups of one member last even where all are zero.
        self.rank = np.lexsort((-radius, sizes == 1, run))
        self.sizes, self.radius = sizes[self.rank], radius[self.rank]
        # place of its first member, and the end of all
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        position = np.empty(len(sizes), dtype=np.intp)
        position[self.rank] = np.arange(len(sizes))
        scanned = np.flatnonzero(cover.group != NONE)
        positions = position[cover.group[scanned]]
        by_group = np.argsort(positions, kind="stable")
        self.members: Index = scanned[by_group]  # prototypes, group by group
        self.group_of: Index = positions[by_group]  # position of the group of each of these
        self.num_shared = int((sizes > 1).sum())

    @property
    def radius_of_group(self) -> Float64:
        """The radii in the order of the cover (m)."""
        radius = np.empty(len(self.rank))
        radius[self.rank] = self.radius
        return radius

    def spread(self, of_position: Index) -> Index:
        """What belongs to each position, for every scanned prototype; -1 for the others (k)."""
        everyone = np.full(len(self.cover.group), NONE, dtype=np.intp)
        everyone[self.members] = of_position[self.group_of]
        return everyone

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Groups of several members, about ``ROWS`` members at once, and the end of their run."""
        first = 0
        for shared, end in self._ends:
            while first < shared:
                room = self.starts[first] + ROWS
                last = int(np.searchsorted(self.starts, room, side="right")) - 1
                last = min(max(last, first + 1), shared)
                yield first, last, end
                first = last
            first = end

    def may_link(self, first: int, last: int, column: int, end: int) -> Mask:
        """Pairs of groups (first..last x column..end) that the triangle inequality allows."""
        comparison, leaders = self.comparison, self.cover.leaders
        reach = comparison.threshold.angle + self.radius[first:last] + self.radius[column]
        rows = Operand(leaders[self.rank[first:last]])
        columns = Operand(leaders[self.rank[column:end]])
        r, c = comparison.panel.may_reach(rows, columns, comparison.threshold.cosines(reach))
        later = column + c > first + r
        may = np.zeros((last - first, end - column), dtype=np.bool_)
        may[r[later], c[later]] = True
        return may

    def candidates(self, may: Mask, first: int, column: int) -> tuple[Index, Index]:
        """Places of the members that the pairs of groups from :meth:`may_link` may link."""
        row_groups, column_groups = touched(may, first, column)
        rows, columns = self.members_of(row_groups), self.members_of(column_groups)
        looks = len(row_groups) * len(columns) + len(column_groups) * len(rows)
        if _WORTH_A_LOOK * looks < len(rows) * len(columns):
            rows = rows[self._may_reach(rows, column_groups)]
            columns = columns[self._may_reach(columns, row_groups)]
        return rows, columns

    def _may_reach(self, members: Index, groups: Index) -> Mask:
        """Which members may be linked to a member of any of some groups, by those leaders alone."""
        leaders = Operand(self.cover.leaders[self.rank[groups]])
        threshold = self.comparison.threshold
        limit = threshold.cosines(threshold.angle + self.radius[groups])
        may = np.zeros(len(members), dtype=np.bool_)
        for part in parts(len(members), COLUMNS):
            operand = Operand(self.members[members[part]])
            _, column = self.comparison.panel.may_reach(leaders, operand, limit)
            may[part.start + column] = True
        return may

    def members_of(self, positions: Index) -> Index:
        """Places in the sorted members of all members of some groups."""
        sizes = self.sizes[positions]
        ends = np.cumsum(sizes)
        offset = np.repeat(self.starts[positions] - (ends - sizes), sizes)
        return np.asarray(np.arange(ends[-1]) + offset)


def touched(may: Mask, first: int, column: int) -> tuple[Index, Index]:
    """Groups of the rows and of the columns that have any pair."""
    return first + np.flatnonzero(may.any(axis=1)), column + np.flatnonzero(may.any(axis=0))


def _radii(comparison: Comparison, cover: Cover) -> Float64:
    """Upper bound of the angle between each leader and its members; zero for single members."""
    sizes = cover.sizes
    radius = np.zeros(len(sizes))
    members = np.flatnonzero(cover.group != NONE)
    members = members[sizes[cover.group[members]] > 1]
    groups = cover.group[members]
    np.maximum.at(radius, groups, member_angles(comparison, members, cover.leaders[groups]))
    return radius


def member_angles(comparison: Comparison, members: Index, leaders: Index) -> Float64:
    """Upper bounds of the angles between members and the leaders of their groups, radians."""
    angles = comparison.exact.angles(members, leaders) + ANGLE_SLACK
    return np.where(members == leaders, 0.0, angles)
