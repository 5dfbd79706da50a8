"""Counts by brute force in float64, for inputs whose answer is not known by construction."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.inputs import EPSILON, Counts, Head, Rows
from benchmarks.methods import unit
from collapse_audit.similarity.products.bounds import format_bound

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Reference:
    """What an answer is compared with.

    Attributes:
        counts: The exact counts at ``EPSILON``.
        tighter: The counts at a threshold that is smaller by all that fp32 may be wrong by.
        looser: The same at a larger one; equal to ``counts`` where no pair is near the threshold.
    """

    counts: Counts
    tighter: Counts
    looser: Counts

    @classmethod
    def of(cls, head: Head) -> Reference:
        """Planted counts where there are some, else those of a comparison of all pairs."""
        if head.planted is not None:
            return cls(head.planted, head.planted, head.planted)
        # Peers take the norm of unit rows for one, which it is up to the rounding of each row.
        slack = format_bound("float32", head.rows.shape[1]) + 2.0**-22
        thresholds = (1.0 - EPSILON, 1.0 - EPSILON + slack, 1.0 - EPSILON - slack)
        return cls(*_count(head.rows, thresholds))

    @classmethod
    def from_dict(cls, stored: dict[str, dict[str, int]]) -> Reference:
        """Read what :meth:`to_dict` gave."""
        return cls(**{name: Counts(**counts) for name, counts in stored.items()})

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Plain dictionaries."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs of a row and an earlier one, and their cosines."""

    row: npt.NDArray[np.intp]
    earlier: npt.NDArray[np.intp]
    score: npt.NDArray[np.float64]


class _Level:
    """The counts at one threshold, a block of rows after the other."""

    def __init__(self, k: int, cosine: float) -> None:
        self._cosine = cosine
        self._leader = np.zeros(k, dtype=np.bool_)
        self._label = np.arange(k)
        self._degrees = np.zeros(k, dtype=np.int64)

    def add(self, pairs: _Pairs, start: int, stop: int) -> None:
        """Pairs of the rows from start to stop with earlier rows, in the order of the rows."""
        near = pairs.score > self._cosine
        row, earlier = pairs.row[near], pairs.earlier[near]
        self._degrees += np.bincount(row, minlength=len(self._degrees))
        self._degrees += np.bincount(earlier, minlength=len(self._degrees))
        ends = np.searchsorted(row, np.arange(start, stop + 1))
        for place in range(stop - start):
            of_row = earlier[ends[place] : ends[place + 1]]
            self._leader[start + place] = not self._leader[of_row].any()
        self._join(self._label[row], self._label[earlier])

    def _join(self, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> None:
        apart = first != second
        if apart.any():
            pairs = np.unique(np.stack([first[apart], second[apart]]), axis=1)
            k = len(self._label)
            graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(k, k))
            self._label = connected_components(graph, directed=False)[1][self._label]

    def counts(self) -> Counts:
        return Counts(
            greedy=int(self._leader.sum()),
            components=len(np.unique(self._label)),
            isolated=int((self._degrees == 0).sum()),
            pairs=int(self._degrees.sum()) // 2,
        )


def _count(rows: Rows, cosines: tuple[float, ...]) -> list[Counts]:
    """The definitions, pair by pair: 2 K^2 D operations in float64, memory for one block."""
    wide = unit(rows)
    levels = [_Level(len(rows), cosine) for cosine in cosines]
    for start in range(0, len(rows), _BLOCK):
        stop = min(start + _BLOCK, len(rows))
        scores = wide[start:stop] @ wide[:stop].T
        r, c = np.divmod(np.flatnonzero(scores > min(cosines)), stop)
        r, c = r[c < start + r], c[c < start + r]
        pairs = _Pairs(start + r, c, scores[r, c])
        for level in levels:
            level.add(pairs, start, stop)
    return [level.counts() for level in levels]
