"""A run over its checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import K_COLOUR, M_COLOUR, NULL_COLOUR, axes_or_new, kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapse_audit.report.documents import HistoryDocument


class Followed(Protocol):
    """The history of a run."""

    def to_dict(self) -> HistoryDocument:
        """Each head at each checkpoint."""


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
        raise ParameterError(f"plot_history takes the history of a run; got {kind_of(history)}.")
    head, points = heads[0], heads[0]["points"]
    ax, found = axes_or_new(ax), [point["head"] for point in points]
    numbers = [point["number"] for point in points if point["number"] is not None]
    step = numbers[-1] - numbers[-2] if len(numbers) > 1 else 1
    xs = numbers + [(numbers[-1] if numbers else -1) + step * (at + 1)
                    for at in range(len(points) - len(numbers))]  # fmt: skip
    k = np.array([one["k"] for one in found])
    bracket = np.array([one["unique"].get("bracket", [0, 0]) for one in found]).T / k
    ax.fill_between(xs, *bracket, color=M_COLOUR, alpha=0.2, linewidth=0, label="any scan order")
    ax.plot(xs, [one["unique_fraction"] for one in found], "-o", color=M_COLOUR, markersize=3.0,
            label="unique, M / K")  # fmt: skip
    largest = np.array([one["redundancy_factors"]["max"] for one in found]) / k
    ax.plot(xs, largest, ":", color=NULL_COLOUR, label="largest group, r / K")
    nearest = [(one["nearest_cosine"] or {}).get("median", np.nan) for one in found]
    ax.plot(xs, nearest, "--", color=K_COLOUR, label="nearest cosine, median")
    names = [point["file"] for point in points]
    if head["onset"] is not None:
        at = names.index(head["onset"])
        ax.axvline(xs[at], color=NULL_COLOUR, linewidth=0.8, label=f"onset: {points[at]['label']}")
    title = f"{head['name']}: K = {k[-1]:,}, M = {found[-1]['unique']['greedy']:,} at the end"
    low = min(0.0, float(np.nanmin([*nearest, 0.0])))
    ax.set(xlabel=points[0]["unit"], ylabel="share of K, cosine", ylim=(low, 1.04), title=title)
    ax.legend(fontsize="small")
    return ax
