"""FeatureAccumulator: features, batch by batch -> FeatureSpread: how many directions they fill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.errors import ParameterError
from collapse_audit.mlcd.statistics import Vector

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from collapse_audit.report.documents import FeaturesDocument

RANKME_CONSTANT = 1e-7
"""What Garrido et al. 2023 (arXiv 2210.02885) add to each share, for float32."""

_PAIRS = 4096  # samples whose pairs uniformity is taken over: 8 million pairs
_BLOCK = 1024  # of their rows at once
_CONSTANT = 1e-13  # spread over size, below which features differ by the rounding of their mean


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSpread:
    """How many directions n features of d dimensions fill, and how evenly.

    A number that is undefined (one sample, or features that are all the same) is NaN.

    Attributes:
        n: Number of samples; RankMe grows with it, so compare only at equal n.
        d: Dimension.
        unit_norm: Whether the features were scaled to unit norm first.
        singular_values: Of the n x d features as they are (the first min(n, d), falling, float64).
        centred_singular_values: The same of the features minus their mean.
        uniformity: Log of the mean of exp(-2 distance^2) over pairs of features of unit norm (Wang
            and Isola 2020): 0 if all are the same, about -4 + 8 / d on a uniform sphere.
        uniformity_n: Number of samples whose pairs these are: all, or a random choice of 4,096.
    """

    n: int
    d: int
    unit_norm: bool
    singular_values: Vector
    centred_singular_values: Vector
    uniformity: float
    uniformity_n: int

    def rankme(
        self, *, centred: bool = False, power: int = 1, constant: float = RANKME_CONSTANT
    ) -> float:
        r"""RankMe; by default as in its paper (Garrido et al. 2023, arXiv 2210.02885).

        .. math:: \exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad
                  p_k = \frac{s_k^a}{\sum_j s_j^a} + c

        Args:
            centred: Whether s are the singular values of the features minus their mean.
            power: a; with 2 the shares are those of the variance.
            constant: c; the paper's is 1e-7, and the shares are not divided by their sum again.

        Returns:
            About 1 to min(n, d).
        """
        from scipy.special import entr  # heavy

        values = (self.centred_singular_values if centred else self.singular_values) ** power
        total = float(values.sum())
        return math.exp(entr(values / total + constant).sum()) if total > 0 else math.nan

    @property
    def participation_ratio(self) -> float:
        """(sum of the eigenvalues of the covariance)^2 / sum of their squares, from 1 to d."""
        total = float((self.centred_singular_values**2).sum())
        if not total > 0:
            return math.nan
        return 1 / float(((self.centred_singular_values**2 / total) ** 2).sum())

    def to_dict(self) -> FeaturesDocument:
        """The numbers in plain values; NaN becomes ``None``, which JSON can hold."""
        return {
            "n": self.n,
            "d": self.d,
            "unit_norm": self.unit_norm,
            "rankme_uncentred_1e-7": _finite(self.rankme()),
            "rankme_centred_1e-7": _finite(self.rankme(centred=True)),
            "participation_ratio_centred": _finite(self.participation_ratio),
            "uniformity_t2": _finite(self.uniformity),
            "uniformity_n": self.uniformity_n,
        }


class FeatureAccumulator:
    """RankMe, participation ratio and uniformity of a stream of features, from d x d numbers.

    It keeps the mean and the scatter matrix around it (d x d, float64, on the device of the first
    features), and up to 4,096 samples for uniformity. Singular values that come from a d x d matrix
    have half the digits of an SVD: they are within about 1e-8 of the largest one, and RankMe within
    1e-4 of its value; of trained features it agrees to 10 digits.

        >>> found = FeatureAccumulator().update(np.eye(4)).result()
        >>> round(found.rankme(), 3), round(found.rankme(centred=True), 3)
        (4.0, 3.0)

    Args:
        normalize: Scale features to unit norm first.
        seed: Of the choice of samples for uniformity where there are more than 4,096.
    """

    def __init__(self, *, normalize: bool = False, seed: int = 0) -> None:
        self._normalize = normalize
        self._random = np.random.default_rng(seed)
        self._n = 0
        self._mean: Tensor = torch.zeros(0, dtype=torch.float64)
        self._scatter: Tensor = torch.zeros(0, 0, dtype=torch.float64)
        self._kept: Tensor = torch.zeros(0, 0)  # unit features, of the smallest draws
        self._draws = np.zeros(0)

    @property
    def n(self) -> int:
        """Number of samples so far."""
        return self._n

    def update(self, x: npt.ArrayLike | Tensor) -> Self:
        """Add samples.

        Args:
            x: Features (n x d), numpy or torch; d is that of the first ones.

        Returns:
            The accumulator.

        Raises:
            ParameterError: If they are no matrix of that width, or not finite.
        """
        given = torch.as_tensor(x).detach()
        if given.ndim != 2 or not given.shape[1] or (self._n and given.shape[1] != len(self._mean)):
            width = len(self._mean) if self._n else "d"
            raise ParameterError(f"features must be n x {width}, got shape {tuple(given.shape)}.")
        if not len(given):
            return self
        rows = given.to(self._mean.device if self._n else given.device, torch.float64)
        if not torch.isfinite(rows).all():
            raise ParameterError(
                "features hold NaN or infinite values.",
                hint="Run the backbone in float32 and look at that image.",
            )
        unit = torch.nn.functional.normalize(rows, dim=1, eps=1e-12)
        rows = unit if self._normalize else rows
        mean = rows.mean(dim=0)
        self._shift(len(rows), mean)
        rows = rows - mean
        self._scatter.addmm_(rows.T, rows)
        self._keep(unit.to("cpu", torch.float32), self._random.random(len(rows)))
        return self

    def merge(self, other: FeatureAccumulator) -> Self:
        """Add the samples of another accumulator, which stays as it is.

        Args:
            other: One of features of the same kind, with a seed of its own.

        Returns:
            The accumulator.

        Raises:
            ParameterError: If the two measure different things.
        """
        widths = {len(part._mean) for part in (self, other) if part.n}
        if self._normalize != other._normalize or len(widths) > 1:
            raise ParameterError(
                "only accumulators of features of the same dimension and norm can be merged."
            )
        if other.n:
            place = self._mean.device if self._n else other._mean.device
            self._shift(other.n, other._mean.to(place))
            self._scatter += other._scatter.to(place)
            self._keep(other._kept, other._draws)
        return self

    def result(self) -> FeatureSpread:
        """The numbers of the samples so far (none: ParameterError); more can be added later."""
        if self._n < 1:
            raise ParameterError("no samples: call update with at least one row first.")
        n, d = self._n, len(self._mean)
        mean, scatter = self._mean.cpu().numpy(), self._scatter.cpu().numpy()
        around_zero = scatter + n * np.outer(mean, mean)
        if np.trace(scatter) <= _CONSTANT**2 * np.trace(around_zero):
            scatter = np.zeros_like(scatter)
        return FeatureSpread(
            n=n,
            d=d,
            unit_norm=self._normalize,
            singular_values=_singular_values(around_zero, n),
            centred_singular_values=_singular_values(scatter, n),
            uniformity=_uniformity(self._kept),
            uniformity_n=len(self._kept),
        )

    def _shift(self, n: int, mean: Tensor) -> None:
        """Count in a set by its size and mean; its own scatter is still to be added."""
        # Chan, Golub and LeVeque 1983. Not the sums of x and of x x^T: a mean far from 0 would
        # cost the centred singular values digits.
        if not self._n:
            self._n, self._mean = n, mean
            self._scatter = mean.new_zeros(len(mean), len(mean))
            return
        total, shift = self._n + n, mean - self._mean
        self._scatter.addr_(shift, shift, alpha=self._n * n / total)
        self._n, self._mean = total, self._mean + shift * (n / total)

    def _keep(self, rows: Tensor, draws: Vector) -> None:
        """Keep the samples with the smallest draws: those of two parts are those of the whole."""
        draws = np.concatenate([self._draws, draws])
        rows = torch.cat([self._kept, rows]) if len(self._kept) else rows
        if len(draws) > _PAIRS:
            chosen = np.sort(np.argpartition(draws, _PAIRS)[:_PAIRS])
            rows, draws = rows[torch.from_numpy(chosen)], draws[chosen]
        self._kept, self._draws = rows, draws


def _singular_values(scatter: Vector, n: int) -> Vector:
    """Of the matrix of n rows that a d x d sum of x x^T is of, falling."""
    squares = np.linalg.eigvalsh(scatter)[::-1][: min(n, len(scatter))]
    values: Vector = np.sqrt(np.maximum(squares, 0.0))
    return values


def _uniformity(unit: Tensor) -> float:
    """Log of the mean of exp(-2 |x - y|^2) over all pairs of unit rows, in float64."""
    n, total = len(unit), 0.0
    if n < 2 or not unit.any():  # zeros have no direction
        return math.nan
    for start in range(0, n, _BLOCK):
        block, later = unit[start : start + _BLOCK].double(), unit[start:].double()
        # on the diagonal and left of it are no pairs, or those of another block
        powers = torch.exp(-2 * torch.cdist(block, later).square())
        total += float(powers.triu(diagonal=1).sum())
    return math.log(total / (n * (n - 1) / 2))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
