"""How near the nearest other prototype is, beside random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import K_COLOUR, M_COLOUR, NULL_COLOUR, axes_or_new
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

    Prototypes right of the line of epsilon have a duplicate.

    Args:
        audit: An audit.
        kind: ``"ecdf"``, the share of prototypes up to a cosine, or ``"density"``, a histogram of
            60 bins and unit area.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If the nearest ones were not asked for, or there is no such kind.
    """
    nearest, head = audit.redundancy.nearest, audit.prototypes
    if kind not in ("ecdf", "density"):
        raise ParameterError(f"kind must be 'ecdf' or 'density', got {kind!r}.")
    if nearest is None:
        raise ParameterError(
            "the nearest prototypes were not searched.", hint="Audit with `nearest=True`."
        )
    ax, cosines = axes_or_new(ax), np.sort(nearest.cosine)
    shares = (np.arange(1001) + 0.5) / 1002
    null = nearest_cosine_quantiles(shares, head.k, head.d)
    label, random = f"K = {head.k:,} prototypes", f"random directions, D = {head.d:,}"
    if kind == "ecdf":
        places = np.unique(np.linspace(0, head.k - 1, _STEPS).round().astype(np.intp))
        ax.step(
            [cosines[0], *cosines[places]], [0, *(places + 1) / head.k],
            where="post", color=K_COLOUR, label=label,
        )  # fmt: skip
        ax.plot(null, shares, "--", color=NULL_COLOUR, label=random)
        ax.set(ylabel="share of prototypes up to it", ylim=(0, 1.02))
    else:
        # float32 copies are at a cosine of 1 or a rounding above it
        bins = np.linspace(min(cosines[0], null[0]), max(1.0, cosines[-1]), _BINS + 1)
        ax.hist(cosines, bins=bins.tolist(), density=True, color=K_COLOUR, alpha=0.7, label=label)
        if (steps := np.diff(null)).all():  # all but one dimension, where it has no density
            middles = (null[1:] + null[:-1]) / 2
            ax.plot(middles, np.diff(shares) / steps, "--", color=NULL_COLOUR, label=random)
        ax.set(ylabel="density (1 / cosine)", yscale="log")
    epsilon = audit.redundancy.epsilon
    ax.axvline(
        1 - epsilon, color=M_COLOUR, linewidth=1.0, label=rf"$1 - \epsilon$ = {1 - epsilon:g}"
    )
    ax.set(xlabel="cosine with the nearest other prototype", title="Nearest prototypes")
    ax.legend(fontsize="small")
    return ax
