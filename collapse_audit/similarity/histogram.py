"""Distribution of the cosines of all pairs: an exact tail, and a sampled body with its band."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.similarity.comparison import Comparison
from collapse_audit.similarity.progress import Progress, silent
from collapse_audit.similarity.sweep import sweep_levels

_SAMPLES = 1_000_000
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class CosineHistogram:
    """Shares of the K (K - 1) / 2 pairs of prototypes by their cosine.

    Attributes:
        edges: Bounds of the bins, cosines from -1 to 1 (b + 1, rising). A pair at a distance of
            exactly 1 - edge belongs to the bin below the edge.
        share: Share of all pairs in each bin (b); they sum to one.
        exact: Whether a bin was counted (b); the others were sampled.
        band: Half width of the 95 % confidence band of the cumulative share over the sampled bins.
    """

    edges: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    exact: npt.NDArray[np.bool_]
    band: float


def cosine_histogram(
    comparison: Comparison,
    *,
    bins_per_unit: int = 50,
    exact_below: float = 0.2,
    samples: int = _SAMPLES,
    seed: int = 0,
    progress: Progress = silent,
) -> CosineHistogram:
    r"""Histogram of all pairwise cosines without computing all of them.

    Pairs closer than ``exact_below`` are counted at every edge by :func:`sweep_levels`. The rest
    comes from independent random pairs: pairs that share rows are not independent, so sampling a
    block of rows would miss its own band on a collapsed head. The band is that of Dvoretzky,
    Kiefer and Wolfowitz with Massart's constant (1990), :math:`\sqrt{\ln(2/0.05)/(2n)}`.

    Args:
        comparison: The prototypes; its threshold does not matter.
        bins_per_unit: Bins in a unit of cosine, at least 1.
        exact_below: Cosine distance below which pairs are counted, 0 (none) to below 1; rounded
            down to an edge.
        samples: Random pairs for the rest, at least 1.
        seed: Of the random pairs.
        progress: Called with ("sweep", levels done, levels in all).

    Returns:
        The histogram.

    Raises:
        ParameterError: If an argument is out of its range.
    """
    if bins_per_unit < 1 or samples < 1 or not 0 <= exact_below < 1:
        raise ParameterError(
            f"bins_per_unit = {bins_per_unit}, samples = {samples}, exact_below = {exact_below}: "
            "the first two must be positive, the last from 0 to below 1."
        )
    k = comparison.prototypes.k
    edges = np.linspace(-1.0, 1.0, 2 * bins_per_unit + 1)
    exact_bins = int(exact_below * bins_per_unit + 1e-9)
    share = np.zeros(2 * bins_per_unit)
    exact = np.arange(len(share)) >= len(share) - exact_bins
    if exact_bins:
        distances = [round(bin_ / bins_per_unit, 12) for bin_ in range(1, exact_bins + 1)]
        levels = sweep_levels(comparison, distances, progress=progress)
        pairs = np.array([0, *(level.pairs for level in levels)])
        share[exact] = np.diff(pairs)[::-1] / (k * (k - 1) / 2)
    rng = np.random.default_rng(seed)
    first = rng.integers(0, k, samples)
    second = (first + rng.integers(1, k, samples)) % k
    cosines = np.clip(comparison.exact.cosines(first, second), -1.0, 1.0)
    body = np.histogram(cosines, bins=edges)[0][~exact]
    left = 1.0 - share.sum()
    share[~exact] = body * (left / max(int(body.sum()), 1))
    # The sampled shares are rescaled to the exact remainder, so their band shrinks with it.
    band = left * sqrt(log(2 / (1 - _CONFIDENCE)) / (2 * max(int(body.sum()), 1)))
    return CosineHistogram(edges=edges, share=share, exact=exact, band=band)
