"""The online mixture against its limits and scikit-learn's."""

import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.decoupled import OnlineGaussianMixture
from collapse_audit.training.heads import make_network
from collapse_audit.training.regularisers import make_regulariser


def planted(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(4, 8, generator=draw), dim=1)
    points = centres[torch.randint(4, (n,), generator=draw)]
    return centres, points + 0.05 * torch.randn(n, 8, generator=draw)


def test_responsibilities_are_those_of_scikit_learn() -> None:
    centres, points = planted(50)
    mixture = OnlineGaussianMixture(4, 8, forgetting=0.1)
    mixture.start_at(centres)
    for _ in range(20):
        mixture.update(points)
    peer = GaussianMixture(4, covariance_type="diag")
    peer.weights_ = mixture.shares.double().numpy()
    peer.means_ = mixture.means.double().numpy()
    peer.covariances_ = mixture.variances.double().numpy()
    peer.precisions_cholesky_ = peer.covariances_**-0.5
    np.testing.assert_allclose(
        mixture.responsibilities(points).numpy(), peer.predict_proba(points.numpy()), atol=1e-4
    )


def test_means_find_planted_clusters() -> None:
    centres, points = planted(4000)
    mixture = OnlineGaussianMixture(4, 8, forgetting=0.05)
    mixture.start_at(centres + 0.2 * torch.randn(4, 8, generator=torch.Generator().manual_seed(1)))
    for batch in points.split(40):
        mixture.update(batch)
    torch.testing.assert_close(mixture.means, centres, atol=0.05, rtol=0)


def test_a_component_without_responsibility_stays_where_it_is() -> None:
    centres, points = planted(400)
    mixture = OnlineGaussianMixture(5, 8, forgetting=0.1)
    far = -10 * torch.ones(1, 8)
    mixture.start_at(torch.cat([centres, far]))
    mixture.means[4] = far
    mixture.squares[4] = far.square() + 0.125
    before = mixture.means[4].clone()
    for batch in points.split(40):
        mixture.update(batch)
    torch.testing.assert_close(mixture.means[4], before, rtol=0, atol=1e-6)
    assert mixture.shares[4] < 0.1


def test_zero_sharpness_shares_every_point_evenly() -> None:
    _, points = planted(10)
    mixture = OnlineGaussianMixture(4, 8, forgetting=0.1)
    mixture.start_at(torch.randn(4, 8))
    torch.testing.assert_close(
        mixture.responsibilities(points, sharpness=0.0), torch.full((10, 4), 0.25)
    )


def test_decoupled_prototypes_receive_no_gradient_and_follow_the_mixture() -> None:
    config = HeadTrainingConfig(k=16, d=8, hidden=16, regulariser="decoupled")
    student = make_network(config, 4, images=False)
    teacher = make_network(config, 4, images=False)
    regulariser = make_regulariser(config)
    samples = torch.randn(16, 4)
    regulariser.prepare(student, samples)
    torch.testing.assert_close(regulariser.mixture.means, student.head.bottleneck(samples).detach())
    assert not student.prototypes.requires_grad
    regulariser.adapt(torch.randn(2, 10, 8), student, teacher, done=0.2)
    torch.testing.assert_close(student.prototypes, teacher.prototypes, rtol=0, atol=0)
    assert regulariser(torch.randn(2, 10, 4), student.prototypes).item() == 0
