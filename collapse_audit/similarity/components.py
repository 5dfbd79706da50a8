"""Which groups hang together, without counting the pairs: most are never looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.predicate import NONE, Comparison
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Float64, Index, Mask, parts
from collapse_audit.similarity.progress import Progress, silent
from collapse_audit.similarity.sorted_groups import COLUMNS, ROWS, SortedGroups, touched


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Connected components of the duplicate graph.

    Attributes:
        component: Component of each scanned prototype (k); -1 if not scanned.
        num_components: How many there are.
        radius: Upper bound of the angle between each leader and its members, radians (m).
    """

    component: Index
    num_components: int
    radius: Float64

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Scanned prototypes in each component."""
        scanned = self.component[self.component != NONE]
        return np.bincount(scanned, minlength=self.num_components).astype(np.int64)


def connect_groups(
    comparison: Comparison,
    cover: Cover,
    *,
    within: Index | None = None,
    progress: Progress = silent,
) -> Components:
    """Connect the groups of a leader cover at the same threshold; the components are exact."""
    # Pairs of groups that hang together already are not compared, and members meet the leaders of
    # the other side before its members: in most heads that links what is linked at all.
    connector = _Connector(SortedGroups(comparison, cover, within))
    done = 0
    for first, last, end in connector.groups.segments():
        for column in range(first, end, COLUMNS):
            connector.connect(first, last, column, min(column + COLUMNS, end))
        done += last - first
        progress("components", done, connector.groups.num_shared)
    return connector.result()


class _Connector:
    """The components found so far, as a label of each group."""

    def __init__(self, groups: SortedGroups) -> None:
        self.groups = groups
        self._label: Index = np.arange(len(groups.sizes))

    def connect(self, first: int, last: int, column: int, end: int) -> None:
        """Find the links between the groups of a segment and those of a stretch of columns."""
        groups = self.groups
        may = self._apart(first, last, column, end)
        if may.any():
            may &= groups.may_link(first, last, column, end)
        if may.any():
            row_groups, column_groups = touched(may, first, column)
            self._meet_leaders(groups.members_of(row_groups), column_groups)
            may &= self._apart(first, last, column, end)
        if may.any():
            row_groups, column_groups = touched(may, first, column)
            self._meet_leaders(groups.members_of(column_groups), row_groups)
            may &= self._apart(first, last, column, end)
        if may.any():
            rows, columns = groups.candidates(may, first, column)
            for r in parts(len(rows), ROWS):
                for c in parts(len(columns), COLUMNS):
                    self._meet(rows[r], groups.members[columns[c]], groups.group_of[columns[c]])

    def _apart(self, first: int, last: int, column: int, end: int) -> Mask:
        """Pairs of groups (first..last x column..end) that are not known to hang together."""
        return np.not_equal.outer(self._label[first:last], self._label[column:end])

    def _meet_leaders(self, members: Index, of_groups: Index) -> None:
        leaders = self.groups.cover.leaders[self.groups.rank[of_groups]]
        for r in parts(len(members), ROWS):
            for c in parts(len(leaders), COLUMNS):
                self._meet(members[r], leaders[c], of_groups[c])

    def _meet(self, places: Index, columns: Index, column_groups: Index) -> None:
        """Compare members with prototypes of other groups, and join what is linked."""
        row_groups = self.groups.group_of[places]
        rows = self.groups.members[places]
        hits = self.groups.comparison.duplicates(Operand(rows), Operand(columns))
        if hits is None:
            return
        r, c = np.divmod(np.flatnonzero(hits), len(columns))
        one, other = self._label[row_groups[r]], self._label[column_groups[c]]
        new = one != other
        if new.any():
            m = len(self._label)
            ends = (one[new], other[new])
            graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(m, m))
            self._label = connected_components(graph, directed=False)[1][self._label]

    def result(self) -> Components:
        """The components, once all stretches were compared."""
        found, label = np.unique(self._label, return_inverse=True)
        return Components(self.groups.spread(label), len(found), self.groups.radius_of_group)
