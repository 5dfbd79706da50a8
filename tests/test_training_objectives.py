"""Objectives against plain loops in float64, POT, SciPy and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ive
from torch import Tensor

from collapse_audit.mlcd.vmf import vmf_log_normaliser
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.objectives import (
    Objective,
    PatchCrossEntropy,
    make_objective,
    sinkhorn_knopp,
)

K = 7


def config(objective: str, **settings: object) -> HeadTrainingConfig:
    return HeadTrainingConfig.from_mapping({"objective": objective, "k": K} | settings)


def logits(views: int, n: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(views, n, K, dtype=torch.float64, generator=draw)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(v - top) for v in values]
    return [w / sum(weights) for w in weights]


def dino_by_definition(
    steps: list[tuple[Tensor, Tensor]], student_t: float, teacher_t: float, momentum: float
) -> tuple[list[float], list[float]]:
    """Losses of an epoch and the centre it ends with, in plain loops."""
    centre = [0.0] * K
    losses = []
    for student, teacher in steps:
        terms = []
        for t, view in enumerate(teacher.tolist()):
            for s, other in enumerate(student.tolist()):
                if t == s:
                    continue
                for row, seen in zip(view, other, strict=True):
                    p = softmax([(v - c) / teacher_t for v, c in zip(row, centre, strict=True)])
                    q = softmax([v / student_t for v in seen])
                    terms.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
        losses.append(sum(terms) / len(terms))
        rows = [row for view in teacher.tolist() for row in view]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        centre = [momentum * c + (1 - momentum) * m for c, m in zip(centre, mean, strict=True)]
    return losses, centre


def test_an_epoch_of_the_dino_objective_is_that_of_plain_loops() -> None:
    steps = [(logits(4, 5, 2 * i), logits(2, 5, 2 * i + 1)) for i in range(6)]
    expected, centre = dino_by_definition(steps, 0.1, 0.04, 0.9)
    objective = make_objective(config("dino"))
    found = [objective(student, teacher).item() for student, teacher in steps]
    assert found == pytest.approx(expected, rel=1e-6)  # the centre is kept in float32
    np.testing.assert_allclose(objective.centre.numpy(), centre, rtol=1e-5, atol=1e-7)


def test_probability_centring_divides_by_the_running_mean_probability() -> None:
    objective = make_objective(config("probability-centring", centre_momentum=0.0))
    teacher = logits(2, 5, 1) / 0.04
    first = objective.targets(teacher)
    torch.testing.assert_close(first, teacher.softmax(-1))  # nothing is known before the first
    mean = first.mean(dim=(0, 1))
    weighted = teacher.softmax(-1) / mean
    expected = weighted / weighted.sum(-1, keepdim=True)
    torch.testing.assert_close(objective.targets(teacher), expected, rtol=1e-4, atol=1e-7)


def test_sinkhorn_targets_are_the_plan_of_optimal_transport() -> None:
    ot = pytest.importorskip("ot")
    scores = logits(1, 12, 3)[0] / 0.5
    plan = ot.sinkhorn(
        np.full(12, 1 / 12), np.full(K, 1 / K), -scores.numpy(), reg=1.0, stopThr=1e-14
    )
    np.testing.assert_allclose(sinkhorn_knopp(scores, 200).numpy(), 12 * plan, atol=1e-10)


def test_three_sinkhorn_iterations_are_those_of_swav() -> None:
    scores = logits(1, 12, 4)[0]
    q = scores.exp().T / scores.exp().sum()
    for _ in range(3):  # SwAV's distributed_sinkhorn: prototypes, then samples
        q = q / q.sum(dim=1, keepdim=True) / K
        q = q / q.sum(dim=0, keepdim=True) / 12
    torch.testing.assert_close(sinkhorn_knopp(scores, 3), (q * 12).T)


def test_sinkhorn_does_not_overflow_where_exp_does() -> None:
    plan = sinkhorn_knopp(torch.randn(8, K) * 1e4, 3)
    assert torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum(dim=1), torch.ones(8))


def test_sinkhorn_gives_copies_their_share_of_the_prototypes() -> None:
    # two copies of one direction among four rows end with half of the mass: the class
    # distribution over K looks uniform while that over unique prototypes is not
    base = logits(1, 50, 5)[0][:, :3]
    scores = torch.cat([base[:, :1], base], dim=1)
    share = sinkhorn_knopp(scores, 300).mean(dim=0)
    torch.testing.assert_close(share, torch.full((4,), 0.25, dtype=torch.float64))


def mean_prediction(student: Tensor) -> list[float]:
    rows = [softmax([v / 0.1 for v in row]) for view in student.tolist() for row in view]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_me_max_adds_log_k_minus_the_entropy_of_the_mean_prediction() -> None:
    student, teacher = logits(2, 5, 6), logits(2, 5, 7)
    p = mean_prediction(student)
    expected = math.log(K) + sum(v * math.log(v) for v in p)
    plain = Objective(config("me-max"))(student, teacher)
    found = make_objective(config("me-max"))(student, teacher) - plain
    assert found.item() == pytest.approx(expected, rel=1e-5)
    half = make_objective(config("me-max", prior_weight=0.5))(student, teacher) - plain
    assert half.item() == pytest.approx(expected / 2, rel=1e-5)


def test_the_power_law_term_is_kl_from_the_mean_prediction_to_the_prior() -> None:
    student, teacher = logits(2, 5, 8), logits(2, 5, 9)
    weights = [k**-0.25 for k in range(1, K + 1)]
    prior = [w / sum(weights) for w in weights]
    p = mean_prediction(student)
    expected = sum(a * math.log(a / b) for a, b in zip(p, prior, strict=True))
    found = make_objective(config("pmsn"))(student, teacher)
    found = found - Objective(config("pmsn"))(student, teacher)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_uniform_student_costs_log_k_whatever_the_teacher_says() -> None:
    for name in ("dino", "probability-centring", "sinkhorn", "me-max"):
        loss = make_objective(config(name))(torch.zeros(2, 5, K), logits(2, 5, 10))
        assert loss.item() == pytest.approx(math.log(K), rel=1e-5)


@pytest.mark.parametrize("name", ["dino", "probability-centring", "sinkhorn", "me-max", "pmsn"])
def test_gradients_reach_the_student_and_are_those_of_finite_differences(name: str) -> None:
    teacher = logits(2, 3, 12)

    def loss(student: Tensor) -> Tensor:
        result: Tensor = make_objective(config(name))(student, teacher)
        return result

    student = logits(2, 3, 11).requires_grad_()
    assert torch.autograd.gradcheck(loss, (student,))


def test_the_teacher_receives_no_gradient() -> None:
    teacher = logits(2, 3, 13).requires_grad_()
    student = logits(2, 3, 14).requires_grad_()
    make_objective(config("dino"))(student, teacher).backward()
    assert teacher.grad is None


def test_the_patch_term_averages_masked_tokens_within_an_image_first() -> None:
    student, teacher = logits(2, 4, 15), logits(2, 4, 16)
    mask = torch.tensor([[True, True, True, False], [False, True, False, False]])
    images = []
    for i in range(2):
        terms = []
        for j in range(4):
            if mask[i, j]:
                p = softmax([v / 0.04 for v in teacher[i, j].tolist()])
                q = softmax([v / 0.1 for v in student[i, j].tolist()])
                terms.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
        images.append(sum(terms) / len(terms))
    found = PatchCrossEntropy(make_objective(config("dino")))(student, teacher, mask)
    assert found.item() == pytest.approx(sum(images) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("d", "tolerance"), [(3, 0.1), (4, 0.015), (8, 6e-4), (16, 5e-5), (64, 1e-6), (256, 1e-8)]
)
def test_the_vmf_normaliser_is_that_of_scipys_bessel_function(d: int, tolerance: float) -> None:
    kappa = np.geomspace(0.5, 500, 20)
    order = d / 2 - 1
    with np.errstate(divide="ignore"):
        log_bessel = np.log(ive(order, kappa)) + kappa
    expected = order * np.log(kappa) - log_bessel - d / 2 * math.log(2 * math.pi)
    finite = np.isfinite(expected)
    assert finite.sum() >= 5
    found = vmf_log_normaliser(torch.from_numpy(kappa), d).numpy()
    np.testing.assert_allclose(found[finite], expected[finite], atol=tolerance)


def test_equal_row_norms_make_the_vmf_normaliser_irrelevant() -> None:
    student, teacher = logits(2, 5, 17), logits(2, 5, 18)
    ones = torch.ones(K, dtype=torch.float64)
    plain = make_objective(config("sinkhorn"))(student, teacher)
    normalised = make_objective(config("sinkhorn"))(
        student, teacher, student_kappa=ones, teacher_kappa=ones, d=64
    )
    torch.testing.assert_close(normalised, plain)
