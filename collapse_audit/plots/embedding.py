"""Maps: prototypes, and samples among them, in two dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.plots.axes import (
    COLOUR_MAP,
    COLOURS,
    as_image,
    axes_or_new,
    check_audit,
    rows_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from collapse_audit.plots.axes import Audited

_FEWEST = 4
_OTHERS = "0.6"


def plot_prototype_map(
    audit: Audited,
    *,
    method: Literal["tsne", "umap"] = "tsne",
    perplexity: float = 30.0,
    seed: int = 0,
    limit: int = 5000,
    ax: Axes | None = None,
) -> Axes:
    """The unique prototypes in two dimensions, coloured by how often each is repeated.

    t-SNE of scikit-learn on the directions (in the Euclidean metric, on the points), started from
    their two principal components. Which are near means something, how far apart groups lie not.

    Args:
        audit: An audit.
        method: ``"tsne"``, or ``"umap"`` with the extra ``umap`` installed.
        perplexity: Neighbours that count, above 0; 30 is scikit-learn's. At most a third of the
            points is used, and the title says so. For UMAP its number of neighbours, at least 2.
        seed: Of the method, and of the choice of ``limit`` prototypes.
        limit: Unique prototypes drawn at most, chosen at random; 5,000 take about a minute.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If it is no audit, fewer than 4 unique prototypes or 2 dimensions are left,
            a number is out of range, or the method is unknown or not installed.
    """
    check_audit(audit, "plot_prototype_map")
    found, rng = audit.redundancy, np.random.default_rng(seed)
    chosen = _some(found.num_unique, limit, rng)
    rows = rows_of(audit, found.leaders[chosen])
    points, how = _embed(rows, method, perplexity, seed)
    from matplotlib.colors import LogNorm

    factors, ax = found.redundancy_factors[chosen], axes_or_new(ax)
    order = np.argsort(factors, kind="stable")  # the most repeated ones on top
    drawn = ax.scatter(
        points[order, 0], points[order, 1], c=factors[order], cmap=COLOUR_MAP,
        s=min(14.0, 14000 / len(points)), linewidths=0,
        norm=LogNorm(1, max(2, factors.max())), rasterized=as_image(len(points)),
    )  # fmt: skip
    ax.figure.colorbar(drawn, ax=ax, label="redundancy factor $r_m$", format="%d")
    shown = f"{len(chosen):,} of " if len(chosen) < found.num_unique else ""
    _label(ax, f"{shown}{found.num_unique:,} unique prototypes\n{how}", method)
    return ax


def plot_class_map(
    audit: Audited,
    features: npt.ArrayLike,
    *,
    winners: npt.ArrayLike | None = None,
    classes: int = 6,
    method: Literal["tsne", "umap"] = "tsne",
    perplexity: float = 30.0,
    seed: int = 0,
    limit: int = 5000,
    ax: Axes | None = None,
) -> Axes:
    """Samples and unique prototypes in one map, coloured by latent class.

    The classes that most samples have get a colour, the others are grey.

    Args:
        audit: An audit in the cosine metric.
        features: Bottleneck features of the samples (n x d), as ``HeadModel.bottleneck_of`` gives
            them; only their directions are used.
        winners: Unique class of each sample (n), such as ``mlcd.unique_winners``; by default that
            of the prototype with the largest cosine.
        classes: Classes with a colour, 1 to 7.
        method: As for :func:`plot_prototype_map`, like all that follow.
        perplexity: Neighbours that count.
        seed: Of the method and of the choices.
        limit: Samples, and unique prototypes, drawn at most.
        ax: Axes to draw on; new ones by default.

    Returns:
        The Axes.

    Raises:
        ParameterError: If the features do not fit the head, the audit is in the Euclidean metric,
            and as for
            :func:`plot_prototype_map`.
    """
    check_audit(audit, "plot_class_map")
    found, rng = audit.redundancy, np.random.default_rng(seed)
    if not 1 <= classes <= len(COLOURS):
        raise ParameterError(f"classes must be from 1 to {len(COLOURS)}, got {classes}.")
    if found.metric != "cosine":
        raise ParameterError(
            "samples are mapped by direction, and this audit is in the Euclidean metric.",
            hint="Audit with `metric=cosine`.",
        )
    samples = _directions(features, audit.prototypes.d)
    leaders = _some(found.num_unique, limit, rng)
    chosen = _some(len(samples), limit, rng)
    if winners is None:
        won = found.groups[_nearest(samples[chosen], audit.prototypes.unit_rows())]
    else:
        won = np.asarray(winners)
        if won.shape != (len(samples),) or not np.isin(won, np.arange(found.num_unique)).all():
            raise ParameterError(
                f"winners must be {len(samples):,} classes from 0 to {found.num_unique - 1:,}."
            )
        won = won[chosen]
    rows = audit.prototypes.unit_rows(found.leaders[leaders])
    points, how = _embed(np.concatenate([samples[chosen], rows]), method, perplexity, seed)
    data, prototypes = points[: len(chosen)], points[len(chosen) :]
    counts, ax = np.bincount(won, minlength=found.num_unique), axes_or_new(ax)
    top = np.argsort(-counts, kind="stable")[: min(classes, np.count_nonzero(counts))]
    one_image = as_image(len(points))

    rest, at_rest = ~np.isin(won, top), ~np.isin(leaders, top)
    ax.scatter(
        prototypes[at_rest, 0], prototypes[at_rest, 1], s=14.0, marker="D", color="white",
        edgecolors=_OTHERS, linewidths=0.7, rasterized=one_image,
    )  # fmt: skip
    ax.scatter(
        data[rest, 0], data[rest, 1], s=7.0, color=_OTHERS, linewidths=0, rasterized=one_image,
        label=f"{np.count_nonzero(counts) - len(top):,} other classes",
    )  # fmt: skip
    for colour, group in zip(COLOURS, top, strict=False):
        of, at = won == group, leaders == group
        ax.scatter(
            data[of, 0], data[of, 1], s=9.0, color=colour, linewidths=0, rasterized=one_image
        )
        ax.scatter(
            prototypes[at, 0], prototypes[at, 1], s=34.0, marker="D", color=colour, zorder=3,
            edgecolors="black", linewidths=0.7,
            label=f"$r_m$ = {found.redundancy_factors[group]:,}, {counts[group]:,} samples",
        )  # fmt: skip
    number = np.count_nonzero(counts)
    title = f"{len(chosen):,} samples (dots), {len(leaders):,} unique prototypes (diamonds)"
    _label(ax, f"{title}\n{number:,} latent classes; {how}", method)
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return ax


def _embed(
    rows: npt.NDArray[np.float64], method: str, perplexity: float, seed: int
) -> tuple[npt.NDArray[np.float64], str]:
    """Points in the plane (n x 2), and how they were found, in words."""
    n, d = rows.shape
    if n < _FEWEST or d < 2:
        raise ParameterError(f"a map needs at least 4 points of 2 dimensions, got {n} of {d}.")
    if not perplexity > 0:
        raise ParameterError(f"perplexity must be above 0, got {perplexity}.")
    used = min(float(perplexity), (n - 1) / 3)
    if method == "tsne":
        from sklearn.manifold import TSNE

        model = TSNE(perplexity=used, init="pca", learning_rate="auto", random_state=seed)
        how = f"t-SNE, perplexity {used:.3g}, seed {seed}"
    elif method == "umap":
        try:
            from umap import UMAP
        except ImportError as error:
            raise ParameterError(
                "umap-learn is not installed.", hint="pip install 'collapse-audit[umap]'"
            ) from error
        near = max(2, round(used))
        model = UMAP(n_neighbors=near, init="pca", random_state=seed, n_jobs=1)
        how = f"UMAP, {near} neighbours, seed {seed}"
    else:
        raise ParameterError(f"method must be 'tsne' or 'umap', got {method!r}.")
    return np.asarray(model.fit_transform(rows), dtype=np.float64), how


def _some(number: int, limit: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Rising places of at most ``limit`` of so many things."""
    if number <= limit:
        return np.arange(number)
    return np.sort(rng.choice(number, limit, replace=False))


def _directions(features: npt.ArrayLike, d: int) -> npt.NDArray[np.float64]:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != d or not len(rows):
        raise ParameterError(
            f"features must be n x {d} (at the bottleneck), got shape {rows.shape}.",
            hint="HeadModel.bottleneck_of takes backbone features there.",
        )
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ParameterError("features must be finite, and none may be all zeros.")
    return np.asarray(rows / norms)


def _nearest(rows: npt.NDArray[np.float64], among: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Which of some directions has the largest cosine with each row."""
    parts = [
        (rows[start : start + 512] @ among.T).argmax(axis=1) for start in range(0, len(rows), 512)
    ]
    return np.concatenate(parts)


def _label(ax: Axes, title: str, method: str) -> None:
    name = {"tsne": "t-SNE", "umap": "UMAP"}[method]
    ax.set_title(title, fontsize="medium")
    ax.set(xlabel=f"{name} 1 (no unit)", ylabel=f"{name} 2 (no unit)", xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
