"""What K independent random directions would show: the null that measurements are read against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincinv


def duplicate_probability(epsilon: float, d: int) -> float:
    """Probability that two random directions in d dimensions are closer than epsilon."""
    # I_x((d - 1) / 2, 1/2) / 2 at x = 1 - (1 - epsilon)^2: the share of the sphere in a cap of that
    # cosine, with I the regularised incomplete beta function (Li 2011, Concise formulas for the
    # area and volume of a hyperspherical cap).
    if d == 1:
        return 0.5
    return float(0.5 * betainc((d - 1) / 2, 0.5, 1 - (1 - epsilon) ** 2))


def expected_n_eff(epsilon: float, k: int, d: int) -> float:
    """Mean of N_eff for k random directions in d dimensions."""
    # The others within epsilon of one direction are binomial with this p, because the cosines with
    # it are independent, and the mean of 1 / (1 + B) is (1 - (1 - p)^k) / (k p).
    p = duplicate_probability(epsilon, d)
    return float(k) if k * p < 1e-12 else float(-np.expm1(k * np.log1p(-p)) / p)


def nearest_cosine_quantiles(quantiles: npt.ArrayLike, k: int, d: int) -> npt.NDArray[np.float64]:
    """Quantiles, in (0, 1), of the nearest cosine of one of k random directions in d dimensions."""
    # The k - 1 cosines of one direction with the others are independent, so the largest is below c
    # with probability (1 - P(cos > c))^(k-1); this inverts that.
    tail = -np.expm1(np.log(np.asarray(quantiles, dtype=np.float64)) / (k - 1))
    if d == 1:
        return np.where(tail < 0.5, 1.0, -1.0)
    share = betaincinv((d - 1) / 2, 0.5, 2 * np.minimum(tail, 1 - tail))
    cosine = np.sqrt(1 - share)
    return np.asarray(np.where(tail <= 0.5, cosine, -cosine))
