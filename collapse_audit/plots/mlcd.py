"""Pictures of a class distribution: over K and over M, against redundancy, and its usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import (
    K_COLOUR,
    M_COLOUR,
    NULL_COLOUR,
    as_image,
    axes_or_new,
    kind_of,
    log_log,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapse_audit.mlcd import MLCD
    from collapse_audit.plots.axes import Audited

Classes: TypeAlias = "MLCD | Audited"


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
    mlcd, ax = _mlcd(mlcd), axes_or_new(ax)
    curves = [("K", mlcd.rank_frequency("k"), K_COLOUR, "-")]
    if mlcd.groups is not None:
        curves.append(("M", mlcd.rank_frequency("m"), M_COLOUR, "--"))
    for letter, masses, colour, style in curves:
        number = len(masses)
        ranks, label = np.arange(1, number + 1) / number, f"{letter} = {number:,}"
        ax.plot(ranks, masses * number, color=colour, linestyle=style, label=label)
    ax.axhline(1.0, color=NULL_COLOUR, linewidth=0.8, linestyle=":", label="uniform")
    log_log(
        ax,
        "Marginal latent class distribution",
        "rank / number of classes",
        "mass x number of classes, $K p_k$ and $M q_m$",
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
    ax = axes_or_new(ax)
    ax.plot(
        factors, masses, ".", color=M_COLOUR, alpha=0.6, label="unique prototype",
        rasterized=as_image(len(factors)),
    )  # fmt: skip
    ends = np.array([1, factors.max()])
    ax.plot(
        ends, ends / factors.sum(), color=NULL_COLOUR, linestyle=":", marker="", label="q = r / K"
    )
    log_log(ax, "Mass of unique classes", "redundancy factor $r_m$", "mass $q_m$ (probability)")
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
    mlcd, ax = _mlcd(mlcd), axes_or_new(ax)
    sizes = np.unique(np.linspace(0, mlcd.n, 41).astype(np.int64))
    classes = len(mlcd.probabilities)
    ax.plot(sizes, mlcd.rarefaction(sizes), color=K_COLOUR, label=f"prototypes (K = {classes:,})")
    if mlcd.redundancy_factors is not None:
        used, unique = mlcd.rarefaction(sizes, level="m"), len(mlcd.redundancy_factors)
        ax.plot(sizes, used, color=M_COLOUR, linestyle="--", label=f"unique (M = {unique:,})")
    chance = classes * -np.expm1(sizes * np.log1p(-1 / classes))
    ax.plot(sizes, chance, color=NULL_COLOUR, linestyle=":", label="uniform draws from K")
    ax.set(
        xlabel="samples (number)",
        ylabel="classes used (number, argmax)",
        title="Usage",
        ylim=(0, None),
    )
    ax.legend()
    return ax


def _mlcd(given: Classes) -> MLCD:
    from collapse_audit.mlcd import MLCD

    found = getattr(given, "mlcd", given)
    if not isinstance(found, MLCD):
        raise ParameterError(
            f"a class distribution is drawn here, and this is {kind_of(given)} without one.",
            hint="measure_mlcd makes one; audit.with_mlcd(mlcd) keeps it in an audit.",
        )
    return found
