"""Heads side by side, and what became of their groups."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.errors import ReportError
from collapse_audit.gate import compare
from collapse_audit.gate.regrouping import compare_groups
from collapse_audit.report.comparison_text import comparison_to_table
from tests.gate.conftest import INCOMPARABLE, edited, head_of

labelled = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12)


@given(labelled)
def test_regroupings_match_the_definition_in_plain_loops(prototypes: list[tuple[int, int]]) -> None:
    a, b = (by_size(list(labels)) for labels in zip(*prototypes, strict=True))
    k = len(a)
    found = compare_groups(np.array(a), np.array(b))
    pairs = [(a[i] == a[j], b[i] == b[j]) for i, j in combinations(range(k), 2)]
    assert found.pairs_kept == pairs.count((True, True))
    assert found.pairs_parted == pairs.count((True, False))
    assert found.pairs_joined == pairs.count((False, True))
    members_a = {frozenset(i for i in range(k) if a[i] == g) for g in a}
    members_b = {frozenset(i for i in range(k) if b[i] == g) for g in b}
    assert found.unchanged == len(members_a & members_b)
    assert found.split == sum(len({b[i] for i in group}) > 1 for group in members_a)
    assert found.merged == sum(len({a[i] for i in group}) > 1 for group in members_b)
    for group, parts in found.splits:
        assert sum(parts) == a.count(group)


def by_size(labels: list[int]) -> list[int]:
    """Group numbers by falling size, as an audit gives them."""
    order = sorted(set(labels), key=lambda label: (-labels.count(label), labels.index(label)))
    return [order.index(label) for label in labels]


def test_heads_side_by_side_have_deltas_and_judgements() -> None:
    a, b, c = head_of([3, 1, 1]), head_of([2, 2, 1]), head_of([1] * 5)
    found = compare(a, b, [c])
    rows = {row.metric.path: row for row in found.heads[0].rows}
    assert rows["unique.greedy"].values == (3, 3, 5)
    assert rows["unique.greedy"].deltas == (0, 2)
    assert rows["unique.greedy"].judgements == ("same", "better")
    assert rows["redundancy_factors.max"].judgements == ("better", "better")
    assert rows["d"].judgements == ("same", "changed")
    b_of_a, c_of_a = found.heads[0].regroupings
    assert b_of_a is not None
    assert c_of_a is not None
    assert c_of_a.splits == ((0, (1, 1, 1)),)
    assert (c_of_a.merged, c_of_a.pairs_parted, c_of_a.unchanged) == (0, 3, 2)
    assert b_of_a.merges == ((1, (1, 1)),)


def test_saved_reports_and_other_k_have_no_regroupings() -> None:
    a, b = head_of([3, 1, 1]), head_of([3, 1])
    assert compare(a, a.to_dict()).heads[0].regroupings == (None,)
    assert compare(a, b).heads[0].regroupings == (None,)


def test_more_heads_than_letters_can_be_put_side_by_side() -> None:
    table = comparison_to_table(compare(*[head_of([2, 1])] * 28).to_dict())
    assert "Z  memory" in table
    assert "#28  memory" in table
    assert "#28 - A" in table


def test_reports_of_another_epsilon_are_not_put_side_by_side(report: dict[str, Any]) -> None:
    other = edited(report, INCOMPARABLE["epsilon"])
    with pytest.raises(ReportError, match=r"epsilon is 0.025 here and 0.05"):
        compare(report, other)
    assert compare(report, other, allow=["epsilon"]).sources == ("memory", "memory")
