"""Synthetic heads: unit rows in float32, from fixed seeds, with the answer they were built for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EPSILON = 0.025
_ANGLE = float(np.arccos(1.0 - EPSILON))
_ROWS_AT_ONCE = 16384
_MEMBERS_PER_GROUP = 64
_MOST_GROUPS = 10_000
_CHAIN_LENGTH = 25  # times 0.9 of the angle of epsilon is 290 degrees: the ends do not meet
# Pairs of one group lie at s^2 / (1 + s^2) for noise of length s. Far below epsilon, and on it.
_TIGHT = 0.02
_ON_THRESHOLD = (EPSILON / (1.0 - EPSILON)) ** 0.5

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Counts:
    """What an audit counts at ``EPSILON``.

    Attributes:
        greedy: Leaders in index order, M.
        components: Connected components of the duplicate graph.
        isolated: Prototypes without a duplicate.
        pairs: Unordered pairs of duplicates.
    """

    greedy: int
    components: int
    isolated: int
    pairs: int


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Prototypes, and what must be found in them.

    Attributes:
        rows: Unit rows (k x d).
        planted: The counts by construction; ``None`` where only a brute force can tell.
    """

    rows: Rows
    planted: Counts | None


def make(name: str, k: int, d: int) -> Head:
    """The head of that name; equal in every run of one numpy version."""
    return INPUTS[name](k, d, np.random.default_rng([k, d, list(INPUTS).index(name)]))


def _collapsed(k: int, d: int, rng: np.random.Generator) -> Head:
    return _groups(k, d, rng, noise=_TIGHT)


def _near_threshold(k: int, d: int, rng: np.random.Generator) -> Head:
    """As many pairs as possible in doubt: all distances inside a group are about epsilon."""
    return Head(_groups(k, d, rng, noise=_ON_THRESHOLD).rows, planted=None)


def _healthy(k: int, d: int, rng: np.random.Generator) -> Head:
    return Head(_directions(k, d, rng), Counts(greedy=k, components=k, isolated=k, pairs=0))


def _half_collapsed(k: int, d: int, rng: np.random.Generator) -> Head:
    """Half of the rows in groups, the other half in random directions, shuffled."""
    groups = _groups(k // 2, d, rng, noise=_TIGHT)
    rest = k - k // 2
    rows = np.concatenate([groups.rows, _directions(rest, d, rng)])[rng.permutation(k)]
    counts = groups.planted
    assert counts is not None
    return Head(
        rows,
        Counts(
            greedy=counts.greedy + rest,
            components=counts.components + rest,
            isolated=counts.isolated + rest,
            pairs=counts.pairs,
        ),
    )


def _chained(k: int, d: int, rng: np.random.Generator) -> Head:
    """Arcs of great circles with a step of 0.9 of the angle of epsilon, and single rows.

    Each row of an arc has its two neighbours as duplicates and no other. The rows of an arc come
    in their order among the rows of others, so that every second one becomes a leader.
    """
    chains = max(1, 3 * k // 4 // _CHAIN_LENGTH)
    linked = chains * _CHAIN_LENGTH
    start, other = _directions(chains, d, rng), _directions(chains, d, rng)
    other -= np.einsum("kd,kd->k", start, other)[:, None] * start
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    step = 0.9 * _ANGLE * np.arange(_CHAIN_LENGTH, dtype=np.float32)
    arcs = np.empty((_CHAIN_LENGTH, chains, d), dtype=np.float32)
    np.multiply(np.cos(step)[:, None, None], start, out=arcs)
    arcs += np.sin(step)[:, None, None] * other
    rows = np.empty((k, d), dtype=np.float32)
    places = rng.permutation(k)
    rows[np.sort(places[:linked])] = arcs.reshape(linked, d)
    rows[places[linked:]] = _directions(k - linked, d, rng)
    singles = k - linked
    return Head(
        rows,
        Counts(
            greedy=chains * -(-_CHAIN_LENGTH // 2) + singles,
            components=chains + singles,
            isolated=singles,
            pairs=chains * (_CHAIN_LENGTH - 1),
        ),
    )


def _groups(k: int, d: int, rng: np.random.Generator, *, noise: float) -> Head:
    """Noisy copies of random directions in random order, group sizes by a power law (1 / rank)."""
    m = max(1, min(k // _MEMBERS_PER_GROUP, _MOST_GROUPS))
    share = 1.0 / np.arange(1, m + 1)
    sizes = 1 + rng.multinomial(k - m, share / share.sum())
    group = rng.permutation(np.repeat(np.arange(m), sizes))
    centres = _directions(m, d, rng)
    rows = np.empty((k, d), dtype=np.float32)
    for first in range(0, k, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        copies = centres[group[part]]
        copies += noise * _directions(len(copies), d, rng)
        rows[part] = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    pairs = int((sizes * (sizes - 1) // 2).sum())
    isolated = int((sizes == 1).sum())
    return Head(rows, Counts(greedy=m, components=m, isolated=isolated, pairs=pairs))


def _directions(k: int, d: int, rng: np.random.Generator) -> Rows:
    rows = np.empty((k, d), dtype=np.float32)
    for first in range(0, k, _ROWS_AT_ONCE):
        part = rows[first : first + _ROWS_AT_ONCE]
        rng.standard_normal(out=part, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


INPUTS: dict[str, Callable[[int, int, np.random.Generator], Head]] = {
    "collapsed": _collapsed,
    "healthy": _healthy,
    "chained": _chained,
    "near-threshold": _near_threshold,
    "half-collapsed": _half_collapsed,
}
