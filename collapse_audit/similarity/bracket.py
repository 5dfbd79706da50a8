"""How far M depends on the counting rule: certified bounds, and the spread over scan orders."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from collapse_audit.similarity.cover import Cover, leader_cover
from collapse_audit.similarity.links import Links
from collapse_audit.similarity.predicate import Comparison
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Index, Mask
from collapse_audit.similarity.progress import Progress, silent

_ORDERS = 8
# Groups up to this size are split into cliques one member at a time; larger ones by half angle.
_LARGE_GROUP = 2048
# Half and double angles are rounded outwards by this much, which only widens the bracket.
_SLACK = 1e-12


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
        progress: Called with ("orders", orders done, orders in all).

    Returns:
        The bracket; equal on every machine (the random orders have a fixed seed).
    """
    whole = _whole_components(cover, links)
    rows = np.flatnonzero(~whole[links.component])
    settled = int(whole.sum())
    if not rows.size:
        m = len(cover.leaders)
        return Bracket(low=m, high=m, definition_independent=True, order_range=None)
    epsilon = comparison.threshold.epsilon
    fewest = links.num_components - settled
    double = 2 - 2 * (1 - epsilon) ** 2 + _SLACK
    if double < 1:
        fewest = max(fewest, len(leader_cover(comparison.at(double), order=rows).leaders))
    half = comparison.at((1 - sqrt(1 - epsilon / 2)) * (1 - _SLACK))
    most = min(
        _clique_partition(comparison, half, cover, links, whole),
        len(leader_cover(half, order=rows).leaders),
    )
    counts = [len(cover.leaders) - settled]
    if fewest < most:
        rng = np.random.default_rng(0)
        for done in range(_ORDERS):
            order = rng.permutation(rows)
            counts.append(len(leader_cover(comparison, order=order).leaders))
            progress("orders", done + 1, _ORDERS)
    return Bracket(
        low=settled + fewest,
        high=settled + most,
        definition_independent=False,
        order_range=(settled + min(counts), settled + max(counts)),
    )


def _whole_components(cover: Cover, links: Links) -> Mask:
    """Components that are one group, all of whose members are duplicates of each other."""
    component = links.component[cover.leaders]
    groups = np.bincount(component, minlength=links.num_components)
    broken = np.bincount(component, weights=~links.clique, minlength=links.num_components)
    return np.asarray((groups == 1) & (broken == 0))


def _clique_partition(
    comparison: Comparison, half: Comparison, cover: Cover, links: Links, whole: Mask
) -> int:
    """Cliques in some partition into cliques of the components that are not one clique."""
    open_group = ~whole[links.component[cover.leaders]]
    count = int((open_group & links.clique).sum())
    broken = np.flatnonzero(open_group & ~links.clique)
    by_group = np.argsort(cover.group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(cover.sizes)])
    for group in broken:
        members = by_group[starts[group] : starts[group + 1]]
        if len(members) > _LARGE_GROUP:
            count += len(leader_cover(half, order=members).leaders)
        else:
            count += _greedy_cliques(comparison, members)
    return count


def _greedy_cliques(comparison: Comparison, members: Index) -> int:
    """Cliques found by filling one after the other, in index order."""
    operand = Operand(members)
    close = comparison.duplicates(operand, operand)
    if close is None:
        return len(members)
    free = np.ones(len(members), dtype=np.bool_)
    count = 0
    while free.any():
        candidates = free.copy()
        while candidates.any():
            member = int(candidates.argmax())
            free[member] = candidates[member] = False
            candidates &= close[member]
        count += 1
    return count
