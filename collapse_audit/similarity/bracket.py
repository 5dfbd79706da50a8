"""How far M depends on the counting rule: certified bounds, and the spread over scan orders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from collapse_audit.similarity.cover import Cover, leader_cover
from collapse_audit.similarity.links import Links
from collapse_audit.similarity.partition import runs
from collapse_audit.similarity.predicate import Comparison
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Index, Mask, parts
from collapse_audit.similarity.progress import Progress, silent

_ORDERS = 8
# Up to this many rows, the pairs of some components are found once for all orders (64 MB).
_LARGE_RUN = 8192
_ROWS, _COLUMNS = 1024, 2048
# Groups up to this size are split into cliques one member at a time; larger ones by half angle.
_LARGE_GROUP = 2048


@dataclass(frozen=True, slots=True)
class Bracket:
    """Bounds that hold for the leader cover in every scan order.

    Attributes:
        low: max(components, cover at twice the angle): no order finds fewer leaders.
        high: min(a clique partition, cover at half the angle): no order finds more.
        definition_independent: Whether the duplicate graph is a disjoint union of cliques. Then
            every order, single and complete linkage, and the smallest cover by prototypes count
            the same.
        order_range: Fewest and most leaders over random orders and the index order; ``None`` where
            all orders must agree.
    """

    low: int
    high: int
    definition_independent: bool
    order_range: tuple[int, int] | None


def bracket_unique(
    comparison: Comparison, cover: Cover, links: Links, *, progress: Progress = silent
) -> Bracket:
    r"""Bound the number of leaders over all scan orders, and try some.

    A component that is one clique has one leader in every order. For the rest, with
    :math:`\theta` the angle of epsilon: every component needs a leader; leaders at
    :math:`\theta` of any order number at least those of a cover at :math:`2\theta` and at most
    those at :math:`\theta/2` (two points of one ball of radius r are within 2 r of each other, and
    leaders are further apart than that); and no clique holds two leaders.

    Args:
        comparison: The prototypes and the threshold.
        cover: The leader cover of all of them in index order.
        links: Its links.
        progress: Called with ("orders", rows done, rows in all).

    Returns:
        The bracket; equal on every machine (the random orders have a fixed seed).
    """
    whole = _whole_components(cover, links)
    rows = np.flatnonzero(~whole[links.component])
    settled = int(whole.sum())
    if not rows.size:
        m = len(cover.leaders)
        return Bracket(low=m, high=m, definition_independent=True, order_range=None)
    fewest = links.num_components - settled
    if (double := comparison.threshold.double) is not None:
        fewest = max(fewest, len(leader_cover(comparison.at(double), order=rows).leaders))
    half = comparison.at(comparison.threshold.half)
    most = len(leader_cover(half, order=rows, within=links.component).leaders)
    cliques = int((links.clique & ~whole[links.component[cover.leaders]]).sum())
    counts = np.zeros(_ORDERS, dtype=np.int64)
    orders = _places_in_random_orders(rows, comparison.prototypes.k)
    done = 0
    for run in runs(rows, links.component):
        members = np.sort(run)
        pairs = _Pairs(comparison, members) if len(run) <= _LARGE_RUN else None
        for group in _broken_groups(members, cover, links):
            if len(group) > _LARGE_GROUP:
                cliques += len(leader_cover(half, order=group).leaders)
            else:
                cliques += (pairs or _Pairs(comparison, group)).cliques(group)
        for number, places in enumerate(orders):
            order = members[np.argsort(places[members])]
            counts[number] += (
                pairs.leaders(order)
                if pairs
                else len(leader_cover(comparison, order=order).leaders)
            )
        done += len(run)
        progress("orders", done, len(rows))
    in_index_order = len(cover.leaders) - settled
    return Bracket(
        low=settled + fewest,
        high=settled + min(most, cliques),
        definition_independent=False,
        order_range=(
            settled + min(in_index_order, int(counts.min())),
            settled + max(in_index_order, int(counts.max())),
        ),
    )


def _places_in_random_orders(rows: Index, k: int) -> Index:
    """Place of each of some prototypes in a few random orders of them (orders x k)."""
    rng = np.random.default_rng(0)
    places = np.zeros((_ORDERS, k), dtype=np.intp)
    for place in places:
        place[rng.permutation(rows)] = np.arange(len(rows))
    return places


def _broken_groups(members: Index, cover: Cover, links: Links) -> Iterator[Index]:
    """The groups among some whole components that are no cliques."""
    members = members[~links.clique[cover.group[members]]]
    by_group = members[np.argsort(cover.group[members], kind="stable")]
    ends = np.flatnonzero(np.diff(cover.group[by_group])) + 1
    return (group for group in np.split(by_group, ends) if group.size)


class _Pairs:
    """All pairs of duplicates among some sorted prototypes."""

    def __init__(self, comparison: Comparison, members: Index) -> None:
        self._members = members
        self._close = np.zeros((len(members), len(members)), dtype=np.bool_)
        for r in parts(len(members), _ROWS):
            rows = Operand(members[r])
            for c in parts(len(members), _COLUMNS):
                close = comparison.duplicates(rows, Operand(members[c]))
                if close is not None:
                    self._close[r, c] = close
        np.fill_diagonal(self._close, val=False)

    def leaders(self, order: Index) -> int:
        """Leaders of the cover of some of them, in an order."""
        rows = np.searchsorted(self._members, order)
        free = np.ones(len(self._members), dtype=np.bool_)
        count = start = 0
        while True:
            start += int(free[rows[start:]].argmax())
            if not free[rows[start]]:
                return count
            free[rows[start]] = False
            free &= ~self._close[rows[start]]
            count += 1

    def cliques(self, group: Index) -> int:
        """Cliques found in some of them by filling one after the other, in index order."""
        place = np.searchsorted(self._members, group)
        close = self._close[np.ix_(place, place)]
        free = np.ones(len(group), dtype=np.bool_)
        count = 0
        while free.any():
            candidates = free.copy()
            while candidates.any():
                member = int(candidates.argmax())
                free[member] = candidates[member] = False
                candidates &= close[member]
            count += 1
        return count


def _whole_components(cover: Cover, links: Links) -> Mask:
    """Components that are one group, all of whose members are duplicates of each other."""
    component = links.component[cover.leaders]
    groups = np.bincount(component, minlength=links.num_components)
    broken = np.bincount(component, weights=~links.clique, minlength=links.num_components)
    return np.asarray((groups == 1) & (broken == 0))
