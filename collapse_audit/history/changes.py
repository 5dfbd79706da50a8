"""What changes along a run: where a head begins to collapse, and which prototypes merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Groups = npt.NDArray[np.int64]

#: The share of the best M / K so far below which a head has begun to collapse; that of the first
#: alarm of the monitor.
ONSET_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """Prototypes of several groups that are in one group at the next checkpoint.

    Attributes:
        prototypes: Their indices, in rising order (r, int64).
        parts: How many of them came from each earlier group, in falling order.
    """

    prototypes: npt.NDArray[np.int64]
    parts: tuple[int, ...]


def find_onset(fractions: Sequence[float], share: float = ONSET_SHARE) -> int | None:
    """Where a head began to collapse: the first checkpoint after which M / K stays low.

    Args:
        fractions: M / K at each checkpoint of one head of one K, in order.
        share: Of the largest fraction up to a checkpoint; below it that one is low.

    Returns:
        Index of the first checkpoint that is low and is followed by low ones only; ``None`` if
        the last one is not low.

    Example:
        >>> find_onset([1.0, 0.85, 0.95, 0.8, 0.3])
        3
    """
    low = np.asarray(fractions) < share * np.maximum.accumulate(fractions)
    if not len(low) or not low[-1]:
        return None
    return int(len(low) - low[::-1].argmin())  # the first checkpoint is never low


def find_merges(before: Groups, after: Groups) -> list[Merge]:
    """Prototypes that were in different groups at one checkpoint and are in one at the next.

    Args:
        before: Group of each prototype (k), as :class:`~collapse_audit.Redundancy` numbers them.
        after: The same at the next checkpoint.

    Returns:
        One merge for each later group with members of more than one earlier group, those of the
        most prototypes first.

    Example:
        >>> (merge,) = find_merges(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1]))
        >>> merge.prototypes.tolist(), merge.parts
        ([0, 1, 2], (2, 1))
    """
    width = int(after.max()) + 1
    cells, sizes = np.unique(before * width + after, return_counts=True)
    later = cells % width
    merged = np.flatnonzero(np.bincount(later) > 1)
    order = np.argsort(after, kind="stable")
    starts = np.searchsorted(after[order], merged)
    ends = np.searchsorted(after[order], merged, side="right")
    merges = [
        Merge(order[start:end], tuple(sorted(sizes[later == group].tolist(), reverse=True)))
        for group, start, end in zip(merged, starts, ends, strict=True)
    ]
    return sorted(merges, key=lambda merge: -len(merge.prototypes))
