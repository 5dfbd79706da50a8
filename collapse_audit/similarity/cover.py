"""Leader cover: each prototype joins the first leader within epsilon, or becomes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collapse_audit.similarity.partition import runs
from collapse_audit.similarity.predicate import NONE, Comparison
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Index, Mask, parts
from collapse_audit.similarity.progress import Progress, silent

# A scan of this many prototypes is long enough for folding to pay, and after half of them the share
# that became leaders tells a healthy head from a collapsed one, whose leaders come early.
_LONG_SCAN = 16384
# Rows of the first block, and twice as many in each that follows: popular leaders come early, and
# most rows of a group need no more than its leader.
_FIRST_ROWS = 64
_MANY_LEADERS = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """Groups of prototypes around leaders.

    Attributes:
        leaders: The leader of each group, in scan order (m).
        group: Group of each scanned prototype, a position in ``leaders`` (k); -1 if not scanned.
    """

    leaders: Index
    group: Index

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Members of each group (m)."""
        scanned = self.group[self.group != NONE]
        return np.bincount(scanned, minlength=len(self.leaders)).astype(np.int64)

    def only(self, rows: Index) -> Cover:
        """Some of the groups: those of these rows, which are all of their members."""
        groups, place = np.unique(self.group[rows], return_inverse=True)
        group = np.full(len(self.group), NONE, dtype=np.intp)
        group[rows] = place
        return Cover(leaders=self.leaders[groups], group=group)


def leader_cover(
    comparison: Comparison,
    *,
    order: Index | None = None,
    within: Index | None = None,
    block_rows: int | None = None,
    progress: Progress = silent,
) -> Cover:
    """Scan the prototypes; each joins the first leader closer than epsilon, or becomes a leader.

    This is the sequential leader algorithm (Hartigan 1975, chapter 3), the reading of "unique
    prototypes" that this package counts by default: leaders are pairwise at least epsilon apart,
    and every prototype is within epsilon of its own. The cost is K M D, not K^2 D, and a covered
    row leaves its block at once.

    Args:
        comparison: The prototypes and the threshold.
        order: Prototypes to scan, in this order; all of them by index if ``None``.
        within: A label of each prototype (k), where prototypes with different labels are known to
            be further apart than epsilon: they are not compared. ``None`` if nothing is known.
        block_rows: Rows compared at once; the panel's own if ``None``. It changes memory and
            speed, not the result.
        progress: Called with ("cover", rows done, rows in all).

    Returns:
        The groups. Equal for every block size, panel, device and thread count.
    """
    scan = np.arange(comparison.prototypes.k) if order is None else np.asarray(order, np.intp)
    group = np.full(comparison.prototypes.k, NONE, dtype=np.intp)
    found: list[Index] = []
    done = count = 0
    for run in runs(scan, within):

        def tell(rows: int, before: int = done) -> None:
            progress("cover", before + rows, len(scan))

        found.append(_scan(comparison, run, group, count, block_rows=block_rows, tell=tell))
        done += len(run)
        count += len(found[-1])
    cover = Cover(leaders=np.concatenate(found), group=group)
    return cover if within is None else _in_scan_order(cover, scan)


def _in_scan_order(cover: Cover, scan: Index) -> Cover:
    """The same groups, numbered as their leaders were scanned."""
    place = np.empty(len(cover.group), dtype=np.intp)
    place[scan] = np.arange(len(scan))
    order = np.argsort(place[cover.leaders])
    number = np.empty(len(order), dtype=np.intp)
    number[order] = np.arange(len(order))
    group = cover.group.copy()
    group[scan] = number[group[scan]]
    return Cover(leaders=cover.leaders[order], group=group)


def _scan(
    comparison: Comparison,
    scan: Index,
    group: Index,
    offset: int,
    *,
    block_rows: int | None,
    tell: Callable[[int], None],
) -> Index:
    """Put rows into groups, which are numbered from an offset; return the leaders."""
    leaders = _Leaders(comparison.panel.chunk_rows)
    untried = len(scan) >= _LONG_SCAN
    start = 0
    size = _FIRST_ROWS
    while start < len(scan):
        rows = scan[start : start + min(size, block_rows or comparison.block_rows)]
        size *= 2
        live = _join(comparison, rows, leaders, group, offset=offset)
        leaders.extend(
            _scan_among_themselves(comparison, live, group, offset=offset + leaders.count)
        )
        if untried and 2 * start >= _LONG_SCAN:
            untried = False
            if leaders.count > _MANY_LEADERS * start:
                comparison.try_folding(leaders.index())
        start += len(rows)
        tell(start)
    return leaders.index()


def cover_around(comparison: Comparison, leaders: Index, rows: Index) -> Cover:
    """Put rows into the group of the first of some given leaders close enough, the rest alone."""
    # it costs K times the number of leaders, and the groups are no leader cover
    group = np.full(comparison.prototypes.k, NONE, dtype=np.intp)
    given = _Leaders(comparison.panel.chunk_rows)
    given.extend(leaders)
    alone = [
        _join(comparison, rows[part], given, group, offset=0)
        for part in parts(len(rows), comparison.block_rows)
    ]
    rest = np.setdiff1d(np.concatenate(alone), leaders)
    group[leaders] = np.arange(len(leaders))
    group[rest] = len(leaders) + np.arange(len(rest))
    return Cover(leaders=np.concatenate([leaders, rest]), group=group)


class _Leaders:
    """Leaders in the order they were found, gathered in chunks that are built once full.

    Early chunks are small: popular leaders come early and empty a block.
    """

    def __init__(self, chunk_rows: int) -> None:
        self._sizes = (chunk_rows // 4, chunk_rows // 4, chunk_rows // 2, chunk_rows)
        self._full: list[tuple[int, Operand]] = []
        self._tail = np.empty(0, dtype=np.intp)
        self.count = 0

    def extend(self, new: Index) -> None:
        self._tail = np.concatenate([self._tail, new])
        self.count += len(new)
        while len(self._tail) >= (room := self._sizes[min(len(self._full), 3)]):
            self._full.append((self.count - len(self._tail), Operand(self._tail[:room])))
            self._tail = self._tail[room:]

    def chunks(self) -> list[tuple[int, Operand]]:
        """(leaders before it, chunk) of all leaders."""
        if not len(self._tail):
            return self._full
        return [*self._full, (self.count - len(self._tail), Operand(self._tail))]

    def index(self) -> Index:
        parts = [chunk.index for _, chunk in self._full]
        return np.concatenate([*parts, self._tail])


def _join(
    comparison: Comparison, rows: Index, leaders: _Leaders, group: Index, *, offset: int
) -> Index:
    """Put rows into the group of the first leader close enough; return those without one."""
    operand = Operand(rows)
    for before, chunk in leaders.chunks():
        if not len(operand):
            break
        first = comparison.first_duplicate(operand, chunk)
        if first is not None:
            covered = first != NONE
            group[operand.index[covered]] = first[covered] + before + offset
            operand = Operand(operand.index[~covered])
    return operand.index


def _scan_among_themselves(
    comparison: Comparison, rows: Index, group: Index, *, offset: int
) -> Index:
    """Group rows that no earlier leader covers; return the new leaders among them."""
    leaders = _Leaders(comparison.panel.scan_rows)
    size = comparison.panel.scan_rows
    for start in range(0, len(rows), size):
        part = _join(comparison, rows[start : start + size], leaders, group, offset=offset)
        if len(part):
            new, joined = _scan_block(comparison, part)
            group[part] = offset + leaders.count + joined
            leaders.extend(part[new])
    return leaders.index()


def _scan_block(comparison: Comparison, rows: Index) -> tuple[Mask, Index]:
    """Resolve uncovered rows: which are new leaders, and each row's place among those."""
    operand = Operand(rows)
    close = comparison.duplicates(operand, operand)
    new = np.ones(len(rows), dtype=np.bool_)
    leader = np.arange(len(rows))
    if close is not None:
        row, earlier = close.nonzero()
        row, earlier = row[earlier < row], earlier[earlier < row]
        new = first_leaders(len(rows), row, earlier)
        joined = new[earlier] & ~new[row]
        # The pairs of a row are sorted, and the last one written stays: the first leader.
        leader[row[joined][::-1]] = earlier[joined][::-1]
    rank = np.cumsum(new) - 1
    return new, rank[leader]


def first_leaders(count: int, row: Index, earlier: Index) -> Mask:
    """Which of ``count`` rows become leaders, from all pairs of duplicates (row, earlier row)."""
    # In rounds instead of row by row: a row becomes a leader once no earlier duplicate of it is a
    # leader or may still become one. There are as many rounds as links in the longest chain; most
    # heads need one, and a round looks only at the pairs still open.
    undecided = np.zeros(count, dtype=np.bool_)
    undecided[row] = True
    leaders = ~undecided
    while undecided.any():
        undecided[row[leaders[earlier]]] = False
        still = undecided[row] & undecided[earlier]
        row, earlier = row[still], earlier[still]
        waits = np.zeros(count, dtype=np.bool_)
        waits[row] = True
        leaders |= undecided & ~waits
        undecided &= waits
    return leaders
