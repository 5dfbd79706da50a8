"""How the groups of duplicates of one head fall apart and come together in another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collapse_audit.report.documents import RegroupingDocument

Groups = npt.NDArray[np.int64]

LARGEST = 20


@dataclass(frozen=True, slots=True)
class Regrouping:
    """What became of the groups of head A in head B, prototype by prototype.

    Prototype i of A is compared with prototype i of B, so this says something where B was trained
    on from A, and nothing where the two were initialised apart.
    """

    unchanged: int  # groups with the same members in both, single prototypes included
    split: int  # groups of A whose members are in more than one group of B
    merged: int  # groups of B whose members come from more than one group of A
    pairs_kept: int  # pairs of prototypes in one group in both
    pairs_parted: int  # in one group in A and apart in B
    pairs_joined: int  # apart in A and in one group in B
    # (group, falling sizes of its parts in the other head), the largest groups first; at most 20
    splits: tuple[tuple[int, tuple[int, ...]], ...]  # groups of A
    merges: tuple[tuple[int, tuple[int, ...]], ...]  # groups of B

    def to_dict(self) -> RegroupingDocument:
        """Plain values, as a comparison in JSON holds them."""
        return {
            "unchanged": self.unchanged,
            "split": self.split,
            "merged": self.merged,
            "pairs": {
                "kept": self.pairs_kept,
                "parted": self.pairs_parted,
                "joined": self.pairs_joined,
            },
            "splits": [{"group": g, "parts": list(parts)} for g, parts in self.splits],
            "merges": [{"group": g, "parts": list(parts)} for g, parts in self.merges],
        }


def compare_groups(a: Groups, b: Groups) -> Regrouping:
    """What was split and merged between two groupings (k) of the same prototypes."""
    # the cells of the contingency table that are not empty: at most K of its m_a x m_b
    width = int(b.max()) + 1
    cells, sizes = np.unique(a * width + b, return_counts=True)
    in_a, in_b = cells // width, cells % width
    parts_of_a, parts_of_b = np.bincount(in_a), np.bincount(in_b)
    kept = _pairs(sizes)
    whole = (parts_of_a[in_a] == 1) & (parts_of_b[in_b] == 1)
    return Regrouping(
        unchanged=int(whole.sum()),
        split=int((parts_of_a > 1).sum()),
        merged=int((parts_of_b > 1).sum()),
        pairs_kept=kept,
        pairs_parted=_pairs(np.bincount(a)) - kept,
        pairs_joined=_pairs(np.bincount(b)) - kept,
        splits=_largest(parts_of_a, in_a, sizes),
        merges=_largest(parts_of_b, in_b, sizes),
    )


def _pairs(sizes: npt.NDArray[np.int64]) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _largest(
    parts: npt.NDArray[np.int64], group: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The first groups in several parts; groups are numbered by falling size."""
    chosen = np.flatnonzero(parts > 1)[:LARGEST]
    return tuple((int(g), tuple(sorted(sizes[group == g].tolist(), reverse=True))) for g in chosen)
