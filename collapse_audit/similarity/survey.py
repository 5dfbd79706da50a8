"""All questions at once: groups, links and nearest prototypes, at every threshold of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collapse_audit.similarity.components import Components, connect_groups
from collapse_audit.similarity.cover import Cover, cover_around, leader_cover
from collapse_audit.similarity.links import Links, link_groups
from collapse_audit.similarity.n_eff import NEff, counted, estimate_n_eff
from collapse_audit.similarity.nearest import Nearest, NearestSearch
from collapse_audit.similarity.predicate import Comparison
from collapse_audit.similarity.products.rows import Float64, Index, Mask
from collapse_audit.similarity.progress import Progress, silent
from collapse_audit.similarity.small_components import SmallComponents
from collapse_audit.similarity.state import State

# A head in which most of a sample are leaders has few duplicates: the search for the nearest finds
# them on its way, and a cover would multiply the same rows once more.
_SAMPLE = 8192
_SHARE = 8  # at most one prototype in so many
_MANY_LEADERS = 0.5
_ANGLE_SLACK = 1e-9
# Pairs compared at each threshold of a sweep only to count neighbours, at most: about a second.
_PAIRS = 1 << 26


@dataclass(frozen=True, slots=True)
class SweepLevel:
    """Counts at one threshold.

    Attributes:
        threshold: Cosine distance, or radius, below which two prototypes are duplicates.
        greedy: Unique prototypes by the leader cover in index order (M).
        components: Connected components of the duplicate graph; at most ``greedy``.
        isolated: Prototypes without any duplicate; at most ``components``.
        n_eff: Effective number of prototypes, :class:`NEff`.
    """

    threshold: float
    greedy: int
    components: int
    isolated: int
    n_eff: NEff


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What the engine finds in a head.

    Attributes:
        cover: The leader cover in index order at the comparison's threshold.
        links: How its groups hang together.
        levels: Counts at the other thresholds that were asked for, in rising order.
        nearest: The nearest other prototype of each one; ``None`` if it was not asked for.
    """

    cover: Cover
    links: Links
    levels: tuple[SweepLevel, ...]
    nearest: Nearest | None


def survey(
    comparison: Comparison,
    sweep: Sequence[float] = (),
    *,
    nearest: bool | NearestSearch = True,
    progress: Progress = silent,
) -> Survey:
    """Group the prototypes, link the groups and find the nearest ones, at all thresholds at once.

    From the largest threshold down: prototypes in different components stay apart at every smaller
    one, so each component is settled on its own. An isolated prototype needs no further look, and
    a group whose members are all within the threshold of each other none until the threshold falls
    below its diameter. The nearest of a prototype that has a duplicate is in the same component.
    Where a sample has few duplicates, the nearest are found first: a prototype whose nearest one is
    not closer than the threshold is isolated at all that follow.

    Args:
        comparison: The prototypes, and the threshold of the cover and its links.
        sweep: Other thresholds to count at, in any order.
        nearest: Whether to find the nearest other prototype of each one; or a search in the same
            panels that has begun.
        progress: Called with (stage, done, total).

    Returns:
        Everything that was asked for; each equals its definition, whatever else was asked.
    """
    descent = _Descent(comparison, {comparison.threshold.level, *sweep}, nearest, progress)
    levels: dict[float, SweepLevel] = {}
    for level, epsilon in enumerate(descent.falling):
        effective = descent.look(level)
        state = descent.state
        levels[epsilon] = SweepLevel(epsilon, *state.counts(), effective)
        if epsilon == comparison.threshold.level:
            cover, links = state.cover(), state.links()
    return Survey(
        cover=cover,
        links=links,
        levels=tuple(levels[epsilon] for epsilon in sorted(set(sweep))),
        nearest=descent.search.result() if descent.search else None,
    )


class _Descent:
    """The walk through the thresholds, and what is known so far."""

    def __init__(
        self,
        comparison: Comparison,
        epsilons: set[float],
        nearest: bool | NearestSearch,
        progress: Progress,
    ) -> None:
        self.falling = sorted(epsilons, reverse=True)
        k = comparison.prototypes.k
        self.state = State(k)
        begun = nearest if isinstance(nearest, NearestSearch) else None
        self.search = begun or (NearestSearch(comparison) if nearest else None)
        self._comparison = comparison
        self._progress = progress
        self._angles = np.array(
            [comparison.threshold.at(epsilon).angle for epsilon in self.falling]
        )
        self._small = SmallComponents(comparison.exact)
        self._wake = np.zeros(k, dtype=np.intp)  # level at which a prototype is looked at next
        self._within: Index | None = None  # component of each prototype at the level above

    def look(self, level: int) -> NEff:
        """Count at the next smaller threshold; the effective number there."""
        epsilon = self.falling[level]
        here = self._comparison.at(epsilon)
        self._small.look(here.threshold, self.state)
        awake = np.flatnonzero(self._wake == level)
        self._within = self.state.component.copy() if level else None
        tell = self._stage_at(epsilon)
        awake = self._without_isolated(here, awake, tell)
        if not awake.size:
            return counted(self.state.neighbours)
        cover = leader_cover(here, order=awake, within=self._within, progress=tell)
        # neighbours are counted at the threshold of the audit, and elsewhere if that costs little
        counts = epsilon == self._comparison.threshold.level or len(awake) ** 2 <= 2 * _PAIRS
        connect = link_groups if counts else connect_groups
        components = connect(here, cover, within=self._within, progress=tell)
        self.state.take(awake, cover, components)
        if isinstance(components, Links):
            self.state.count(awake, cover, components)
            effective = counted(self.state.neighbours)
        else:
            effective = self._effective(here, awake, cover, components)
        wake = self._next_look(level, cover, components)[cover.group[awake]]
        if level + 1 < len(self.falling):
            restless = awake[wake == level + 1]
            taken = self._small.take(restless, self.state.component[restless])
            wake[np.isin(awake, taken, assume_unique=True)] = len(self.falling)
        self._wake[awake] = wake
        isolated = components.sizes[components.component[awake]] == 1
        leaving = awake[(wake == len(self.falling)) & ~isolated]
        self._find(awake[isolated], awake, cover, self._within, tell)
        self._find(leaving, leaving, cover, self.state.component, tell)
        return effective

    def _effective(
        self, here: Comparison, awake: Index, cover: Cover, components: Components
    ) -> NEff:
        """The effective number where neighbours were not counted on the way."""
        tight = _diameter(cover, components) < here.threshold.angle
        clique = tight & _is_alone(cover, components)
        open_ = awake[~clique[cover.group[awake]]]
        _, place, sizes = np.unique(
            self.state.component[open_], return_inverse=True, return_counts=True
        )
        by_size = np.argsort(sizes, kind="stable")
        affordable = np.zeros(len(sizes), dtype=np.bool_)
        affordable[by_size] = np.cumsum(sizes[by_size].astype(float) ** 2 / 2) <= _PAIRS
        few = open_[affordable[place]]
        if few.size:
            part = cover.only(few)
            links = link_groups(here, part, within=self.state.component)
            self.state.count(few, part, links)
        many = open_[~affordable[place]]
        if not many.size:
            return counted(self.state.neighbours)
        known = counted(np.delete(self.state.neighbours, many)).value
        found = estimate_n_eff(here, cover, self.state.component, many)
        return NEff(known + found.value, known + found.low, known + found.high)

    def _without_isolated(self, here: Comparison, awake: Index, tell: Progress) -> Index:
        """Those that may have duplicates, by their nearest where it pays to know these first."""
        if self.search is None or not awake.size:
            return awake
        if not self.search.found[awake].all():
            popular = self._popular_leaders(here, awake)
            if popular is None:
                return awake
            # Near copies are ranked by their differences to a leader, so it must be close to them.
            cover = cover_around(self._comparison.at(self.falling[-1]), popular, awake)
            self._find(awake, awake, cover, self._within, tell)
        apart = self.search.certainly_apart(awake, here.threshold.distance)
        self.state.isolate(awake[apart])
        self._wake[awake[apart]] = len(self.falling)
        return awake[~apart]

    def _popular_leaders(self, here: Comparison, awake: Index) -> Index | None:
        """Leaders that others of a sample joined; ``None`` if most of the sample joined one."""
        size = min(_SAMPLE, len(awake) // _SHARE)
        sample = np.sort(np.random.default_rng(0).choice(awake, size, replace=False))
        cover = leader_cover(here, order=sample, within=self._within)
        if len(cover.leaders) <= _MANY_LEADERS * size:
            return None
        rest = sample[cover.sizes[cover.group[sample]] > 1]
        cover = leader_cover(self._comparison.at(self.falling[-1]), order=rest)
        return cover.leaders[cover.sizes > 1]

    def _find(
        self, rows: Index, among: Index, cover: Cover, within: Index | None, tell: Progress
    ) -> None:
        if self.search is not None and rows.size:
            self.search.find(rows, among, cover, within=within, progress=tell)

    def _stage_at(self, epsilon: float) -> Progress:
        """A listener that is told the threshold too."""

        def tell(stage: str, done: int, total: int) -> None:
            self._progress(f"{stage} at {epsilon:g}", done, total)

        return tell

    def _next_look(self, level: int, cover: Cover, components: Components) -> Index:
        """Level at which each group must be looked at again."""
        again = np.searchsorted(-self._angles, -_diameter(cover, components))
        return np.where(_is_alone(cover, components) & (again > level), again, level + 1)


def _is_alone(cover: Cover, components: Components) -> Mask:
    """Whether each group is all of its component."""
    component = components.component[cover.leaders]
    return np.asarray(np.bincount(component, minlength=components.num_components)[component] == 1)


def _diameter(cover: Cover, components: Components) -> Float64:
    """Upper bound of the angle between two members of each group, radians."""
    # a component that is one group of this diameter stays whole while the threshold is larger
    return np.where(cover.sizes == 1, 0.0, 2.0 * components.radius + _ANGLE_SLACK)
