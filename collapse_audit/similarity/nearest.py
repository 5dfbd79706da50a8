"""The nearest other prototype of every prototype, ranked exactly even between near copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Metric
from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.partition import runs
from collapse_audit.similarity.predicate import Comparison, Threshold
from collapse_audit.similarity.products.bounds import format_bound
from collapse_audit.similarity.products.maxima import ChunkMaxima
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import Float64, Index, Mask, Rows, parts
from collapse_audit.similarity.progress import Progress, silent

_ROWS = 1024
_COLUMNS = 1024
# Groups up to this size are compared pair by pair; a product only pays for larger ones.
_SMALL_GROUP = 12
_PAIRS_AT_ONCE = 512
# Rounding of chords and of the sums of angles below, far above their true size.
_ANGLE_SLACK = 1e-6
_DISTANCE_SLACK = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest other prototype.

    Attributes:
        index: Which it is, for each prototype (k); the smallest index among equals.
        distance: Its cosine distance (k, float64, 0 to 2), accurate to a relative 1e-12 also where
            one minus the cosine would be all rounding error; in the Euclidean metric the distance.
        copies: Prototypes whose direction is bit for bit that of an earlier one; in the Euclidean
            metric those that are an earlier one.
        metric: How they were compared.
    """

    index: Index
    distance: Float64
    copies: int
    metric: Metric = "cosine"

    @property
    def cosine(self) -> Float64:
        """Cosine of each prototype with its nearest other one (k, -1 to 1); in that metric only."""
        return 1.0 - self._cosine_distance

    @property
    def angle(self) -> Float64:
        """Angle to the nearest other prototype, radians (k); in the cosine metric only."""
        return Threshold.angles(2.0 * self._cosine_distance)

    @property
    def _cosine_distance(self) -> Float64:
        if self.metric != "cosine":
            raise ParameterError(
                "the nearest prototypes were found in the Euclidean metric: `distance` has the "
                "distances, and there are no cosines."
            )
        return self.distance

    def __repr__(self) -> str:
        return f"Nearest(k={len(self.index)}, copies={self.copies})"


class NearestSearch:
    r"""The best neighbour found so far for every prototype.

    .. math:: \operatorname{nn}(i) = \arg\min_{j \ne i} \lVert u_i - u_j \rVert^2 / 2

    in float64, ties to the smallest index. Inside a group, rows are compared by their differences
    to the leader, because a product of the rows themselves cannot rank neighbours closer than
    1e-5. Between groups, the largest score of a chunk tells which chunks can hold the nearest.

    Args:
        comparison: The prototypes; its threshold does not change the result.

    Attributes:
        found: Prototypes whose nearest one is known (k).
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._prototypes = comparison.prototypes
        k = self._prototypes.k
        self._index: Index = np.full(k, k, dtype=np.intp)
        self._squared = np.full(k, np.inf)
        self.found: Mask = np.zeros(k, dtype=np.bool_)
        copy_of = first_copies(self._prototypes)
        self._first: Mask = copy_of == np.arange(k)
        copies = np.flatnonzero(~self._first)
        firsts, second = np.unique(copy_of[copies], return_index=True)
        for rows, others in ((copies, copy_of[copies]), (firsts, copies[second])):
            self._index[rows], self._squared[rows] = others, 0.0
            self.found[rows] = True

    def find(
        self,
        rows: Index,
        among: Index,
        cover: Cover,
        *,
        within: Index | None = None,
        progress: Progress = silent,
    ) -> None:
        """Find the nearest of some prototypes ``among`` others, which are sorted and hold them."""
        # cover: any groups of all of those; a good leader cover makes the search fast
        # within: the part of each prototype (k), where the nearest lies in the same part
        sought = np.zeros(self._prototypes.k, dtype=np.bool_)
        sought[rows] = True
        sought &= ~self.found
        if sought.any():
            distinct = among[self._first[among]]
            self._inside_groups(distinct, cover, sought)
            done = 0
            for run in runs(distinct, within):
                tell = _as_part(progress, done, len(run), len(distinct))
                self._between_groups(run, cover, sought, tell)
                done += len(run)
        self.found[rows] = True

    def result(self) -> Nearest:
        """The nearest ones found so far."""
        copies = int(np.count_nonzero(~self._first))
        return Nearest(index=self._index, distance=self._squared / 2.0, copies=copies)

    def certainly_apart(self, rows: Index, distance: float) -> Mask:
        """Which of some prototypes have their nearest one beyond a distance, beyond doubt."""
        apart = self._squared[rows] / 2.0 > distance * (1.0 + _DISTANCE_SLACK)
        return np.asarray(self.found[rows] & apart)

    def _offer(self, rows: Index, columns: Index) -> None:
        """Compare pairs exactly and keep what is nearer, or as near with a smaller index."""
        if not rows.size:
            return
        squared = _squared_chords(self._prototypes, rows, columns)
        order = np.lexsort((columns, squared, rows))
        rows, columns, squared = rows[order], columns[order], squared[order]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        rows, columns, squared = rows[first], columns[first], squared[first]
        better = (squared < self._squared[rows]) | (
            (squared == self._squared[rows]) & (columns < self._index[rows])
        )
        self._index[rows[better]] = columns[better]
        self._squared[rows[better]] = squared[better]

    def _inside_groups(self, distinct: Index, cover: Cover, sought: Mask) -> None:
        """Find the nearest member of the own group, in groups with a prototype that is sought."""
        group = cover.group[distinct]
        wanted = np.zeros(len(cover.leaders), dtype=np.bool_)
        wanted[group[sought[distinct]]] = True
        distinct = distinct[wanted[group]]
        group = cover.group[distinct]
        by_group = np.argsort(group, kind="stable")
        members, group = distinct[by_group], group[by_group]
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        sizes = np.diff(np.append(starts, len(group)))
        for size in range(2, _SMALL_GROUP + 1):
            inside = members[starts[sizes == size][:, None] + np.arange(size)]
            row, column = np.nonzero(~np.eye(size, dtype=np.bool_))
            self._offer(inside[:, row].ravel(), inside[:, column].ravel())
        for start, size in zip(starts, sizes, strict=True):
            if size > _SMALL_GROUP:
                leader = cover.leaders[group[start]]
                self._inside_large_group(members[start : start + size], leader)

    def _inside_large_group(self, members: Index, leader: np.intp) -> None:
        centre = self._prototypes.unit_rows(np.array([leader]))
        differences = np.empty((len(members), self._prototypes.d), dtype=np.float32)
        scale = 0.0
        for part in parts(len(members), _ROWS):
            chunk = self._prototypes.unit_rows(members[part]) - centre
            scale = max(scale, float(np.abs(chunk).max()))
        for part in parts(len(members), _ROWS):
            differences[part] = (self._prototypes.unit_rows(members[part]) - centre) / scale
        norms = np.einsum("nd,nd->n", differences, differences, dtype=np.float64)
        # Entries and products are off by shares of themselves, a squared distance so by less than
        # this share of the sum of both squared lengths: few members of a tight cluster are left in
        # doubt even where a far one is among them.
        share = 2.0 * format_bound("float32", self._prototypes.d)
        for part in parts(len(members), _ROWS):
            best = np.full(len(members[part]), np.inf, dtype=np.float64)
            tiles = []
            for columns in parts(len(members), _COLUMNS):
                least = (1.0 - share) * norms[columns]
                least = least - 2.0 * (differences[part] @ differences[columns].T)
                own = np.arange(max(part.start, columns.start), min(part.stop, columns.stop))
                least[own - part.start, own - columns.start] = np.inf
                most = (least + 2.0 * share * norms[columns]).min(axis=1)
                np.minimum(best, most + 2.0 * share * norms[part], out=best)
                r, c = np.nonzero(least <= best[:, None])
                tiles.append((r, c + columns.start, least[r, c]))
            r, c, least = (np.concatenate(column) for column in zip(*tiles, strict=True))
            near = least <= best[r]
            self._offer(members[part][r[near]], members[c[near]])

    def _between_groups(
        self, distinct: Index, cover: Cover, sought: Mask, progress: Progress
    ) -> None:
        """Find nearer ones in other groups, for the rows that may have any there."""
        distinct = np.sort(distinct)
        rows = distinct[sought[distinct]]
        rows = rows[self._may_have_foreign(rows, distinct, cover)]
        if not rows.size:
            return
        open_ = np.zeros(self._prototypes.k, dtype=np.bool_)
        open_[rows] = True
        everything = 2 * len(rows) > len(distinct)  # then one product serves two rows

        def known(rows: Index) -> Float64:
            return np.where(open_[rows], 1.0 - self._squared[rows] / 2.0, 2.0)

        maxima = ChunkMaxima(
            self._comparison.coarse_panel,
            distinct if everything else rows,
            distinct,
            again=self._comparison.may_reach,
            known=known,
            progress=progress,
        )
        for near, columns in maxima.pairs():
            foreign = cover.group[near] != cover.group[columns]
            self._offer(near[foreign], columns[foreign])

    def _may_have_foreign(self, rows: Index, distinct: Index, cover: Cover) -> Mask:
        """Which rows may have their nearest in another group, by the triangle inequality."""
        groups, place = np.unique(cover.group[distinct], return_inverse=True)
        if len(groups) < 2:
            return np.zeros(len(rows), dtype=np.bool_)
        leaders = cover.leaders[groups]
        place_of_rows = np.searchsorted(groups, cover.group[rows])
        needed = np.zeros(len(groups))
        angles = self._comparison.threshold.angles
        np.maximum.at(needed, place_of_rows, angles(self._squared[rows]))
        radius = np.zeros(len(groups))
        member = np.flatnonzero(leaders[place] != distinct)
        to_leader = _squared_chords(self._prototypes, distinct[member], leaders[place[member]])
        np.maximum.at(radius, place[member], angles(to_leader))
        asked = np.zeros(len(groups), dtype=np.bool_)
        asked[place_of_rows] = True
        isolated = self._isolated_groups(leaders, needed + radius, radius, asked)
        return np.asarray(~isolated[place_of_rows])

    def _isolated_groups(
        self, leaders: Index, reach: Float64, radius: Float64, asked: Mask
    ) -> Mask:
        """Groups no other group of which comes within reach of the leader, among those asked."""
        threshold = self._comparison.threshold
        alone = asked & (reach < threshold.widest - radius.max() - _ANGLE_SLACK)
        tried = np.flatnonzero(alone)
        for part in parts(len(tried), _ROWS):
            groups = tried[part]
            rows = Operand(leaders[groups])
            for other in parts(len(leaders), _COLUMNS):
                widest = float(radius[other].max())
                limit = threshold.cosines(reach[groups] + widest + _ANGLE_SLACK)
                r, c = self._comparison.panel.may_reach(rows, Operand(leaders[other]), limit)
                alone[groups[r[groups[r] != other.start + c]]] = False
        return np.asarray(alone)


def first_copies(prototypes: Rows) -> Index:
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


def _as_part(progress: Progress, before: int, size: int, whole: int) -> Progress:
    """A listener for a piece of the work, which counts as so much of the whole."""

    def tell(stage: str, done: int, total: int) -> None:
        progress(stage, before + size * done // total, whole)

    return tell


def _squared_chords(prototypes: Rows, first: Index, second: Index) -> Float64:
    out = np.empty(len(first))
    for part in parts(len(first), _PAIRS_AT_ONCE):
        difference = prototypes.unit_rows(first[part]) - prototypes.unit_rows(second[part])
        out[part] = np.einsum("pd,pd->p", difference, difference)
    return out
