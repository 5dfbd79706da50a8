"""Unique prototypes against the threshold, and against the number of prototypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import (
    COLOURS,
    EFFECTIVE_COLOUR,
    K_COLOUR,
    M_COLOUR,
    NULL_COLOUR,
    axes_or_new,
    kind_of,
    threshold_label,
)
from collapse_audit.similarity import Threshold, expected_n_eff
from collapse_audit.similarity.euclidean import Radius

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapse_audit.plots.axes import Audited
    from collapse_audit.redundancy import Redundancy
    from collapse_audit.similarity import SweepLevel


def plot_sweep(
    sweep: Audited | Redundancy | Sequence[SweepLevel], *, ax: Axes | None = None
) -> Axes:
    """Unique prototypes at every threshold, by each counting rule, and the effective number.

    The band holds M of every scan order: at the threshold of the audit it is the bracket, and at
    the others it follows from the bracket and from the counts at half and at twice the angle, or
    radius. The null is the mean N_eff of as many random directions: (1 - (1 - p)^K) / p with p the
    probability that two of them are duplicates. Points of the Euclidean metric have none.

    Args:
        sweep: An audit; its ``redundancy``, for a picture without the null; or the levels,
            ``redundancy.sweep``, for one without the bracket either.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes. The count is linear from 0 to 1 and logarithmic from there.

    Raises:
        ParameterError: If it is empty, or no sweep.
    """
    found: Any = getattr(sweep, "redundancy", sweep)
    levels = getattr(found, "sweep", found)
    if not isinstance(levels, list | tuple) or not all(hasattr(p, "threshold") for p in levels):
        raise ParameterError(f"plot_sweep takes an audit, or its sweep; got {kind_of(sweep)}.")
    if not levels:
        raise ParameterError("the sweep is empty.", hint="Audit with `sweep=True`.")
    ax = axes_or_new(ax)
    points = sorted(levels, key=lambda point: point.threshold)
    thresholds = [point.threshold for point in points]
    metric = getattr(found, "metric", "cosine")
    # Often the rules agree: rings around squares, and a dashed line on a solid one, stay visible.
    for label, counts, style, size, colour in (
        ("greedy cover, $M$", [point.greedy for point in points], "-o", 9.0, M_COLOUR),
        ("$N_{eff}$", [point.n_eff.value for point in points], "-.d", 4.0, EFFECTIVE_COLOUR),
        ("components", [point.components for point in points], "--s", 4.0, K_COLOUR),
        ("isolated", [point.isolated for point in points], ":^", 4.0, NULL_COLOUR),
    ):
        ax.plot(
            thresholds, counts, style, color=colour, label=label, markersize=size,
            markerfacecolor="none" if size > 4.0 else colour,
        )  # fmt: skip
    if found is not levels:
        ax.fill_between(
            thresholds, *bracket_band(found), color=M_COLOUR, alpha=0.2, linewidth=0,
            label="$M$, any scan order",
        )  # fmt: skip
    if (head := getattr(sweep, "prototypes", None)) is not None and metric == "cosine":
        fine = np.geomspace(thresholds[0], thresholds[-1], 200)
        null = [expected_n_eff(epsilon, head.k, head.d) for epsilon in fine]
        label = f"random directions, $N_{{eff}}$ (D = {head.d:,})"
        ax.plot(fine, null, color=NULL_COLOUR, linewidth=1.0, label=label)
    ax.set(
        xscale="log",
        xlabel=threshold_label(metric),
        ylabel="unique prototypes (number)",
        title="Uniqueness by threshold",
    )
    ax.set_yscale("symlog", linthresh=1.0)
    ax.set_ylim(0, 1.6 * max(np.max(line.get_ydata()) for line in ax.get_lines()))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.set_xticks(thresholds, [f"{threshold:g}" for threshold in thresholds])
    ax.minorticks_off()
    ax.legend(fontsize="small", loc="lower left")
    return ax


def plot_unique_vs_k(
    heads: Mapping[str, Sequence[Audited | Redundancy]] | Sequence[Audited | Redundancy],
    *,
    ax: Axes | None = None,
) -> Axes:
    """M against K for heads of several sizes, with the bracket as bars.

    Args:
        heads: Audits, or their ``redundancy``, in any order; by name for several lines.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If there are none, these are no audits, or they were audited at several
            thresholds.
    """
    named = heads if isinstance(heads, Mapping) else {"$M$": heads}
    for given in named.values():
        if not isinstance(given, list | tuple) or not all(map(_is_counted, given)):
            kind = kind_of(given)
            raise ParameterError(f"plot_unique_vs_k takes audits, or lists by name; got {kind}.")
    found = {name: [_redundancy_of(one) for one in audits] for name, audits in named.items()}
    levels = {(one.metric, one.threshold) for audits in found.values() for one in audits}
    if len(levels) != 1:
        raise ParameterError(
            f"heads of one threshold are drawn together, and these have {len(levels)}.",
            hint="Audit all with the same `epsilon=` or `radius=`.",
        )
    metric, threshold = levels.pop()
    ax, sizes = axes_or_new(ax), sorted({one.k for audits in found.values() for one in audits})
    ax.plot(sizes, sizes, color=NULL_COLOUR, linewidth=5.0, alpha=0.4, label="$M = K$")
    for at, (name, audits) in enumerate(found.items()):
        rising = sorted(audits, key=lambda one: one.k)
        unique = np.array([one.num_unique for one in rising])
        bracket = np.array([(one.bracket.low, one.bracket.high) for one in rising]).T
        ax.errorbar(
            [one.k for one in rising], unique, np.abs(bracket - unique),
            color=COLOURS[at % len(COLOURS)], marker="osd^v<>"[at % 7], markersize=5.0,
            capsize=3.0, label=name,
        )  # fmt: skip
    ax.set(
        xscale="log",
        yscale="log",
        title=f"Unique prototypes, {threshold_label(metric)} = {threshold:g}",
        xlabel="prototypes $K$ (number)",
        ylabel="unique prototypes $M$ (number)",
    )
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.legend()
    return ax


def _is_counted(given: object) -> bool:
    return hasattr(getattr(given, "redundancy", given), "bracket")


def _redundancy_of(given: Any) -> Redundancy:
    found: Redundancy = getattr(given, "redundancy", given)
    return found


def bracket_band(
    redundancy: Redundancy,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bounds of M in every scan order at each level of the sweep."""
    # As in the bracket: leaders at an angle number at most any cover at half of it, and at least
    # any set that is apart by twice of it. An upper bound holds at every larger threshold too, and
    # a lower one at every smaller.
    low, high = [], []
    levels, bracket = redundancy.sweep, redundancy.bracket
    for level in levels:
        at = level.threshold
        here = Threshold(at) if redundancy.metric == "cosine" else Radius(at, 0)
        double = np.inf if here.double is None else here.double
        above = [other.greedy for other in levels if other.threshold <= here.half]
        below = [other.greedy for other in levels if other.threshold >= double]
        high.append(min([redundancy.k, *above, *[bracket.high] * (redundancy.threshold <= at)]))
        low.append(max([level.components, *below, *[bracket.low] * (redundancy.threshold >= at)]))
    return np.array(low, dtype=np.int64), np.array(high, dtype=np.int64)
