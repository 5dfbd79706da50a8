"""Heads larger than a block, groups larger than a segment, and the promise about memory."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from collapse_audit import Prototypes
from collapse_audit.similarity import (
    Comparison,
    Threshold,
    leader_cover,
    link_groups,
    survey,
)
from tests.engine_panels import nearest_of


def compare(rows, epsilon, panels):
    prototypes = Prototypes.from_weight(rows)
    return Comparison(prototypes, Threshold(epsilon), panels=panels)


@pytest.mark.slow
def test_a_large_group_exactly_at_the_threshold_is_counted_exactly(panels):
    # +-1 rows: the base, and rows that differ from it in one of 16 entries. They are 0.125 from
    # the base and exactly 0.25 from each other, which is not below 0.25.
    rng = np.random.default_rng(0)
    flipped = rng.integers(0, 17, 1100)
    flipped[0] = 16
    rows = np.where(np.arange(16) == flipped[:, None], -1.0, 1.0)
    comparison = compare(rows, 0.25, panels)
    cover = leader_cover(comparison)
    assert cover.leaders.tolist() == [0]
    links = link_groups(comparison, cover)
    size = np.bincount(flipped, minlength=17)
    expected = np.where(flipped == 16, 1100 - 1, size[flipped] + size[16] - 1)
    assert links.neighbours.tolist() == expected.tolist()
    assert links.num_components == 1
    assert links.clique.tolist() == [False]


def test_a_group_wider_than_epsilon_and_larger_than_a_segment(definition, kinds, panels):
    rng = np.random.default_rng(1)
    hub = kinds.random_unit(rng, 1, 24)[0]
    members = kinds.at_distance(rng, hub, rng.uniform(0.01, 0.0249, 1300))
    rows = np.concatenate([hub[None], members, kinds.random_unit(rng, 30, 24)]).astype(np.float32)
    comparison = compare(rows, 0.025, panels)
    cover = leader_cover(comparison)
    assert cover.sizes.max() == 1301
    links = link_groups(comparison, cover)
    truth = definition(rows, 0.025)
    assert links.neighbours.tolist() == truth.neighbours
    assert links.num_components == truth.components == 31
    assert not links.clique[0]


def test_wide_groups_linked_across_segments(definition, kinds, panels):
    # 40 hubs along an arc, each with 60 members: linked to the hubs beside it and to no others
    rng = np.random.default_rng(2)
    hubs = kinds.chain(12, 40, 1.8 * np.arccos(0.975))
    parts = [kinds.at_distance(rng, hub, rng.uniform(0.012, 0.024, 60)) for hub in hubs]
    rows = np.concatenate([hubs, rng.permutation(np.concatenate(parts))]).astype(np.float32)
    comparison = compare(rows, 0.025, panels)
    links = link_groups(comparison, leader_cover(comparison))
    truth = definition(rows, 0.025)
    assert links.neighbours.tolist() == truth.neighbours
    assert links.num_components == truth.components


def test_groups_whose_edges_touch_are_linked_across_segments(definition, panels):
    # On a circle, in units of theta: hubs 2.6 apart, members up to 0.9 and 0.8 to both sides in
    # turn. Members of neighbouring groups are 0.9 apart at the edges, hubs out of reach of members
    # of the other group; groups of the two radii lie in different segments.
    theta = 0.05
    reach = np.where(np.arange(30) % 2, 0.8, 0.9)
    # uneven offsets, the edges among them, keep pairs away from the threshold
    offsets = np.append(np.random.default_rng(0).uniform(-1, 1, 49), [-1, 1])[:, None] * reach
    hubs = 2.6017 * np.arange(30)
    angles = theta * np.concatenate([hubs, (hubs + offsets).ravel()])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    epsilon = float(1 - np.cos(theta))
    comparison = compare(rows, epsilon, panels)
    cover = leader_cover(comparison)
    assert cover.leaders.tolist() == list(range(30))
    links = link_groups(comparison, cover)
    assert links.num_components == 1
    assert links.neighbours.tolist() == definition(rows, epsilon).neighbours


@pytest.mark.parametrize("m", [2200, pytest.param(4500, marks=pytest.mark.slow)])
def test_more_groups_than_a_chunk_of_leaders_and_links_between_far_chunks(kinds, panels, m):
    # Leaders, then a second member for each, far from its leader in the scan order; pairs
    # are 0.01 apart and all else about orthogonal.
    rng = np.random.default_rng(3)
    leaders = kinds.random_unit(rng, m, 48)
    partner = rng.permutation(m)
    seconds = np.concatenate(
        [kinds.at_distance(rng, row, np.array([0.01])) for row in leaders[partner]]
    )
    rows = np.concatenate([leaders, seconds])
    comparison = compare(rows, 0.025, panels)
    cover = leader_cover(comparison)
    assert cover.leaders.tolist() == list(range(m))
    assert cover.group.tolist() == [*range(m), *partner.tolist()]
    links = link_groups(comparison, cover)
    assert (links.neighbours == 1).all()
    assert links.num_components == m
    assert links.clique.all()
    nearest = nearest_of(comparison, cover)
    assert nearest.index[m:].tolist() == partner.tolist()
    np.testing.assert_allclose(nearest.distance, 0.01, rtol=1e-12)
    low, high = survey(comparison, [0.009, 0.011], nearest=False).levels
    assert (low.greedy, low.components, low.isolated) == (2 * m, 2 * m, 2 * m)
    assert (high.greedy, high.components, high.isolated) == (m, m, 0)


def test_a_singleton_is_linked_to_a_member_of_a_large_group_far_away_in_the_order(panels):
    # Angles in the plane: a group from 0 to 10 degrees, and one prototype at 20 degrees: it is
    # within 12.8 degrees of the group's edge but not of its leader.
    degrees = np.concatenate([[0.0], np.linspace(1, 10, 2500), [20.0]])
    rows = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)
    comparison = compare(rows, 0.025, panels)
    cover = leader_cover(comparison)
    assert cover.sizes.tolist() == [2501, 1]
    links = link_groups(comparison, cover)
    limit = 20 - np.degrees(np.arccos(0.975))
    assert links.neighbours[-1] == (degrees[:-1] > limit).sum() > 0
    assert links.num_components == 1
    assert links.clique.tolist() == [True, True]


def test_many_tight_groups_are_complete_without_any_links(kinds, panels):
    rng = np.random.default_rng(4)
    sizes = np.concatenate([[1500, 700], rng.integers(1, 40, 90)])
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = kinds.noisy(rng, kinds.random_unit(rng, len(sizes), 64)[labels], 0.01)
    comparison = compare(rows.astype(np.float32), 0.025, panels)
    cover = leader_cover(comparison)
    links = link_groups(comparison, cover)
    assert sorted(cover.sizes.tolist()) == sorted(sizes.tolist())
    assert links.neighbours.tolist() == (sizes[labels] - 1).tolist()
    assert links.num_components == len(sizes)
    levels = survey(comparison, [0.01, 0.025, 0.1], nearest=False).levels
    assert {(v.greedy, v.components, v.isolated) for v in levels} == {
        (len(sizes), len(sizes), int((sizes == 1).sum()))
    }


AUDIT_OF_65536 = """
import json, resource, sys
import numpy as np
from collapse_audit import Prototypes, audit_prototypes
import collapse_audit.redundancy

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
rng = np.random.default_rng(0)
k, d, m = 65536, 256, 1000
share = 1 / np.arange(1, m + 1)
labels = np.concatenate([np.arange(m), rng.choice(m, k - m, p=share / share.sum())])
rng.shuffle(labels)
directions = rng.standard_normal((m, d), dtype=np.float32)
directions /= np.linalg.norm(directions, axis=1, keepdims=True)
rows = directions[labels]
for part in np.array_split(rows, 64):
    part += 0.02 / 16 * rng.standard_normal(part.shape, dtype=np.float32)
audit = audit_prototypes(Prototypes.from_weight(rows))
sizes = np.bincount(labels)
json.dump({
    "m": audit.num_unique,
    "components": audit.redundancy.components,
    "same_factors": audit.redundancy_factors.tolist() == sorted(sizes.tolist(), reverse=True),
    "same_groups": len(set(zip(audit.groups.tolist(), labels.tolist()))) == m,
    "same_neighbours": audit.redundancy.neighbours.tolist() == (sizes[labels] - 1).tolist(),
    "bytes": peak() - before,
}, sys.stdout)
"""


@pytest.mark.slow
def test_65536_prototypes_are_audited_within_two_gigabytes():
    done = subprocess.run(
        [sys.executable, "-c", AUDIT_OF_65536], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found.pop("bytes") < 2e9
    assert found == {
        "m": 1000,
        "components": 1000,
        "same_factors": True,
        "same_groups": True,
        "same_neighbours": True,
    }


@pytest.mark.parametrize("k", [4300, 4097])  # 4097: one prototype alone in the last tile
def test_the_nearest_of_random_rows_are_found_across_all_chunks(kinds, panels, k):
    unit = kinds.random_unit(np.random.default_rng(5), k, 32)
    comparison = compare(unit, 0.025, panels)
    nearest = nearest_of(comparison, leader_cover(comparison))
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    assert nearest.index.tolist() == cosine.argmax(axis=1).tolist()
    np.testing.assert_allclose(nearest.cosine, cosine.max(axis=1), atol=1e-14)
