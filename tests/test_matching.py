"""Prototypes of two heads matched by cosine."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from collapse_audit import ParameterError, Prototypes, audit, match_prototypes
from collapse_audit import matching as module

Rows = npt.NDArray[np.float64]


def directions(k: int, d: int = 8, *, seed: int = 0) -> Rows:
    rows: Rows = np.random.default_rng(seed).standard_normal((k, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@st.composite
def two_sets(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Rows of small whole numbers, so that copies and equal cosines are common."""
    d = draw(st.integers(1, 3))
    row = st.lists(st.integers(-2, 2), min_size=d, max_size=d).filter(any)
    sets = [draw(st.lists(row, min_size=2, max_size=5)) for _ in range(2)]
    return np.array(sets[0], dtype=np.float64), np.array(sets[1], dtype=np.float64)


def cosine(u: Rows, v: Rows) -> float:
    return float(sum(x * y for x, y in zip(u, v, strict=True)) / np.sqrt((u @ u) * (v @ v)))


def best_mean(a: Rows, b: Rows) -> float:
    """The largest mean cosine of one-to-one pairs, by trying them all."""
    short, long = sorted((a, b), key=len)
    choices = itertools.permutations(range(len(long)), len(short))
    return max(
        sum(cosine(u, long[j]) for u, j in zip(short, choice, strict=True)) / len(short)
        for choice in choices
    )


@given(two_sets())
@settings(deadline=None)
def test_matchings_equal_their_definition_in_plain_loops(sets: tuple[Rows, Rows]) -> None:
    a, b = sets
    found = match_prototypes(a, b)
    for own, other, nearest, largest in (
        (a, b, found.nearest_in_b, found.cosine_to_b),
        (b, a, found.nearest_in_a, found.cosine_to_a),
    ):
        for i, u in enumerate(own):
            cosines = [cosine(u, v) for v in other]
            first = next(j for j, value in enumerate(cosines) if value > max(cosines) - 1e-9)
            assert nearest[i] == first
            assert largest[i] == pytest.approx(max(cosines))
    assert found.pw_mcc == pytest.approx(best_mean(a, b))
    assert found.partner is not None
    assert found.partner_cosine is not None
    paired = np.flatnonzero(found.partner >= 0)
    assert len(paired) == len(set(found.partner[paired])) == min(len(a), len(b))
    expected = [cosine(a[i], b[found.partner[i]]) for i in paired]
    np.testing.assert_allclose(found.partner_cosine[paired], expected, atol=1e-12)
    assert np.isnan(found.partner_cosine[found.partner < 0]).all()


@given(two_sets())
@settings(deadline=None)
def test_the_matching_is_symmetric_and_of_a_set_with_itself_one(sets: tuple[Rows, Rows]) -> None:
    a, b = sets
    there, back = match_prototypes(a, b), match_prototypes(b, a)
    assert there.pw_mcc == pytest.approx(back.pw_mcc)
    assert there.k == back.k[::-1]
    np.testing.assert_array_equal(there.nearest_in_b, back.nearest_in_a)
    np.testing.assert_array_equal(there.cosine_to_a, back.cosine_to_b)
    itself = match_prototypes(a, a)
    assert itself.pw_mcc == pytest.approx(1)
    distinct = np.unique(a / np.linalg.norm(a, axis=1, keepdims=True), axis=0)
    if len(distinct) == len(a):
        np.testing.assert_array_equal(itself.partner, np.arange(len(a)))


@pytest.mark.parametrize(("k_a", "k_b"), [(300, 300), (200, 350), (350, 200)])
def test_the_optimum_is_that_of_scipy_on_the_whole_matrix(
    k_a: int, k_b: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = directions(k_a), directions(k_b, seed=1)
    rows, columns = linear_sum_assignment(a @ b.T, maximize=True)
    whole = match_prototypes(a, b)
    assert whole.pw_mcc == pytest.approx((a @ b.T)[rows, columns].mean())
    assert whole.partner is not None
    np.testing.assert_array_equal(np.flatnonzero(whole.partner >= 0), rows)
    np.testing.assert_array_equal(whole.partner[rows], columns)
    np.testing.assert_array_equal(whole.nearest_in_b, (a @ b.T).argmax(axis=1))
    np.testing.assert_array_equal(whole.nearest_in_a, (a @ b.T).argmax(axis=0))
    monkeypatch.setattr(module, "_ROWS", 7)
    monkeypatch.setattr(module, "_COLUMNS", 11)
    blocked = match_prototypes(a, b)
    for name in ("nearest_in_b", "nearest_in_a", "partner"):
        np.testing.assert_array_equal(getattr(blocked, name), getattr(whole, name))


def test_a_noisy_copy_in_another_order_gives_the_order_back() -> None:
    a = directions(200, 32)
    order = np.random.default_rng(1).permutation(200)
    b = 3.0 * (a[order] + 0.05 * directions(200, 32, seed=2))
    found = match_prototypes(a, b[:150])
    assert found.partner is not None
    expected = np.full(200, -1)
    expected[order[:150]] = np.arange(150)
    np.testing.assert_array_equal(found.partner, expected)
    np.testing.assert_array_equal(found.nearest_in_a, order[:150])
    assert found.pw_mcc == pytest.approx((1 + 0.05**2) ** -0.5, abs=0.02)
    assert found.mean_max_cosine[0] < found.mean_max_cosine[1] == pytest.approx(found.pw_mcc)


def test_the_sign_of_a_cosine_counts() -> None:
    a = directions(50, 16)
    assert match_prototypes(a, -a).pw_mcc < 0.6  # type: ignore[operator]
    assert match_prototypes(np.ones((2, 1)), -np.ones((2, 1))).pw_mcc == -1


@pytest.mark.parametrize("size", [3, 1024])
def test_of_copies_the_lowest_index_is_taken_in_every_block(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", size)
    monkeypatch.setattr(module, "_COLUMNS", size + 1)
    rows, copies = directions(5, 300), np.array([0, 1, 0, 2, 1, 3, 0, 4, 2, 1])
    found = match_prototypes(rows[copies], rows[copies] * np.pi)
    np.testing.assert_array_equal(found.partner, np.arange(10))
    np.testing.assert_array_equal(found.nearest_in_b, [0, 1, 0, 3, 1, 5, 0, 7, 3, 1])
    found = match_prototypes(rows[copies], rows)
    np.testing.assert_array_equal(found.partner, [0, 1, -1, 2, -1, 3, -1, 4, -1, -1])


def test_copies_lower_the_match_and_unique_prototypes_do_not() -> None:
    rows = directions(20, 64)
    collapsed = audit(np.concatenate([rows[:10]] * 2))
    healthy = audit(rows)
    everything = match_prototypes(collapsed.prototypes, healthy.prototypes)
    assert everything.pw_mcc is not None
    assert everything.pw_mcc < 0.7
    unique = collapsed.unique_prototypes
    assert (unique.k, len(unique.lengths), len(unique.norms)) == (10, 10, 10)
    found = match_prototypes(unique, healthy.unique_prototypes)
    assert found.pw_mcc == pytest.approx(1)
    np.testing.assert_array_equal(found.partner, np.arange(10))


def test_the_unique_prototypes_stand_for_the_groups_in_their_order() -> None:
    rows = directions(4, 16)[[0, 1, 2, 1, 3, 1, 3]]
    found = audit(Prototypes.from_weight(rows, bias=np.arange(7.0)))
    unique = found.unique_prototypes
    np.testing.assert_array_equal(unique.rows, rows[[1, 4, 0, 2]])
    np.testing.assert_array_equal(unique.bias, [1, 4, 0, 2])
    np.testing.assert_array_equal(match_prototypes(rows, unique).nearest_in_b, found.groups)
    alone = audit(np.ones((3, 4))).unique_prototypes
    assert alone.k == 1
    assert match_prototypes(alone, rows[:, :4]).k == (1, 7)


def test_the_greedy_matching_is_the_same_and_holds_no_matrix() -> None:
    a, b = directions(6000, 4), directions(5000, 4, seed=1)
    tracemalloc.start()
    found = match_prototypes(a, b, matching="greedy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 5000 * 8 / 2
    assert (found.partner, found.partner_cosine, found.pw_mcc) == (None, None, None)
    assert found.to_dict()["pair_cosine"] is None
    some = match_prototypes(a[:400], b[:300]), match_prototypes(a[:400], b[:300], matching="greedy")
    np.testing.assert_array_equal(some[0].nearest_in_b, some[1].nearest_in_b)
    np.testing.assert_array_equal(some[0].cosine_to_a, some[1].cosine_to_a)


def test_random_directions_match_as_well_as_is_said() -> None:
    a, b = directions(3000, 32), directions(1000, 32, seed=1)
    found = match_prototypes(a, b, matching="greedy")
    medians = np.median(found.cosine_to_b), np.median(found.cosine_to_a)
    np.testing.assert_allclose(found.random_max_cosine, medians, atol=0.01)


def test_what_cannot_be_matched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    a = directions(5)
    with pytest.raises(ParameterError, match="prototypes in 8 and in 7 dimensions cannot"):
        match_prototypes(a, a[:, :7])
    with pytest.raises(ParameterError, match="must be optimal or greedy, got 'best'"):
        match_prototypes(a, a, matching="best")  # type: ignore[arg-type]
    monkeypatch.setattr(module, "MOST_PAIRS", 24)
    with pytest.raises(ParameterError, match=r"of 5 with 5 prototypes takes .* `matching=greedy`"):
        match_prototypes(a, a)
    assert match_prototypes(a, a[:4]).pw_mcc == pytest.approx(1)
    assert match_prototypes(a, a, matching="greedy").mean_max_cosine == pytest.approx((1, 1))


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    match_prototypes(directions(10), directions(9), progress=lambda *step: told.append(step))
    assert told == [("matching", 10, 10)]
