"""Prototypes in parts that are known to be apart: what lies in different parts is not compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from collapse_audit.similarity.products.rows import Index

# Small parts share a tile: more rows would multiply more pairs of different parts for nothing.
_SHARED = 256


def runs(rows: Index, part: Index | None) -> Iterator[Index]:
    """Rows part by part, each part whole and in the given order; small parts come together."""
    # part: that of each prototype (k); None if all are in one
    if part is None or not rows.size:
        yield rows
        return
    by_part = rows[np.argsort(part[rows], kind="stable")]
    ends = np.append(np.flatnonzero(np.diff(part[by_part])) + 1, len(by_part))
    start = 0
    while start < len(by_part):
        stop = int(ends[np.searchsorted(ends, start, side="right")])
        together = int(np.searchsorted(ends, start + _SHARED, side="right"))
        if together and ends[together - 1] > stop:
            stop = int(ends[together - 1])
        yield by_part[start:stop]
        start = stop
