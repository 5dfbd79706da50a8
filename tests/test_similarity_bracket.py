"""The bracket around M, against all scan orders of small heads."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collapse_audit import Prototypes
from collapse_audit.similarity import (
    Comparison,
    Threshold,
    bracket_unique,
    leader_cover,
    link_groups,
)


def bracket_of(weight, epsilon, panels):
    compared = Comparison(Prototypes.from_weight(weight), Threshold(epsilon), panels=panels)
    found = leader_cover(compared)
    return bracket_unique(compared, found, link_groups(compared, found)), len(found.leaders)


points = st.tuples(st.integers(2, 6), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-5, 5).map(float))
)


@settings(max_examples=25)
@given(points.filter(lambda w: w.any(axis=1).all()), st.sampled_from([0.025, 0.1, 0.2, 0.4, 0.5]))
def test_no_scan_order_leaves_the_bracket(definition, panels, weight, epsilon):
    truth = definition(weight, epsilon)
    bracket, m = bracket_of(weight, epsilon, panels)
    orders = permutations(range(len(weight)))
    counts = {len(truth.greedy(np.array(order))[0]) for order in orders}
    assert truth.components <= bracket.low <= min(counts)
    assert max(counts) <= bracket.high <= len(weight)
    graph = truth.duplicates | np.eye(len(weight), dtype=bool)
    transitive = (graph @ graph == graph).all()
    assert bracket.definition_independent == transitive
    if bracket.definition_independent:
        assert counts == {m} == {bracket.low} == {bracket.high}
        assert bracket.order_range is None
    else:
        low, high = bracket.order_range
        assert min(counts) <= low <= m <= high <= max(counts)


@pytest.mark.parametrize("name", ["chained", "wide groups near by", "star shells 1e-06", "d = 64"])
def test_the_range_over_orders_lies_in_the_bracket(make_head, panels, name):
    head = make_head(name)
    bracket, m = bracket_of(head.weight, head.epsilon, panels)
    assert not bracket.definition_independent
    low, high = bracket.order_range
    assert head.truth.components <= bracket.low <= low <= m <= high <= bracket.high
    rng = np.random.default_rng(1)
    for _ in range(5):
        count = len(head.truth.greedy(rng.permutation(len(head.weight)))[0])
        assert bracket.low <= count <= bracket.high


@pytest.mark.parametrize("name", ["collapsed", "healthy", "identical", "antipodal", "two at 0.4"])
def test_tight_and_healthy_heads_do_not_depend_on_the_definition(make_head, panels, name):
    head = make_head(name)
    bracket, m = bracket_of(head.weight, head.epsilon, panels)
    found = (bracket.low, bracket.high, bracket.definition_independent, bracket.order_range)
    assert found == (m, m, True, None)


def test_the_middle_first_order_of_a_chain_is_in_its_bracket(panels):
    radians = np.radians([0, 20, 40])
    bracket, m = bracket_of(np.stack([np.cos(radians), np.sin(radians)], axis=1), 0.1, panels)
    assert (m, bracket.low, bracket.high, bracket.order_range) == (2, 1, 2, (1, 2))
