"""What K independent random directions would show: the null that measurements are read against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincinv


def duplicate_probability(epsilon: float, d: int) -> float:
    r"""Probability that two random directions are closer than epsilon.

    .. math:: P(1-\cos < \varepsilon) = \tfrac12\, I_{1-(1-\varepsilon)^2}(\tfrac{d-1}2, \tfrac12)

    the share of the sphere in a cap of that cosine, with I the regularised incomplete beta
    function (Li 2011, Concise formulas for the area and volume of a hyperspherical cap).

    Args:
        epsilon: Cosine distance, 0 to 1.
        d: Dimension, at least 1.

    Returns:
        A probability; 7e-169 for epsilon = 0.025 at d = 256.
    """
    if d == 1:
        return 0.5
    return float(0.5 * betainc((d - 1) / 2, 0.5, 1 - (1 - epsilon) ** 2))


def nearest_cosine_quantiles(quantiles: npt.ArrayLike, k: int, d: int) -> npt.NDArray[np.float64]:
    """Quantiles of the nearest cosine of one of k random directions.

    The k - 1 cosines of one direction with the others are independent, so the largest is below c
    with probability (1 - P(cos > c))^(k-1); this inverts that.

    Args:
        quantiles: Probabilities strictly between 0 and 1.
        k: Number of directions, at least 2.
        d: Dimension, at least 1.

    Returns:
        One cosine per quantile; the median is 0.2325 for k = 8192, d = 256.
    """
    tail = -np.expm1(np.log(np.asarray(quantiles, dtype=np.float64)) / (k - 1))
    if d == 1:
        return np.where(tail < 0.5, 1.0, -1.0)
    share = betaincinv((d - 1) / 2, 0.5, 2 * np.minimum(tail, 1 - tail))
    cosine = np.sqrt(1 - share)
    return np.asarray(np.where(tail <= 0.5, cosine, -cosine))
