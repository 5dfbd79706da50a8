"""The nearest other prototype of every prototype, ranked exactly even between near copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.cover import Cover, leader_cover
from collapse_audit.similarity.predicate import Comparison
from collapse_audit.similarity.products.bounds import format_bound
from collapse_audit.similarity.products.maxima import ChunkMaxima
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Float64, Index, Mask, parts
from collapse_audit.similarity.progress import Progress, silent

_ROWS = 1024
_COLUMNS = 1024
# Groups up to this size are compared pair by pair; a product only pays for larger ones.
_SMALL_GROUP = 12
_PAIRS_AT_ONCE = 512
# A cover spares nothing if nearly all of so many prototypes become leaders.
_SAMPLE = 8192
_HEALTHY = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest other prototype.

    Attributes:
        index: Which it is, for each prototype (k); the smallest index among equals.
        distance: Its cosine distance (k, float64, 0 to 2), accurate to a relative 1e-12 also where
            one minus the cosine would be all rounding error.
        copies: Prototypes whose direction is bit for bit that of an earlier one.
    """

    index: Index
    distance: Float64
    copies: int

    @property
    def cosine(self) -> Float64:
        """Cosine of each prototype with its nearest other one (k, -1 to 1)."""
        return 1.0 - self.distance

    @property
    def angle(self) -> Float64:
        """Angle to the nearest other prototype, radians (k)."""
        return 2.0 * np.arcsin(np.sqrt(np.clip(self.distance / 2.0, 0.0, 1.0)))

    def __repr__(self) -> str:
        return f"Nearest(k={len(self.index)}, copies={self.copies})"


def nearest_prototypes(
    comparison: Comparison, cover: Cover | None = None, *, progress: Progress = silent
) -> Nearest:
    r"""Find the nearest other prototype of every prototype.

    .. math:: \operatorname{nn}(i) = \arg\min_{j \ne i} \lVert u_i - u_j \rVert^2 / 2

    in float64, ties to the smallest index. Inside a group, rows are compared by their differences
    to the leader, because a product of the rows themselves cannot rank neighbours closer than
    1e-5. Between groups, the largest score of a chunk tells which chunks can hold the nearest.

    Args:
        comparison: The prototypes; its threshold does not change the result.
        cover: Any leader cover of all of them; a good one makes the search fast. One is made, or
            found to be useless, if ``None``.
        progress: Called with ("nearest", rows done, rows in all).

    Returns:
        Index and cosine distance of each prototype's nearest other one.
    """
    search = _Search(comparison, cover or _useful_cover(comparison))
    search.match_copies()
    search.inside_groups()
    search.between_groups(progress)
    return search.result()


def _useful_cover(comparison: Comparison) -> Cover:
    """The leader cover; each prototype alone where a sample shows that it would hardly be less."""
    k = comparison.prototypes.k
    if k >= 4 * _SAMPLE:
        sample = np.sort(np.random.default_rng(0).choice(k, _SAMPLE, replace=False))
        if len(leader_cover(comparison, order=sample).leaders) > _HEALTHY * _SAMPLE:
            return Cover(leaders=np.arange(k), group=np.arange(k))
    return leader_cover(comparison)


class _Search:
    """The best neighbour found so far, by squared chord, for every prototype."""

    def __init__(self, comparison: Comparison, cover: Cover) -> None:
        self._comparison = comparison
        self._prototypes = comparison.prototypes
        self._cover = cover
        k = self._prototypes.k
        self.index: Index = np.full(k, k, dtype=np.intp)
        self.squared = np.full(k, np.inf)
        self._distinct: Index = np.arange(k)

    def match_copies(self) -> None:
        """Pair up bit-equal directions, and keep only the first of each for the search."""
        copy_of = first_copies(self._prototypes)
        copies = np.flatnonzero(copy_of != np.arange(len(copy_of)))
        self.index[copies], self.squared[copies] = copy_of[copies], 0.0
        firsts, second = np.unique(copy_of[copies], return_index=True)
        self.index[firsts], self.squared[firsts] = copies[second], 0.0
        self._distinct = np.flatnonzero(copy_of == np.arange(len(copy_of)))

    def result(self) -> Nearest:
        """The nearest ones found so far."""
        copies = self._prototypes.k - len(self._distinct)
        return Nearest(index=self.index, distance=self.squared / 2.0, copies=copies)

    def offer(self, rows: Index, columns: Index) -> None:
        """Compare pairs exactly and keep what is nearer, or as near with a smaller index."""
        if not rows.size:
            return
        squared = _squared_chords(self._prototypes, rows, columns)
        order = np.lexsort((columns, squared, rows))
        rows, columns, squared = rows[order], columns[order], squared[order]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        rows, columns, squared = rows[first], columns[first], squared[first]
        better = (squared < self.squared[rows]) | (
            (squared == self.squared[rows]) & (columns < self.index[rows])
        )
        self.index[rows[better]] = columns[better]
        self.squared[rows[better]] = squared[better]

    def inside_groups(self) -> None:
        """Find the nearest member of the own group."""
        group = self._cover.group[self._distinct]
        by_group = np.argsort(group, kind="stable")
        members, group = self._distinct[by_group], group[by_group]
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        sizes = np.diff(np.append(starts, len(group)))
        for size in range(2, _SMALL_GROUP + 1):
            inside = members[starts[sizes == size][:, None] + np.arange(size)]
            row, column = np.nonzero(~np.eye(size, dtype=np.bool_))
            self.offer(inside[:, row].ravel(), inside[:, column].ravel())
        for start, size in zip(starts, sizes, strict=True):
            if size > _SMALL_GROUP:
                self._inside_large_group(members[start : start + size])

    def _inside_large_group(self, members: Index) -> None:
        leader = self._cover.leaders[self._cover.group[members[0]]]
        centre = self._prototypes.unit_rows(np.array([leader]))
        differences = np.empty((len(members), self._prototypes.d), dtype=np.float32)
        scale = 0.0
        for part in parts(len(members), _ROWS):
            chunk = self._prototypes.unit_rows(members[part]) - centre
            scale = max(scale, float(np.abs(chunk).max()))
        for part in parts(len(members), _ROWS):
            differences[part] = (self._prototypes.unit_rows(members[part]) - centre) / scale
        norms = np.einsum("nd,nd->n", differences, differences, dtype=np.float64)
        # Each entry is off by 2^-24 of the largest; a product by its own bound; both count twice.
        slack = 4.0 * float(norms.max()) * format_bound("float32", self._prototypes.d)
        for part in parts(len(members), _ROWS):
            best = np.full(len(members[part]), np.inf, dtype=np.float64)
            tiles = []
            for columns in parts(len(members), _COLUMNS):
                squared = norms[columns] - 2.0 * (differences[part] @ differences[columns].T)
                own = np.arange(max(part.start, columns.start), min(part.stop, columns.stop))
                squared[own - part.start, own - columns.start] = np.inf
                np.minimum(best, squared.min(axis=1), out=best)
                r, c = np.nonzero(squared <= best[:, None] + slack)
                tiles.append((r, c + columns.start, squared[r, c]))
            r, c, squared = (np.concatenate(column) for column in zip(*tiles, strict=True))
            near = squared <= best[r] + slack
            self.offer(members[part][r[near]], members[c[near]])

    def between_groups(self, progress: Progress) -> None:
        """Find nearer ones in other groups, for the rows that may have any there."""
        rows = self._may_have_foreign()
        if not rows.size:
            return
        sought = np.zeros(self._prototypes.k, dtype=np.bool_)
        sought[rows] = True
        everything = 2 * len(rows) > len(self._distinct)  # then one product serves two rows
        rows = self._distinct if everything else rows

        def known(rows: Index) -> Float64:
            return np.where(sought[rows], 1.0 - self.squared[rows] / 2.0, 2.0)

        maxima = ChunkMaxima(
            self._comparison.coarse_panel,
            rows,
            self._distinct,
            again=self._comparison.may_reach,
            known=known,
            progress=progress,
        )
        for near, columns in maxima.pairs():
            foreign = self._cover.group[near] != self._cover.group[columns]
            self.offer(near[foreign], columns[foreign])

    def _may_have_foreign(self) -> Index:
        """Distinct rows whose nearest one may sit in another group, by the triangle inequality."""
        leaders, group = self._cover.leaders, self._cover.group[self._distinct]
        angle = self.result().angle[self._distinct]  # pi where none was found yet
        to_leader = np.sqrt(_squared_chords(self._prototypes, self._distinct, leaders[group]))
        to_leader = 2.0 * np.arcsin(np.clip(to_leader / 2.0, 0.0, 1.0))
        radius = np.zeros(len(leaders))
        np.maximum.at(radius, group, to_leader)
        needed = np.zeros(len(leaders))
        np.maximum.at(needed, group, angle)
        far = np.flatnonzero(~self._isolated_groups(needed + radius, radius))
        return self._distinct[np.isin(group, far)]

    def _isolated_groups(self, reach: Float64, radius: Float64) -> Mask:
        """Groups no other group of which comes within reach of the leader."""
        comparison, leaders = self._comparison, self._cover.leaders
        alone = reach < np.pi - radius.max() - 1e-6
        tried = np.flatnonzero(alone)
        for part in parts(len(tried), _ROWS):
            groups = tried[part]
            rows = Operand(leaders[groups])
            for other in parts(len(leaders), _COLUMNS):
                widest = float(radius[other].max())
                limit = np.cos(np.minimum(reach[groups] + widest + 1e-6, np.pi))
                r, c = comparison.panel.may_reach(rows, Operand(leaders[other]), limit)
                alone[groups[r[groups[r] != other.start + c]]] = False
        return np.asarray(alone)


def first_copies(prototypes: Prototypes) -> Index:
    """Index of the first prototype with bit-equal direction in float64, for each one (k)."""
    k = prototypes.k
    weights = np.cos(np.arange(prototypes.d))  # any fixed vector: it only sorts rows into buckets
    keys = np.concatenate([prototypes.unit_rows(part) @ weights for part in parts(k, 4096)])
    # A product may differ in its last bits between equal rows; rounding puts them together.
    order = np.argsort(keys, kind="stable")
    near = np.diff(keys[order]) <= 1e-12 * prototypes.d
    copy_of = np.arange(k)
    for run in _runs(near):
        members = np.sort(order[run])
        rows = prototypes.unit_rows(members) + 0.0  # -0.0 and 0.0 point the same way
        seen: dict[bytes, int] = {}
        for member, row in zip(members, rows, strict=True):
            copy_of[member] = seen.setdefault(row.tobytes(), int(member))
    return copy_of


def _runs(near: Mask) -> Iterator[slice]:
    """Stretches of sorted keys that are equal up to rounding."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        yield slice(int(start), int(stop) + 1)


def _squared_chords(prototypes: Prototypes, first: Index, second: Index) -> Float64:
    out = np.empty(len(first))
    for part in parts(len(first), _PAIRS_AT_ONCE):
        difference = prototypes.unit_rows(first[part]) - prototypes.unit_rows(second[part])
        out[part] = np.einsum("pd,pd->p", difference, difference)
    return out
