"""Redundancy factors of one head: by rank, as a histogram, and the largest groups themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import (
    COLOUR_MAP,
    K_COLOUR,
    M_COLOUR,
    axes_or_new,
    check_audit,
    kind_of,
    log_log,
    rows_of,
)
from collapse_audit.similarity import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapse_audit.plots.axes import Audited
    from collapse_audit.redundancy import Redundancy


def plot_redundancy_factors(
    redundancy_factors: Audited | Redundancy | npt.ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Copies of every unique prototype, largest first.

    Args:
        redundancy_factors: An audit, its ``redundancy``, or the r_m (m).
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If there are none.
    """
    factors = _factors(redundancy_factors, "plot_redundancy_factors")
    factors, ax = np.sort(factors)[::-1], axes_or_new(ax)
    ax.plot(np.arange(1, len(factors) + 1), factors, color=M_COLOUR)
    log_log(ax, _counts(factors), "rank of the unique prototype", "redundancy factor $r_m$")
    ax.set_ylim(bottom=0.8)
    return ax


def plot_redundancy_histogram(
    redundancy_factors: Audited | Redundancy | npt.ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Share of the unique prototypes, and of all, by the number of their copies.

    A bin is twice as wide as the one before, so that heads of any K have few bars.

    Args:
        redundancy_factors: An audit, its ``redundancy``, or the r_m (m).
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes; shares in percent.

    Raises:
        ParameterError: If there are none.
    """
    factors, ax = _factors(redundancy_factors, "plot_redundancy_histogram"), axes_or_new(ax)
    place = np.frexp(factors)[1] - 1  # the integer part of log2, exactly
    for of, weights, colour, shift in (
        ("M unique prototypes", np.ones(len(factors)), M_COLOUR, -0.2),
        ("K prototypes", factors, K_COLOUR, 0.2),
    ):
        shares = 100 * np.bincount(place, weights) / weights.sum()
        ax.bar(
            np.arange(len(shares)) + shift, shares, width=0.4, color=colour, label=f"of the {of}"
        )
    starts = 2 ** np.arange(place.max() + 1)
    names = ["1", *(f"{start:,}-{2 * start - 1:,}" for start in starts[1:])]
    ax.set_xticks(np.arange(len(names)), names)
    if len(names) > 7:
        ax.tick_params(axis="x", labelrotation=45)
    ax.set(title=_counts(factors), xlabel="redundancy factor $r_m$", ylabel="share (%)")
    ax.legend()
    return ax


def plot_largest_groups(
    audit: Audited, *, groups: int = 8, members: int = 16, ax: Axes | None = None
) -> Axes:
    """Cosines between the members of the largest groups, as a heat map; or their distances.

    Groups stand in falling order of size, and members from the nearest to the leader on. Where a
    group is larger than ``members``, those are evenly spaced in that order. A line on the colour
    bar marks the cosine of epsilon, or the radius.

    Args:
        audit: An audit.
        groups: Groups drawn at most, at least 1; 8 keeps the labels apart.
        members: Members drawn of each at most, at least 2.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If it is no audit, or a number is too small.
    """
    check_audit(audit, "plot_largest_groups")
    if groups < 1 or members < 2:
        raise ParameterError(
            f"at least 1 group and 2 members are drawn, got groups={groups}, members={members}."
        )
    from scipy.spatial.distance import cdist

    ax, found = axes_or_new(ax), audit.redundancy
    chosen = [_members(audit, group, members) for group in range(min(groups, found.num_unique))]
    rows, cosine = rows_of(audit, np.concatenate(chosen)), found.metric == "cosine"
    halves = cdist(rows, rows, "sqeuclidean") / 2
    values = 1 - halves if cosine else Points(audit.prototypes).distances(halves)
    limit = 1 - found.threshold if cosine else found.threshold
    ends = np.cumsum([len(inside) for inside in chosen])
    image = ax.imshow(
        values, cmap=COLOUR_MAP if cosine else f"{COLOUR_MAP}_r", interpolation="nearest",
        vmin=min(values.min(), limit), vmax=max(values.max(), limit),
        extent=(0, ends[-1], ends[-1], 0),
    )  # fmt: skip
    for end in ends[:-1]:
        ax.axhline(end, color="white", linewidth=1.0)
        ax.axvline(end, color="white", linewidth=1.0)
    middles = ends - np.diff(ends, prepend=0) / 2
    factors = [f"{factor:,}" for factor in found.redundancy_factors[: len(chosen)]]
    ax.set_xticks(middles, factors)
    ax.set_yticks(middles, factors)
    ax.set(
        title=f"M = {found.num_unique:,}: largest groups, at most {members} of each",
        xlabel="group, by its redundancy factor $r_m$",
        ylabel="group, by its redundancy factor $r_m$",
    )
    bar = ax.figure.colorbar(image, ax=ax, label="cosine" if cosine else "distance")
    bar.ax.axhline(limit, color=M_COLOUR, linewidth=1.5)
    return ax


def _members(audit: Audited, group: int, number: int) -> npt.NDArray[np.intp]:
    """Some members of a group, from the nearest to its leader on."""
    from scipy.spatial.distance import cdist

    inside = np.flatnonzero(audit.redundancy.groups == group)
    leader = rows_of(audit, audit.redundancy.leaders[[group]])
    order = np.argsort(cdist(rows_of(audit, inside), leader)[:, 0], kind="stable")
    places = np.linspace(0, len(inside) - 1, min(number, len(inside))).round().astype(np.intp)
    return inside[order[places]]


def _factors(given: object, caller: str) -> npt.NDArray[np.float64]:
    numbers = getattr(given, "redundancy_factors", given)
    try:
        factors = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        factors = np.empty(0)
    if factors.ndim != 1 or not factors.size or not factors.min() >= 1:
        raise ParameterError(
            f"{caller} takes an audit, or m numbers of at least 1; got {kind_of(given)}."
        )
    return factors


def _counts(factors: npt.NDArray[np.float64]) -> str:
    return f"K = {int(factors.sum()):,}, M = {len(factors):,}"
