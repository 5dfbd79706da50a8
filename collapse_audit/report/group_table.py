"""The groups of duplicates for the page: the largest as rows, all as text for its script."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from collapse_audit.report.words import count

TITLES: Final = ("group", "leader", "r", "prototypes")
#: Characters that all groups of a page may take: a head with K = 65,536 takes 400,000.
LONGEST: Final = 1_200_000
_ROWS: Final = 20
_MEMBERS: Final = 12  # of a row


@dataclass(frozen=True, slots=True)
class GroupTable:
    """The groups of one head, in falling order of size."""

    rows: tuple[tuple[str, ...], ...]  # the largest, under :data:`TITLES`
    members: str  # of every group that there is room for: "0,5,6;1,7;2"
    shown: int  # groups that this holds
    total: int  # M


def group_table(groups: npt.NDArray[np.int64], longest: int = LONGEST) -> GroupTable:
    """Lay out the group of each prototype (k), numbered by falling size, in so many characters."""
    sizes = np.bincount(groups)
    # rising within a group, so that its leader, which the scan met first, comes first
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(sizes)
    width = len(str(len(groups) - 1)) + 1  # of an index and what parts it from the next
    shown = int(np.searchsorted(ends * width, longest, side="right"))
    parts = [order[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return GroupTable(
        rows=tuple(_row(at, part) for at, part in enumerate(parts[:_ROWS])),
        members=";".join(",".join(map(str, part.tolist())) for part in parts[:shown]),
        shown=shown,
        total=len(sizes),
    )


def _row(number: int, part: npt.NDArray[np.int64]) -> tuple[str, ...]:
    size = len(part)
    listed = ", ".join(map(str, part[:_MEMBERS].tolist()))
    more = f" and {count(size - _MEMBERS)} more" if size > _MEMBERS else ""
    return str(number), str(part[0]), count(size), listed + more
