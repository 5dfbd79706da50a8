"""Several heads in the same kind of picture, on equal axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import kind_of, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = TypeVar("Result")


def plot_side_by_side(
    plot: Callable[..., Axes], results: Mapping[str, Result], **options: object
) -> tuple[Axes, ...]:
    """Draw the same picture of several heads beside each other, with equal axes and colours.

    Maps have axes of their own, as their coordinates have no unit; their colours are equal.

    Args:
        plot: A ``plot_*`` function that takes one result.
        results: What it takes, by the name that goes over each picture.
        **options: Passed to every call.

    Returns:
        The Axes, in the order given, of one figure.

    Raises:
        ParameterError: If there are no results, or they have no names.

    Example:
        >>> from collapse_audit import audit, plot_redundancy_factors
        >>> heads = {"demo": audit("demo"), "pairs": audit([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])}
        >>> left, right = plot_side_by_side(plot_redundancy_factors, heads)
        >>> left.get_xlim() == right.get_xlim()
        True
    """
    given: tuple[object, object] = (plot, results)
    if not callable(given[0]) or not isinstance(given[1], Mapping):
        kinds = " and ".join(map(kind_of, given))
        raise ParameterError(f"plot_side_by_side takes a plot and results by name; got {kinds}.")
    if not results:
        raise ParameterError("there is nothing to draw side by side.", hint="Give results by name.")
    figure = new_figure((5.2 * len(results), 4.0))
    (row,) = figure.subplots(1, len(results), squeeze=False)
    for (name, result), ax in zip(results.items(), row, strict=True):
        plot(result, ax=ax, **options)
        ax.set_title(f"{name}\n{ax.get_title()}", fontsize="medium")
    for ax in row[1:]:
        ax.set_ylabel("")
    # not shared from the start, because shared axes have one set of ticks
    x, y = (np.sort([getattr(ax, f"get_{axis}lim")() for ax in row]) for axis in "xy")
    for ax in row:
        if not len(ax.get_xticks()):  # a map: its coordinates have no unit, and each its own scale
            continue
        turned = ax.yaxis_inverted()
        ax.set(xlim=(x.min(), x.max()), ylim=(y.max(), y.min()) if turned else (y.min(), y.max()))
    drawn = [one for ax in row for one in (*ax.collections, *ax.images)]
    coloured = [one for one in drawn if one.get_array() is not None]
    for one in coloured:
        one.set_clim(min(other.norm.vmin for other in coloured),
                     max(other.norm.vmax for other in coloured))  # fmt: skip
    return tuple(row)
