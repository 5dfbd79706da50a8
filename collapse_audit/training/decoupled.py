"""Prototypes estimated apart from the loss: an online Gaussian mixture on teacher features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class OnlineGaussianMixture(nn.Module):
    r"""Mixture with diagonal covariances whose means serve as prototypes.

    Decoupling names the cause of partial prototype collapse: prototypes and encoder minimise one
    loss together. Here a clustering objective of its own fixes the prototypes, on teacher features,
    and the encoder learns with them held still.

    The idea, the responsibility-based forgetting and the annealing are those of the decoupling
    paper; its update equations were not at hand. **What follows is our reconstruction, the standard
    online EM** (Cappe and Moulines 2009) with a rate per component:

    .. math::
        \gamma_{ik} &\propto \left[\pi_k\, N(h_i; \mu_k, \Sigma_k)\right]^\beta, \qquad
        n_k = \sum_i \gamma_{ik}, \qquad \rho_k = 1 - (1 - \eta)^{n_k} \\
        m_k &\leftarrow (1 - \rho_k)\, m_k + \rho_k \sum_i \gamma_{ik} h_i / n_k
        \quad \text{(and likewise the second moments)} \\
        \pi_k &\leftarrow (1 - \eta)\, \pi_k + \eta\, n_k / n

    A component that takes no responsibility forgets nothing and stays where it is.
    """

    means: Tensor  # of the components (k x d)
    squares: Tensor  # running second moments (k x d)
    shares: Tensor  # mixture weights (k)

    def __init__(self, k: int, d: int, *, forgetting: float) -> None:
        super().__init__()
        self.forgetting = forgetting  # the rate eta in [0, 1]; the trainer's 0.01 is our choice
        # features have unit norm, so one coordinate's variance is about 1/d; a hundredth of that
        # keeps a component with a single point from taking everything
        self.least_variance = 0.01 / d
        self.register_buffer("means", torch.zeros(k, d))
        self.register_buffer("squares", torch.zeros(k, d))
        self.register_buffer("shares", torch.full((k,), 1 / k))

    @torch.no_grad()
    def start_at(self, points: Tensor) -> None:
        """Put the means on points (k x d), no two the same, each with the spread of all of them."""
        # two components at one point would never part
        self.means.copy_(points)
        self.squares.copy_(points.square() + points.var(dim=0))

    @property
    def variances(self) -> Tensor:
        """Diagonal covariances (k x d)."""
        return (self.squares - self.means.square()).clamp_min(self.least_variance)

    def responsibilities(self, features: Tensor, *, sharpness: float = 1.0) -> Tensor:
        """Posterior (n x k) of points (n x d), softened by annealing."""
        # sharpness is the inverse temperature beta: 1 is the posterior itself, 0 uniform
        precision = 1 / self.variances
        distance = features.square() @ precision.T - 2 * features @ (self.means * precision).T
        distance = distance + (self.means.square() * precision).sum(dim=1)
        log_density = 0.5 * (precision.log().sum(dim=1) - distance)
        log_density = log_density - 0.5 * features.shape[1] * math.log(2 * math.pi)
        return (sharpness * (self.shares.log() + log_density)).softmax(dim=1)

    @torch.no_grad()
    def update(self, features: Tensor, *, sharpness: float = 1.0) -> None:
        """One step of online EM on teacher features (n x d)."""
        posterior = self.responsibilities(features, sharpness=sharpness)
        count = posterior.sum(dim=0)
        rate = -torch.expm1(count * math.log1p(-min(self.forgetting, 1 - 1e-7)))
        # a component without responsibility has rate 0: its mean over no points is never used
        per_point = posterior / count.clamp_min(torch.finfo(count.dtype).tiny)
        self.means.lerp_(per_point.T @ features, rate[:, None])
        self.squares.lerp_(per_point.T @ features.square(), rate[:, None])
        self.shares.lerp_(count / len(features), self.forgetting)
