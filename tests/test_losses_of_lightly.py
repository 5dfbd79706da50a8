"""Losses and gradients against lightly's, an independent implementation of the same papers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from collapse_audit.koleo import koleo_data_loss, koleo_proto_loss
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.objectives import Objective, make_objective, sinkhorn_knopp

lightly = pytest.importorskip("lightly.loss")

K = 33


def rows(*shape: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize(("k", "d"), [(2, 3), (65, 16), (400, 32)])
@pytest.mark.parametrize("loss", [koleo_proto_loss, koleo_data_loss])
def test_koleo_and_its_gradient(loss, k, d):
    ours, theirs = (rows(k, d, seed=k).requires_grad_() for _ in range(2))
    found, expected = loss(ours), lightly.KoLeoLoss(eps=1e-12)(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient(found, ours), gradient(expected, theirs))


def test_an_epoch_of_the_dino_objective_with_its_centre_and_gradients():
    reference = lightly.DINOLoss(output_dim=K, teacher_temp=0.04, student_temp=0.1)
    objective = make_objective(HeadTrainingConfig(objective="dino", k=K))
    for step in range(5):
        student, teacher = rows(6, 9, K, seed=step), rows(2, 9, K, seed=100 + step)
        ours, theirs = (student.clone().requires_grad_() for _ in range(2))
        found = objective(ours, teacher)
        expected = reference(list(teacher), list(theirs))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(
            gradient(found, ours), gradient(expected, theirs), rtol=1e-5, atol=1e-9
        )
    torch.testing.assert_close(objective.centre.double(), reference.center[0, 0].double())


def test_the_mean_entropy_term_of_msn():
    config = HeadTrainingConfig(objective="me-max", k=K)
    student, teacher = rows(2, 9, K, seed=1), rows(2, 9, K, seed=2)
    mean = (student / config.student_temperature).softmax(dim=-1).mean(dim=(0, 1))
    found = make_objective(config)(student, teacher) - Objective(config)(student, teacher)
    expected = lightly.MSNLoss().regularization_loss(mean)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_the_sinkhorn_targets_of_swav(iterations):
    from lightly.loss.swav_loss import sinkhorn

    scores = rows(24, K, seed=3)
    expected = sinkhorn(scores, iterations=iterations, epsilon=0.5)
    torch.testing.assert_close(sinkhorn_knopp(scores / 0.5, iterations), expected)
