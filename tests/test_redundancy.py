"""Redundancy: counts, redundancy factors and their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit import ParameterError, Prototypes, Redundancy, measure_redundancy
from collapse_audit.redundancy import SWEEP_EPSILONS
from collapse_audit.similarity import Comparison, Threshold, leader_cover


def at_degrees(*degrees):
    """Prototypes in the plane, by their angle."""
    radians = np.radians(degrees)
    return Prototypes.from_weight(np.stack([np.cos(radians), np.sin(radians)], axis=1))


def repeated(*factors):
    """Orthogonal directions, each repeated as often as its factor says."""
    return Prototypes.from_weight(
        np.eye(max(len(factors), 2))[np.repeat(range(len(factors)), factors)]
    )


def counts(prototypes, **arguments):
    return [
        (level.threshold, level.greedy, level.components, level.isolated)
        for level in measure_redundancy(prototypes, nearest=False, **arguments).sweep
    ]


def test_a_chain_has_fewer_unique_prototypes_at_each_looser_threshold():
    found = counts(at_degrees(0, 20, 40), sweep=(0.025, 0.1, 0.25))
    assert found == [(0.025, 3, 3, 3), (0.1, 2, 1, 0), (0.25, 1, 1, 0)]


def test_a_chain_scanned_from_its_middle_has_one_unique_prototype():
    found = counts(at_degrees(20, 0, 40), sweep=(0.025, 0.1, 0.25))
    assert found == [(0.025, 3, 3, 3), (0.1, 1, 1, 0), (0.25, 1, 1, 0)]
    prototypes = at_degrees(0, 20, 40)
    for epsilon, unique in ((0.025, 3), (0.1, 1), (0.25, 1)):
        comparison = Comparison(prototypes, Threshold(epsilon))
        assert len(leader_cover(comparison, order=np.array([1, 0, 2])).leaders) == unique


def test_a_prototype_joins_the_first_leader_and_not_the_nearest():
    found = measure_redundancy(at_degrees(0, 13, 12.5), epsilon=0.025)
    assert found.leaders.tolist() == [0, 1]
    assert found.groups.tolist() == [0, 1, 0]


def test_opposite_prototypes_are_two_unique_ones():
    # the sum of all squared distances is largest here, and yet only two are unique
    mu = np.random.default_rng(0).standard_normal(64)
    found = measure_redundancy(Prototypes.from_weight(np.outer([1, -1] * 50, mu)))
    assert found.num_unique == found.components == 2
    assert found.redundancy_factors.tolist() == [50, 50]
    assert found.isolated == 0
    assert {level.greedy for level in found.sweep} == {2}


def test_copies_of_one_prototype_are_one_unique_one():
    mu = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    found = measure_redundancy(Prototypes.from_weight(np.tile(mu, (500, 1))))
    assert found.redundancy_factors.tolist() == [500]
    assert (found.components, found.isolated, found.mean_redundancy) == (1, 0, 500.0)
    assert (found.gini, found.effective_number) == (0.0, 1.0)
    assert found.neighbours.tolist() == [499] * 500
    assert found.cliques.tolist() == [True]
    assert found.nearest.copies == 499
    assert found.nearest.distance.tolist() == [0.0] * 500
    assert found.nearest.index.tolist() == [1, *[0] * 499]


def test_four_unique_prototypes_and_two_twice_are_told_apart():
    # the two solutions of the shortcut argument: a uniform marginal over K does not tell them apart
    assert measure_redundancy(repeated(1, 1, 1, 1)).num_unique == 4
    halves = measure_redundancy(repeated(2, 2))
    assert halves.num_unique == 2
    assert halves.groups.tolist() == [0, 0, 1, 1]


def test_planted_groups_come_back_with_their_factors(kinds):
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat(np.arange(5), [1, 2, 3, 4, 5]))
    rows = kinds.noisy(rng, kinds.random_unit(rng, 5, 64)[labels], 0.01)
    found = measure_redundancy(Prototypes.from_weight(rows))
    assert found.redundancy_factors.tolist() == [5, 4, 3, 2, 1]
    assert found.groups.tolist() == (4 - labels).tolist()
    assert found.leaders.tolist() == [labels.tolist().index(g) for g in (4, 3, 2, 1, 0)]
    assert (found.k, found.num_unique, found.mean_redundancy) == (15, 5, 3.0)
    assert found.unique_fraction == 1 / 3
    assert found.isolated == 1
    assert found.histogram == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]


def test_groups_of_one_size_are_numbered_by_their_leaders():
    found = measure_redundancy(repeated(2, 3, 1, 2, 3))
    assert found.leaders.tolist() == [2, 8, 0, 6, 5]
    assert found.redundancy_factors.tolist() == [3, 3, 2, 2, 1]
    assert found.histogram == [(1, 1), (2, 2), (3, 2)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8).filter(lambda r: sum(r) > 1))
def test_gini_and_effective_number_follow_their_definitions(factors):
    found = measure_redundancy(repeated(*factors), sweep=(), nearest=False)
    assert found.redundancy_factors.tolist() == sorted(factors, reverse=True)
    m, k = len(factors), sum(factors)
    gini = sum(abs(a - b) for a in factors for b in factors) / (2 * m * k)
    assert found.gini == pytest.approx(gini, abs=1e-12)
    entropy = -sum(r / k * np.log(r / k) for r in factors)
    assert found.effective_number == pytest.approx(np.exp(entropy), rel=1e-12)
    assert 1 - 1e-12 <= found.effective_number <= m + 1e-9
    assert sum(r * count for r, count in found.histogram) == k
    assert sum(count for _, count in found.histogram) == m


@pytest.mark.parametrize(
    ("factors", "gini", "effective"),
    [
        ((1, 1, 1, 1), 0.0, 4.0),
        ((7, 7), 0.0, 2.0),
        ((1, 3), 0.25, 4 / 27**0.25),
        ((2, 1, 1), 1 / 6, 2 * 2**0.5),
        ((97, 1, 1, 1), 0.72, None),
    ],
)
def test_gini_and_effective_number_have_their_closed_forms(factors, gini, effective):
    found = measure_redundancy(repeated(*factors), sweep=(), nearest=False)
    assert found.gini == pytest.approx(gini, abs=1e-12)
    if effective is not None:
        assert found.effective_number == pytest.approx(effective, rel=1e-12)


def test_every_kind_of_head_is_measured_as_its_definition_says(any_head):
    truth = any_head.truth
    found = measure_redundancy(any_head.prototypes, epsilon=any_head.epsilon, sweep=())
    leaders, group = truth.greedy()
    assert found.epsilon == any_head.epsilon
    assert sorted(found.leaders.tolist()) == leaders
    assert [found.leaders[g] for g in found.groups] == [leaders[g] for g in group]
    assert found.components == truth.components
    assert found.isolated == truth.isolated <= found.components <= found.num_unique <= found.k
    cliques = dict(zip(leaders, truth.cliques(), strict=True))
    assert found.cliques.tolist() == [cliques[leader] for leader in found.leaders.tolist()]
    factors = found.redundancy_factors
    assert factors.dtype == np.int64
    assert factors.sum() == found.k
    assert (np.diff(factors) <= 0).all()
    assert found.groups.dtype == np.int64


def test_the_sweep_has_the_thresholds_of_the_papers_and_agrees_with_the_headline(make_head):
    found = measure_redundancy(make_head("wide groups near by").prototypes)
    assert tuple(level.threshold for level in found.sweep) == SWEEP_EPSILONS
    (headline,) = (level for level in found.sweep if level.threshold == found.epsilon == 0.025)
    expected = (found.num_unique, found.components, found.isolated)
    assert (headline.greedy, headline.components, headline.isolated) == expected


def test_what_was_not_asked_for_is_not_measured():
    found = measure_redundancy(repeated(2, 1), sweep=(), nearest=False)
    assert found.sweep == ()
    assert found.nearest is None


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_a_threshold_out_of_range_is_refused_with_its_value(epsilon):
    with pytest.raises(ParameterError, match=r"between 0 and 1 .*, got .*\. The literature uses"):
        measure_redundancy(repeated(1, 1), epsilon=epsilon)
    with pytest.raises(ParameterError, match="between 0 and 1"):
        measure_redundancy(repeated(1, 1), sweep=(0.1, epsilon))


def test_a_result_is_frozen():
    found = measure_redundancy(repeated(1, 1))
    assert isinstance(found, Redundancy)
    with pytest.raises(AttributeError, match=r"cannot assign|no attribute"):
        found.epsilon = 0.5
