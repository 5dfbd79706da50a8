"""The random null against published constants and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from collapse_audit import Prototypes, audit_prototypes
from collapse_audit.similarity import duplicate_probability, nearest_cosine_quantiles


@pytest.mark.parametrize(
    ("epsilon", "d", "expected"),
    [
        (0.025, 256, 7e-169),
        (0.1, 256, 3e-94),
        (0.25, 256, 6e-48),
        (0.5, 256, 6e-18),
    ],
)
def test_the_probability_of_a_duplicate_has_its_published_value(epsilon, d, expected):
    assert duplicate_probability(epsilon, d) == pytest.approx(expected, rel=0.1)


def test_the_expected_pairs_have_their_published_number():
    pairs = 8192 * 8191 / 2
    assert duplicate_probability(0.5, 64) * pairs == pytest.approx(374, abs=1)
    assert duplicate_probability(0.25, 32) * pairs == pytest.approx(8.5, abs=0.1)


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 0.5, 0.9])
def test_the_probability_has_its_closed_form_in_one_two_and_three_dimensions(epsilon):
    assert duplicate_probability(epsilon, 1) == 0.5
    arc = np.arccos(1 - epsilon) / np.pi
    assert duplicate_probability(epsilon, 2) == pytest.approx(arc, rel=1e-12)
    # Archimedes: the area of a cap of the sphere is proportional to its height
    assert duplicate_probability(epsilon, 3) == pytest.approx(epsilon / 2, rel=1e-12)


@pytest.mark.parametrize(("epsilon", "d"), [(0.1, 4), (0.25, 6), (0.5, 10)])
def test_the_probability_agrees_with_random_pairs(kinds, epsilon, d):
    rng, n = np.random.default_rng(d), 200_000
    cosine = (kinds.random_unit(rng, n, d) * kinds.random_unit(rng, n, d)).sum(axis=1)
    p = duplicate_probability(epsilon, d)
    assert abs((1 - cosine < epsilon).mean() - p) < 5 * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize(
    ("k", "d", "mean"),
    [(8192, 256, 0.236), (16384, 256, 0.245), (3000, 128, 0.308), (8192, 64, 0.454)],
)
def test_the_mean_nearest_cosine_has_its_published_value(k, d, mean):
    # the published ones are the mean of one random head, which varies by about 0.001
    quantiles = (np.arange(2000) + 0.5) / 2000
    assert nearest_cosine_quantiles(quantiles, k, d).mean() == pytest.approx(mean, abs=0.0015)


@pytest.mark.parametrize(("k", "d"), [(2, 3), (2, 1), (5, 2), (40, 8), (300, 16)])
def test_the_quantiles_agree_with_simulated_heads(kinds, k, d):
    rng, heads = np.random.default_rng(k), 4000
    one = kinds.random_unit(rng, heads, d)
    largest = np.full(heads, -np.inf)
    for _ in range(k - 1):
        largest = np.maximum(largest, (one * kinds.random_unit(rng, heads, d)).sum(axis=1))
    for q in (0.1, 0.5, 0.9):
        below = (largest <= nearest_cosine_quantiles(q, k, d) + 1e-9).mean()
        slack = 5 * np.sqrt(q * (1 - q) / heads)
        assert below >= q - slack
        if d > 1:  # on a line a cosine is 1 or -1, and half of them lie on a quantile
            assert below <= q + slack


def test_the_quantiles_rise():
    found = nearest_cosine_quantiles([0.01, 0.05, 0.5, 0.95, 0.99], 65536, 256)
    assert (np.diff(found) > 0).all()
    assert ((found > 0) & (found < 1)).all()


def test_random_prototypes_are_all_unique_up_to_half_the_sphere(kinds):
    prototypes = Prototypes.from_weight(kinds.random_unit(np.random.default_rng(0), 2000, 256))
    audit = audit_prototypes(prototypes)
    assert audit.num_unique == audit.redundancy.components == audit.redundancy.isolated == 2000
    assert {(s.greedy, s.components, s.isolated) for s in audit.redundancy.sweep} == {(2000,) * 3}
