"""How near the nearest other prototype is, beside random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import K_COLOUR, M_COLOUR, NULL_COLOUR, axes_or_new, check_audit
from collapse_audit.similarity import nearest_cosine_quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapse_audit.plots.axes import Audited

# Steps of a curve at most: more cannot be seen, and make a vector file of a large head large.
_STEPS = 2000
_BINS = 60


def plot_nearest(
    audit: Audited, *, kind: Literal["ecdf", "density"] = "ecdf", ax: Axes | None = None
) -> Axes:
    """Cosine of every prototype with its nearest other one, that of random directions, and epsilon.

    Prototypes right of the line of epsilon have a duplicate. In the Euclidean metric these are
    distances, without a null, and those left of the line of the radius have one.

    Args:
        audit: An audit.
        kind: ``"ecdf"``, the share of prototypes up to a value, or ``"density"``, a histogram of
            60 bins and unit area.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If it is no audit, the nearest ones were not asked for, or there is no such
            kind.
    """
    check_audit(audit, "plot_nearest")
    nearest, head = audit.redundancy.nearest, audit.prototypes
    if kind not in ("ecdf", "density"):
        raise ParameterError(f"kind must be 'ecdf' or 'density', got {kind!r}.")
    if nearest is None:
        raise ParameterError(
            "the nearest prototypes were not searched.", hint="Audit with `nearest=True`."
        )
    cosine, threshold = nearest.metric == "cosine", audit.redundancy.threshold
    ax, values = axes_or_new(ax), np.sort(nearest.cosine if cosine else nearest.distance)
    shares = (np.arange(1001) + 0.5) / 1001
    null = nearest_cosine_quantiles(shares, head.k, head.d)
    label, random = f"K = {head.k:,} prototypes", f"random directions, D = {head.d:,}"
    if kind == "ecdf":
        places = np.unique(np.linspace(0, head.k - 1, _STEPS).round().astype(np.intp))
        ax.step(
            [values[0], *values[places]], [0, *(places + 1) / head.k],
            where="post", color=K_COLOUR, label=label,
        )  # fmt: skip
        if cosine:
            ax.plot(null, shares, "--", color=NULL_COLOUR, label=random)
        ax.set(ylabel="share of prototypes up to it", ylim=(0, 1.02))
    else:
        first = min(values[0], null[0]) if cosine else 0.0
        last = 1.0 if cosine else max(values[-1], threshold)
        bins = np.linspace(first, last, _BINS + 1)
        ax.hist(values, bins=bins.tolist(), density=True, color=K_COLOUR, alpha=0.7, label=label)
        if (
            cosine and (steps := np.diff(null)).all()
        ):  # all but one dimension, where it has no density
            middles = (null[1:] + null[:-1]) / 2
            ax.plot(middles, np.diff(shares) / steps, "--", color=NULL_COLOUR, label=random)
        ax.set(ylabel="density (1 / cosine)" if cosine else "density (1 / distance)", yscale="log")
    at = 1 - threshold if cosine else threshold
    name = rf"$1 - \epsilon$ = {at:g}" if cosine else f"radius = {at:g}"
    ax.axvline(at, color=M_COLOUR, linewidth=1.0, label=name)
    what = "cosine with" if cosine else "distance to"
    ax.set(xlabel=f"{what} the nearest other prototype", title="Nearest prototypes")
    ax.legend(fontsize="small")
    return ax
