"""Onset and merges against their definitions in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.history import find_merges, find_onset

FRACTIONS = st.lists(st.floats(0.01, 1), min_size=1, max_size=30)
GROUPS = st.integers(1, 20).flatmap(
    lambda k: st.tuples(*[st.lists(st.integers(0, 5), min_size=k, max_size=k)] * 2)
)


@given(FRACTIONS, st.floats(0.05, 0.95))
def test_the_onset_is_the_first_low_checkpoint_with_only_low_ones_behind_it(
    fractions: list[float], share: float
) -> None:
    low = [value < share * max(fractions[: at + 1]) for at, value in enumerate(fractions)]
    expected = next((at for at in range(len(low)) if all(low[at:])), None)
    assert find_onset(fractions, share) == expected


@pytest.mark.parametrize(
    ("fractions", "onset"),
    [
        ([1.0], None),
        ([1.0, 0.9, 0.9], None),  # below, strictly
        ([1.0, 0.89, 0.5], 1),
        ([1.0, 0.5, 0.95], None),  # it recovered
        ([0.3, 0.6, 1.0, 0.2], 3),
        ([0.2, 0.2], None),
    ],
)
def test_the_onset_of_plain_courses(fractions: list[float], onset: int | None) -> None:
    assert find_onset(fractions) == onset


@given(GROUPS)
def test_merges_are_the_later_groups_with_members_of_several_earlier_ones(
    groups: tuple[list[int], list[int]],
) -> None:
    before, after = groups
    expected = []
    for group in sorted(set(after)):
        members = [i for i, g in enumerate(after) if g == group]
        origins = [before[i] for i in members]
        if len(set(origins)) > 1:
            parts = sorted((origins.count(g) for g in set(origins)), reverse=True)
            expected.append((members, tuple(parts)))
    expected.sort(key=lambda merge: -len(merge[0]))
    found = find_merges(np.array(before), np.array(after))
    assert [(merge.prototypes.tolist(), merge.parts) for merge in found] == expected
