"""Leader cover: each prototype joins the first leader within epsilon, or becomes one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collapse_audit.similarity.comparison import NONE, Comparison
from collapse_audit.similarity.exact import Mask
from collapse_audit.similarity.panels import Index, Operand
from collapse_audit.similarity.progress import Progress, silent

_BLOCK_ROWS = 1024
# Leaders are met in chunks, small ones first: popular leaders come early and empty the block.
_FIRST_CHUNKS = (512, 512, 1024)
_CHUNK = 2048
# Share of a block that became leaders above which the head looks healthy.
_MANY_LEADERS = 0.3
# Shorter scans are over before folding has paid for itself.
_LONG_SCAN = 16384


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """Groups of prototypes around leaders.

    Attributes:
        leaders: The leader of each group, in scan order (m).
        group: Group of each scanned prototype, a position in ``leaders`` (k); -1 if not scanned.
    """

    leaders: Index
    group: npt.NDArray[np.intp]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Members of each group (m)."""
        scanned = self.group[self.group != NONE]
        return np.bincount(scanned, minlength=len(self.leaders)).astype(np.int64)


def leader_cover(
    comparison: Comparison,
    *,
    order: Index | None = None,
    block_rows: int = _BLOCK_ROWS,
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
        block_rows: Rows compared at once; changes memory and speed, not the result.
        progress: Called with ("cover", rows done, rows in all).

    Returns:
        The groups. Equal for every block size, panel, device and thread count.
    """
    scan = np.arange(comparison.prototypes.k) if order is None else np.asarray(order, np.intp)
    group = np.full(comparison.prototypes.k, NONE, dtype=np.intp)
    leaders = _Leaders()
    tried = len(scan) < _LONG_SCAN
    for start in range(0, len(scan), block_rows):
        live = scan[start : start + block_rows]
        for offset, chunk in leaders.chunks():
            if not live.size:
                break
            first = comparison.first_duplicate(Operand(live), chunk)
            covered = first != NONE
            group[live[covered]] = first[covered] + offset
            live = live[~covered]
        if live.size:
            new, joined = _scan_block(comparison, live)
            group[live] = leaders.count + joined
            leaders.extend(live[new])
            if not tried and new.sum() > _MANY_LEADERS * block_rows:
                comparison.try_folding(leaders.index())
                tried = True
        progress("cover", min(start + block_rows, len(scan)), len(scan))
    return Cover(leaders=leaders.index(), group=group)


class _Leaders:
    """The leaders so far, gathered in chunks that are built once they are full."""

    def __init__(self) -> None:
        self._full: list[tuple[int, Operand]] = []
        self._tail: list[Index] = []
        self._in_tail = 0
        self.count = 0

    def _room(self) -> int:
        filled = len(self._full)
        return _FIRST_CHUNKS[filled] if filled < len(_FIRST_CHUNKS) else _CHUNK

    def extend(self, new: Index) -> None:
        while new.size:
            part, new = np.split(new, [self._room() - self._in_tail])
            self._tail.append(part)
            self._in_tail += part.size
            self.count += part.size
            if self._in_tail == self._room():
                self._full.append(self._gather_tail())
                self._tail, self._in_tail = [], 0

    def _gather_tail(self) -> tuple[int, Operand]:
        return self.count - self._in_tail, Operand(np.concatenate(self._tail))

    def chunks(self) -> list[tuple[int, Operand]]:
        return [*self._full, self._gather_tail()] if self._in_tail else list(self._full)

    def index(self) -> Index:
        parts = [chunk.index for _, chunk in self.chunks()]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)


def _scan_block(comparison: Comparison, rows: Index) -> tuple[Mask, npt.NDArray[np.intp]]:
    """Resolve uncovered rows: which are new leaders, and each row's place among those."""
    operand = Operand(rows)
    close = comparison.duplicates(operand, operand)
    new = np.ones(len(rows), dtype=np.bool_)
    leader = np.arange(len(rows))
    if close is not None:
        earlier = np.tril(close, -1)
        for row in np.flatnonzero(earlier.any(axis=1)):
            candidates = earlier[row] & new
            first = int(candidates.argmax())
            if candidates[first]:
                new[row] = False
                leader[row] = first
    rank = np.cumsum(new) - 1
    return new, rank[leader]
