"""N_eff and the diversity of classes against their definitions, their laws and their bounds."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse_audit import MLCDAccumulator, audit_prototypes
from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Prototypes
from collapse_audit.redundancy import SWEEP_EPSILONS, measure_diversity, measure_redundancy
from collapse_audit.similarity import Comparison, Threshold, leader_cover, survey
from collapse_audit.similarity.links import link_groups
from collapse_audit.similarity.n_eff import estimate_n_eff

SURVEY = sys.modules["collapse_audit.similarity.survey"]


def near_matrix(weight: np.ndarray, epsilon: float) -> np.ndarray:
    unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    return 1 - unit @ unit.T < epsilon


def by_definition(weight: np.ndarray, epsilon: float) -> float:
    total = 0.0
    for row in near_matrix(weight, epsilon):
        total += 1 / row.sum()
    return total


def mean_of_random_orders(weight: np.ndarray, epsilon: float, orders: int) -> tuple[float, float]:
    """Mean number of leaders over random scan orders, by plain loops, and its standard error."""
    near, rng = near_matrix(weight, epsilon), np.random.default_rng(7)
    found = []
    for _ in range(orders):
        free, count = np.ones(len(near), dtype=bool), 0
        for i in rng.permutation(len(near)):
            if free[i]:
                free &= ~near[i]
                count += 1
        found.append(count)
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(orders))


def clouds(seed: int, k: int, d: int, centres: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((centres, d))
    return middles[rng.integers(0, centres, k)] + spread * rng.standard_normal((k, d))


heads = st.builds(
    clouds,
    seed=st.integers(0, 10**6),
    k=st.integers(2, 150),
    d=st.integers(2, 24),
    centres=st.integers(1, 40),
    spread=st.sampled_from([0.0, 0.01, 0.1, 0.3]),
)


@given(heads)
@settings(max_examples=60, deadline=None)
def test_it_equals_its_definition_at_every_level_and_lies_in_its_bounds(weight):
    found = measure_redundancy(weight)
    assert found.n_eff.value == pytest.approx(by_definition(weight, 0.025), rel=1e-12)
    assert [level.threshold for level in found.sweep] == list(SWEEP_EPSILONS)
    for level in found.sweep:
        assert level.n_eff.is_exact
        assert level.n_eff.value == pytest.approx(by_definition(weight, level.threshold), rel=1e-12)
        assert level.components <= level.n_eff.value + 1e-9


@given(heads, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_neither_the_order_nor_copies_of_everything_change_it(weight, random):
    value = measure_redundancy(weight).n_eff.value
    order = list(range(len(weight)))
    random.shuffle(order)
    assert measure_redundancy(weight[order]).n_eff.value == value  # to the last bit
    doubled = measure_redundancy(np.concatenate([weight, weight])).n_eff.value
    assert doubled == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_at_most_the_mean_of_m_over_random_orders(seed):
    weight = clouds(seed, 300, 8, 30, 0.25)
    found = measure_redundancy(weight, sweep=())
    mean, error = mean_of_random_orders(weight, 0.025, 200)
    assert found.components <= found.n_eff.value <= mean + 3 * error
    assert found.n_eff.value < mean  # a head on which the two differ


def test_disjoint_cliques_have_one_answer():
    weight = np.repeat(np.eye(9), [1, 2, 3, 4, 5, 6, 7, 8, 9], axis=0)
    found = measure_redundancy(weight)
    assert (found.n_eff.value, found.num_unique, found.components) == (9.0, 9, 9)


def test_the_head_that_ships_has_the_known_values():
    levels = {level.threshold: level for level in audit_demo().redundancy.sweep}
    assert round(audit_demo().n_eff.value, 1) == 91.4
    known = {0.005: 211.2, 0.1: 31.7, 0.25: 11.9}
    assert {e: round(levels[e].n_eff.value, 1) for e in known} == known


def audit_demo():
    from collapse_audit import audit

    return audit("demo")


@pytest.mark.parametrize("pairs", [0, 3000])
@pytest.mark.parametrize("seed", range(8))
def test_a_sample_gives_an_interval_that_holds_the_number(seed, pairs, monkeypatch):
    monkeypatch.setattr(SURVEY, "_PAIRS", pairs)
    weight = clouds(seed, 900, 10, 40, 0.3)
    comparison = Comparison(Prototypes.from_weight(weight), Threshold(0.025))
    sampled = 0
    for level in survey(comparison, SWEEP_EPSILONS, nearest=False).levels:
        found, truth = level.n_eff, by_definition(weight, level.threshold)
        assert found.low - 1e-9 <= truth <= found.high + 1e-9
        assert found.low <= found.value <= found.high
        assert level.components <= found.low + 1e-9
        if found.is_exact:
            assert found.value == pytest.approx(truth, rel=1e-12)
        else:
            sampled += 1
            assert found.value == pytest.approx(truth, rel=0.2)
    assert sampled >= 2


def test_the_interval_covers_as_often_as_it_says(monkeypatch):
    weight = clouds(3, 1500, 6, 15, 0.3)
    comparison = Comparison(Prototypes.from_weight(weight), Threshold(0.1))
    cover = leader_cover(comparison)
    component = link_groups(comparison, cover).component
    rows, truth, missed = np.arange(1500), by_definition(weight, 0.1), 0
    fresh = np.random.default_rng
    for seed in range(200):
        monkeypatch.setattr(np.random, "default_rng", lambda n, seed=seed: fresh((seed, n)))
        found = estimate_n_eff(comparison, cover, component, rows)
        missed += not found.low - 1e-9 <= truth <= found.high + 1e-9
        assert 0 < found.high - found.low < 0.2 * truth
    assert missed <= 6  # 2 are expected at most; more than 6 have a probability below 0.5 %


def diversities(p: np.ndarray, near: np.ndarray) -> tuple[float, float, float]:
    """By definition (Leinster and Cobbold 2012), one class after the other."""
    zero = one = two = 0.0
    for i, mass in enumerate(p):
        ordinary = sum(p[j] for j in range(len(p)) if near[i, j])
        if mass > 0:
            zero += mass / ordinary
            one -= mass * np.log(ordinary)
            two += mass * ordinary
    return zero, float(np.exp(one)), 1 / two


@given(heads, st.integers(0, 10**6), st.floats(0.05, 5))
@settings(max_examples=40, deadline=None)
def test_diversity_equals_its_definition(weight, seed, concentration):
    p = np.random.default_rng(seed).dirichlet(np.full(len(weight), concentration))
    p[p < 1e-12] = 0.0
    p /= p.sum()
    prototypes = Prototypes.from_weight(weight)
    redundancy = measure_redundancy(prototypes, sweep=(), nearest=False)
    found = measure_diversity(prototypes, redundancy, p)
    expected = diversities(p, near_matrix(weight, 0.025))
    orders = (found.order_0, found.order_1, found.order_2)
    assert orders == pytest.approx(expected, rel=1e-9)
    assert orders == tuple(sorted(orders, reverse=True)) or orders == pytest.approx(
        (orders[0],) * 3, rel=1e-9
    )


def test_uniform_classes_have_the_effective_number_of_prototypes():
    weight = clouds(1, 200, 6, 20, 0.2)
    prototypes = Prototypes.from_weight(weight)
    redundancy = measure_redundancy(prototypes, sweep=())
    found = measure_diversity(prototypes, redundancy, np.full(200, 1 / 200))
    assert found.order_0 == pytest.approx(redundancy.n_eff.value, rel=1e-12)


def test_the_redundancy_of_other_prototypes_is_refused():
    with pytest.raises(ParameterError, match="is of 3 prototypes, and these are 4"):
        measure_diversity(np.eye(4), measure_redundancy(np.eye(3)), np.full(4, 0.25))


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.5, 0.6, 0.0], [1.5, -0.5, 0.0], [np.nan, 0.5, 0.5]])
def test_what_is_no_distribution_is_refused(p):
    prototypes = Prototypes.from_weight(np.eye(3))
    redundancy = measure_redundancy(prototypes)
    with pytest.raises(ParameterError, match="3 masses that sum to 1"):
        measure_diversity(prototypes, redundancy, np.array(p))


def test_an_audit_with_classes_reports_their_diversity():
    weight = np.eye(4)[[0, 0, 1, 1, 2]]
    audit = audit_prototypes(weight)
    features = np.eye(4)[[0, 0, 0, 0, 1, 1, 2, 2]]
    mlcd = MLCDAccumulator(audit.prototypes, temperature=0.01, groups=audit.groups)
    told = audit.with_mlcd(mlcd.update(features).result())
    document = told.to_dict()["heads"][0]
    assert document["unique"]["n_eff"] == 3.0
    diversity = document["mlcd"]["diversity"]
    assert diversity["order_0"] == pytest.approx(3)
    assert diversity["order_2"] == pytest.approx(1 / (0.5**2 + 2 * 0.25**2))
