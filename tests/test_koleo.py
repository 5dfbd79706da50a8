"""The KoLeo losses against closed forms, a plain loop and published constants."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from collapse_audit.errors import ParameterError
from collapse_audit.koleo import koleo_data_loss, koleo_proto_loss, nearest_neighbours


def by_definition(weight: torch.Tensor) -> float:
    rows = [[float(v) for v in row] for row in weight.double()]
    rows = [[v / math.hypot(*row) for v in row] for row in rows]
    nearest = [min(math.dist(a, b) for b in rows[:i] + rows[i + 1 :]) for i, a in enumerate(rows)]
    return -sum(math.log(d) for d in nearest) / len(rows)


def count_unique(weight: torch.Tensor, epsilon: float = 0.025) -> int:
    rows = functional.normalize(weight.detach().double(), dim=1)
    leaders: list[torch.Tensor] = []
    for row in rows:
        if not leaders or bool((torch.stack(leaders) @ row <= 1 - epsilon).all()):
            leaders.append(row)
    return len(leaders)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([[0.0, 1.0], [0.0, -1.0]], -math.log(2)),
        ([[0.0, 1.0], [1.0, 0.0]], -math.log(2**0.5)),
        # the value DINOv2's own implementation gives, as quoted by lightly's tests
        ([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]], 0.2674),
    ],
)
def test_closed_forms_and_published_constants(weight: list[list[float]], expected: float) -> None:
    assert koleo_proto_loss(torch.tensor(weight)).item() == pytest.approx(expected, rel=1e-4)
    assert koleo_data_loss(torch.tensor(weight)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("k", "d"), [(2, 1 + 1), (7, 3), (65, 16), (300, 8)])
def test_the_value_is_that_of_a_plain_loop(k: int, d: int) -> None:
    weight = torch.randn(k, d, generator=torch.Generator().manual_seed(k)) * 3
    expected = by_definition(weight)
    assert koleo_proto_loss(weight).item() == pytest.approx(expected, rel=1e-5)
    assert koleo_proto_loss(weight.double()).item() == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(2, 5), st.integers(1, 12), st.integers(0, 9))
def test_neighbours_do_not_depend_on_the_block_size(k: int, d: int, block: int, seed: int) -> None:
    rows = torch.randn(k, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = functional.normalize(rows, dim=1)
    distance = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    found = nearest_neighbours(rows, block_rows=block)
    assert (found != torch.arange(k)).all()
    torch.testing.assert_close(distance[torch.arange(k), found], distance.amin(dim=1))


def test_antipodes_are_neighbours_of_each_other_and_not_of_themselves() -> None:
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert nearest_neighbours(rows).tolist() == [1, 0]


def test_gradients_are_those_of_finite_differences() -> None:
    weight = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight.requires_grad_()
    assert torch.autograd.gradcheck(koleo_proto_loss, (weight,))
    x = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x.requires_grad_()
    assert torch.autograd.gradcheck(koleo_data_loss, (x,))


def test_gradients_below_the_floor_still_point_uphill() -> None:
    weight = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weight[1] = weight[0] + 2e-2 * torch.tensor([0.0, 1.0, -1.0, 0.0])
    weight.requires_grad_()
    # below the floor the tie-breaker bends the gradient: it must still point uphill
    (gradient,) = torch.autograd.grad(koleo_proto_loss(weight, floor=0.5), weight)
    step = 1e-3 * functional.normalize(gradient, dim=None)
    with torch.no_grad():
        rise = koleo_proto_loss(weight + step, floor=0.5) - koleo_proto_loss(weight, floor=0.5)
    assert rise > 0


def test_views_are_summed_and_never_compared() -> None:
    x = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(4))
    same = torch.stack([x[0], x[0]])  # compared across views, this would be a batch of copies
    single = koleo_data_loss(x[0])
    torch.testing.assert_close(koleo_data_loss(same), 2 * single)
    torch.testing.assert_close(koleo_data_loss(x), single + koleo_data_loss(x[1]))


def test_half_as_many_antipodal_pairs_score_worse_than_distinct_rows() -> None:
    # K/2 copies of mu and K/2 of -mu maximise the summed squared distances, yet only two of them
    # are unique: an honest loss prefers any set of distinct rows.
    mu = functional.normalize(torch.randn(1, 16, generator=torch.Generator().manual_seed(5)), dim=1)
    pairs = torch.cat([mu.repeat(32, 1), -mu.repeat(32, 1)])
    distinct = functional.normalize(
        torch.randn(64, 16, generator=torch.Generator().manual_seed(6)), dim=1
    )
    assert (
        torch.cdist(pairs, pairs).square().sum() >= torch.cdist(distinct, distinct).square().sum()
    )
    assert koleo_proto_loss(pairs) > koleo_proto_loss(distinct) + 5


def test_copies_cost_a_finite_and_bounded_amount() -> None:
    weight = torch.ones(100, 8, requires_grad=True)
    loss = koleo_proto_loss(weight)
    loss.backward()
    assert loss.item() == pytest.approx(1 - math.log(1e-3), rel=1e-6)
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize(("directions", "copies"), [(200, 2), (200, 3), (120, 5), (50, 20)])
def test_exact_copies_part(directions: int, copies: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(directions, 64, generator=generator).repeat(copies, 1).requires_grad_()
    assert count_unique(weight) == directions
    optimiser = torch.optim.AdamW([weight], lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        koleo_proto_loss(weight).backward()
        optimiser.step()
    assert count_unique(weight) == directions * copies


def test_the_gradient_is_a_function_of_the_weights_alone() -> None:
    weight = torch.randn(20, 8).repeat(3, 1).requires_grad_()
    first = torch.autograd.grad(koleo_proto_loss(weight), weight)[0]
    torch.randn(7)  # somebody else draws numbers in between
    torch.testing.assert_close(
        torch.autograd.grad(koleo_proto_loss(weight), weight)[0], first, rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_compared_in_float32(dtype: torch.dtype) -> None:
    weight = torch.randn(64, 16, generator=torch.Generator().manual_seed(7)).to(dtype)
    expected = by_definition(weight)
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = koleo_proto_loss(weight)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == dtype


def test_autocast_does_not_lower_the_precision() -> None:
    weight = torch.randn(64, 16, generator=torch.Generator().manual_seed(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = koleo_proto_loss(weight)
    torch.testing.assert_close(inside, koleo_proto_loss(weight), rtol=0, atol=0)


def test_inputs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"at least two rows to compare, got 1.*Raise K"):
        koleo_proto_loss(torch.ones(1, 4))
    with pytest.raises(ParameterError, match="Raise the batch size to 2"):
        koleo_data_loss(torch.ones(3, 1, 4))
    with pytest.raises(ParameterError, match="at least one view"):
        koleo_data_loss(torch.ones(0, 4, 8))
    with pytest.raises(ParameterError, match=r"matrix of prototypes .* got \(4, 0\)"):
        koleo_proto_loss(torch.ones(4, 0))
    with pytest.raises(ParameterError, match=r"matrix of prototypes .* got \(4,\)"):
        koleo_proto_loss(torch.ones(4))
    with pytest.raises(ParameterError, match=r"torch\.int64"):
        koleo_proto_loss(torch.ones(4, 4, dtype=torch.int64))
    with pytest.raises(ParameterError, match="floor must be a distance between 0 and 1, got 0"):
        koleo_proto_loss(torch.ones(4, 4), floor=0)


MEMORY_PROBE = """
import resource, sys, torch
from collapse_audit.koleo import koleo_proto_loss
import collapse_audit.koleo as koleo
k, d = int(sys.argv[1]), int(sys.argv[2])
weight = torch.randn(k, d, requires_grad=True)
weight.grad = torch.zeros_like(weight)
koleo_proto_loss(weight[:4096]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
koleo_proto_loss(weight).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_above_the_weights_is_below_a_gigabyte_at_the_largest_head() -> None:
    command = [sys.executable, "-c", MEMORY_PROBE, "65536", "32"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    # Half of K and d = 32 keep the search short: at K = 131,072 the search needs at most four times
    # as much, and the four K x D tensors of d = 256 add 4 x 117 MB.
    kilobytes = int(result.stdout)  # ru_maxrss on Linux
    assert 4 * kilobytes * 1024 + 4 * 131072 * (256 - 32) * 4 < 1e9
