"""Pictures of results: each takes a result, draws it on one Axes, and returns the Axes.

Without Axes of yours, a cell of a notebook shows the picture, and a script opens no window: there
it is yours to save, ``plot_sweep(audit).figure.savefig("sweep.pdf")``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapse_audit.mlcd import MLCD
    from collapse_audit.redundancy import Redundancy
    from collapse_audit.report.documents import HistoryDocument
    from collapse_audit.similarity import SweepLevel


class Audited(Protocol):
    """An audit of one head, as far as pictures need it."""

    @property
    def redundancy(self) -> Redundancy:
        """Groups and sweep."""

    @property
    def mlcd(self) -> MLCD | None:
        """Class distribution, if it was measured."""


class Followed(Protocol):
    """The history of a run."""

    def to_dict(self) -> HistoryDocument:
        """Each head at each checkpoint."""


Classes: TypeAlias = "MLCD | Audited"

# Blue and vermilion of Okabe and Ito (2008): told apart with any colour vision, and in print.
_K_COLOUR, _M_COLOUR, _NULL_COLOUR = "#0072B2", "#D55E00", "#767676"
_EFFECTIVE_COLOUR = "#009E73"


def plot_rank_frequency(mlcd: Classes, *, ax: Axes | None = None) -> Axes:
    """Class masses in descending order, over the K prototypes and over the unique ones.

    Masses and ranks are divided by those of a uniform distribution, so that both curves share
    the axes and a uniform one is the line at 1.

    Args:
        mlcd: Result of :func:`~collapse_audit.measure_mlcd`, or an audit that holds one.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    mlcd, ax = _mlcd(mlcd), _axes(ax)
    curves = [("K", mlcd.rank_frequency("k"), _K_COLOUR, "-")]
    if mlcd.groups is not None:
        curves.append(("M", mlcd.rank_frequency("m"), _M_COLOUR, "--"))
    for letter, masses, colour, style in curves:
        number = len(masses)
        ranks, label = np.arange(1, number + 1) / number, f"{letter} = {number:,}"
        ax.plot(ranks, masses * number, color=colour, linestyle=style, label=label)
    ax.axhline(1.0, color=_NULL_COLOUR, linewidth=0.8, linestyle=":", label="uniform")
    _log_log(
        ax,
        "Marginal latent class distribution",
        "rank / number of classes",
        "probability x number of classes",
    )
    ax.legend()
    return ax


def plot_redundancy_vs_mass(mlcd: Classes, *, ax: Axes | None = None) -> Axes:
    """Mass of every unique class against the number of its copies.

    Copies that carry equal mass lie on the line q = r / K: then redundancy alone makes the
    distribution over the prototypes uniform.

    Args:
        mlcd: A result with groups, or an audit that holds one.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If the result has no groups.
    """
    mlcd = _mlcd(mlcd)
    factors, masses = mlcd.redundancy_factors, mlcd.unique_probabilities
    if factors is None or masses is None:
        raise ParameterError("this MLCD has no groups.", hint="Pass groups=... to MLCDAccumulator.")
    ax = _axes(ax)
    ax.plot(factors, masses, ".", color=_M_COLOUR, alpha=0.6, label="unique prototype")
    ends = np.array([1, factors.max()])
    ax.plot(
        ends, ends / factors.sum(), color=_NULL_COLOUR, linestyle=":", marker="", label="q = r / K"
    )
    _log_log(ax, "Mass of unique classes", "redundancy factor $r_m$", "probability $q_m$")
    ax.legend()
    return ax


def plot_usage(mlcd: Classes, *, ax: Axes | None = None) -> Axes:
    """Classes used by samples of growing size, and the expectation for uniform draws.

    Args:
        mlcd: A result, or an audit that holds one.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.
    """
    mlcd, ax = _mlcd(mlcd), _axes(ax)
    sizes = np.unique(np.linspace(0, mlcd.n, 41).astype(np.int64))
    classes = len(mlcd.probabilities)
    ax.plot(sizes, mlcd.rarefaction(sizes), color=_K_COLOUR, label=f"prototypes (K = {classes:,})")
    if mlcd.redundancy_factors is not None:
        used, unique = mlcd.rarefaction(sizes, level="m"), len(mlcd.redundancy_factors)
        ax.plot(sizes, used, color=_M_COLOUR, linestyle="--", label=f"unique (M = {unique:,})")
    chance = classes * -np.expm1(sizes * np.log1p(-1 / classes))
    ax.plot(sizes, chance, color=_NULL_COLOUR, linestyle=":", label="uniform draws from K")
    ax.set(xlabel="samples", ylabel="classes used (argmax)", title="Usage", ylim=(0, None))
    ax.legend()
    return ax


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
    given = getattr(redundancy_factors, "redundancy_factors", redundancy_factors)
    try:
        factors = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        factors = np.empty(0)
    if factors.ndim != 1 or not factors.size:
        raise ParameterError(
            f"plot_redundancy_factors takes an audit, or m numbers; got {_kind(given)}."
        )
    factors, ax = np.sort(factors)[::-1], _axes(ax)
    ax.plot(np.arange(1, len(factors) + 1), factors, color=_M_COLOUR)
    title = f"K = {int(factors.sum()):,}, M = {len(factors):,}"
    _log_log(ax, title, "rank of the unique prototype", "redundancy factor $r_m$")
    return ax


def plot_sweep(
    sweep: Audited | Redundancy | Sequence[SweepLevel], *, ax: Axes | None = None
) -> Axes:
    """Unique prototypes at every threshold, by each counting rule, and the effective number.

    Args:
        sweep: An audit, its ``redundancy``, or the levels, ``redundancy.sweep``.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If it is empty, or no sweep.
    """
    redundancy = getattr(sweep, "redundancy", sweep)
    levels = getattr(redundancy, "sweep", sweep)
    metric = getattr(redundancy, "metric", "cosine")
    if not isinstance(levels, list | tuple) or not all(hasattr(p, "threshold") for p in levels):
        raise ParameterError(f"plot_sweep takes an audit, or its sweep; got {_kind(sweep)}.")
    if not levels:
        raise ParameterError("the sweep is empty.", hint="Audit with `sweep=True`.")
    ax = _axes(ax)
    points = sorted(levels, key=lambda point: point.threshold)
    thresholds = [point.threshold for point in points]
    # Often the rules agree: rings around squares, and a dashed line on a solid one, stay visible.
    for label, counts, style, size, colour in (
        ("greedy cover, M", [point.greedy for point in points], "-o", 9.0, _M_COLOUR),
        ("N_eff", [point.n_eff.value for point in points], "-.d", 4.0, _EFFECTIVE_COLOUR),
        ("components", [point.components for point in points], "--s", 4.0, _K_COLOUR),
        ("isolated", [point.isolated for point in points], ":^", 4.0, _NULL_COLOUR),
    ):
        ax.plot(
            thresholds, counts, style, color=colour, label=label, markersize=size,
            markerfacecolor="none" if size > 4.0 else colour,
        )  # fmt: skip
    ax.set(
        xscale="log",
        xlabel="radius" if metric == "euclidean" else "cosine distance epsilon",
        ylabel="unique prototypes",
        ylim=(0, 1.08 * max(max(point.greedy, point.isolated) for point in points)),
        title="Uniqueness by threshold",
    )
    ax.legend()
    return ax


def plot_history(history: Followed, *, ax: Axes | None = None) -> Axes:
    """The first head of a run over its checkpoints: M with its bracket, nearest cosine, largest r.

    Args:
        history: Result of :func:`~collapse_audit.audit_history`.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes, from 0 to 1: counts are divided by K.

    Raises:
        ParameterError: If it is no history, or an empty one.
    """
    heads = history.to_dict().get("heads") if hasattr(history, "to_dict") else None
    if not heads or "points" not in heads[0]:
        raise ParameterError(f"plot_history takes the history of a run; got {_kind(history)}.")
    head, points = heads[0], heads[0]["points"]
    ax, found = _axes(ax), [point["head"] for point in points]
    numbers = [point["number"] for point in points if point["number"] is not None]
    step = numbers[-1] - numbers[-2] if len(numbers) > 1 else 1
    xs = numbers + [(numbers[-1] if numbers else -1) + step * (at + 1)
                    for at in range(len(points) - len(numbers))]  # fmt: skip
    k = np.array([one["k"] for one in found])
    bracket = np.array([one["unique"].get("bracket", [0, 0]) for one in found]).T / k
    ax.fill_between(xs, *bracket, color=_M_COLOUR, alpha=0.2, linewidth=0, label="any scan order")
    ax.plot(xs, [one["unique_fraction"] for one in found], "-o", color=_M_COLOUR, markersize=3.0,
            label="unique, M / K")  # fmt: skip
    largest = np.array([one["redundancy_factors"]["max"] for one in found]) / k
    ax.plot(xs, largest, ":", color=_NULL_COLOUR, label="largest group, r / K")
    nearest = [(one["nearest_cosine"] or {}).get("median", np.nan) for one in found]
    ax.plot(xs, nearest, "--", color=_K_COLOUR, label="nearest cosine, median")
    names = [point["file"] for point in points]
    if head["onset"] is not None:
        at = names.index(head["onset"])
        ax.axvline(xs[at], color=_NULL_COLOUR, linewidth=0.8, label=f"onset: {points[at]['label']}")
    title = f"{head['name']}: K = {k[-1]:,}, M = {found[-1]['unique']['greedy']:,} at the end"
    low = min(0.0, float(np.nanmin([*nearest, 0.0])))
    ax.set(xlabel=points[0]["unit"], ylabel="share of K, cosine", ylim=(low, 1.04), title=title)
    ax.legend(fontsize="small")
    return ax


def _log_log(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set(xscale="log", yscale="log", title=title, xlabel=x, ylabel=y)


def _mlcd(given: Classes) -> MLCD:
    from collapse_audit.mlcd import MLCD

    found = getattr(given, "mlcd", given)
    if not isinstance(found, MLCD):
        raise ParameterError(
            f"a class distribution is drawn here, and this is {_kind(given)} without one.",
            hint="measure_mlcd makes one; replace(audit, mlcd=...) keeps it in an audit.",
        )
    return found


def _kind(given: object) -> str:
    return f"an array of shape {given.shape}" if hasattr(given, "shape") else type(given).__name__


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    size = (6.0, 4.0)
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from matplotlib import pyplot  # shows its figures when the cell ends, and closes them

        shown: Axes = pyplot.figure(figsize=size, layout="constrained").add_subplot()
        return shown
    from matplotlib.figure import Figure  # no window, no global state, nothing to close

    axes: Axes = Figure(figsize=size, layout="constrained").add_subplot()
    return axes
