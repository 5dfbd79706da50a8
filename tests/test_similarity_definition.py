"""Every function of the engine against its definition in plain loops, on every kind of head."""

from __future__ import annotations

import numpy as np
import pytest

from collapse_audit import Prototypes
from collapse_audit.similarity import (
    Comparison,
    Threshold,
    leader_cover,
    link_groups,
    small_components,
    survey,
)
from tests.engine_panels import nearest_of


@pytest.fixture
def comparison(any_head, panels):
    prototypes = any_head.prototypes
    return Comparison(prototypes, Threshold(any_head.epsilon), panels=panels)


def test_the_cover_is_the_greedy_one_in_index_order(any_head, comparison):
    cover = leader_cover(comparison)
    leaders, group = any_head.truth.greedy()
    assert cover.leaders.tolist() == leaders
    assert cover.group.tolist() == group
    assert cover.sizes.tolist() == np.bincount(group).tolist()


def test_the_cover_is_the_greedy_one_in_any_order_of_some_rows(any_head, comparison):
    k = any_head.prototypes.k
    order = np.random.default_rng(k).permutation(k)[: max(2, 2 * k // 3)]
    cover = leader_cover(comparison, order=order, block_rows=97)
    leaders, group = any_head.truth.greedy(order)
    assert cover.leaders.tolist() == leaders
    assert cover.group.tolist() == group


def test_links_are_the_components_neighbours_and_cliques_of_the_graph(any_head, comparison):
    truth = any_head.truth
    links = link_groups(comparison, leader_cover(comparison))
    assert links.num_components == truth.components
    assert links.neighbours.tolist() == truth.neighbours
    assert links.clique.tolist() == truth.cliques()
    names = dict(zip(links.component.tolist(), truth.component, strict=True))
    assert [names[c] for c in links.component.tolist()] == truth.component
    assert len(set(names.values())) == len(names)


def test_the_radius_bounds_the_angle_of_every_member_and_is_tight(any_head, comparison):
    cover = leader_cover(comparison)
    radius = link_groups(comparison, cover).radius
    unit = any_head.truth.unit
    chord = np.linalg.norm(unit - unit[cover.leaders[cover.group]], axis=1)
    angle = 2 * np.arcsin(np.clip(chord / 2, 0, 1))
    largest = np.zeros(len(cover.leaders))
    np.maximum.at(largest, cover.group, angle)
    assert (radius >= largest - 1e-15).all()
    assert (radius[cover.sizes == 1] == 0).all()
    # arccos turns an error of 1e-13 or so in the cosine into at most its root in the angle
    assert (radius <= largest + 1e-5).all()


@pytest.mark.parametrize("most_members", [0, 32])
@pytest.mark.parametrize("spread", [(1.9, 0.2, 1.0, 0.5), (1.0, 1.0, 0.999, 1.001)])
def test_every_level_of_a_sweep_is_a_count_from_scratch(
    any_head, comparison, spread, most_members, monkeypatch
):
    monkeypatch.setattr(small_components, "_MOST_MEMBERS", most_members)
    epsilons = [min(factor * any_head.epsilon, 0.9999999) for factor in spread]
    levels = survey(comparison, epsilons, nearest=False).levels
    assert [level.threshold for level in levels] == sorted(set(epsilons))
    for level in levels:
        truth = any_head.truth.at(level.threshold)
        expected = (len(truth.greedy()[0]), truth.components, truth.isolated)
        assert (level.greedy, level.components, level.isolated) == expected


def test_the_nearest_one_is_at_the_smallest_distance(any_head, comparison):
    truth = any_head.truth
    nearest = nearest_of(comparison, leader_cover(comparison))
    for row, (found, distance) in enumerate(zip(nearest.index, nearest.distance, strict=True)):
        squared = truth.squared_chords(row)
        # entries of unit rows are off by 1e-16 or so, in the definition too
        slack = 1e-14 * np.sqrt(squared.min()) + 1e-30
        assert found != row
        assert squared[found] <= squared.min() + slack
        assert abs(2 * distance - squared.min()) <= slack
    np.testing.assert_array_equal(nearest.cosine, 1 - nearest.distance)
    np.testing.assert_allclose(
        2 * np.sin(nearest.angle / 2) ** 2, nearest.distance, rtol=1e-12, atol=1e-300
    )


@pytest.mark.parametrize("k", [30, 300])
@pytest.mark.parametrize("epsilon", [0.01, 0.3, 0.9])
def test_ties_for_the_nearest_go_to_the_smallest_index(definition, panels, k, epsilon):
    # +-1 rows of 16 entries have exact unit rows, and distances that are multiples of 1/8
    rng = np.random.default_rng(k)
    base = np.where(rng.random((4, 16)) < 0.5, -1.0, 1.0)
    rows = base[rng.integers(0, 4, k)] * np.where(rng.random((k, 16)) < 0.2, -1.0, 1.0)
    rows *= 2.0 ** rng.integers(-3, 4, (k, 1))
    truth = definition(rows, epsilon)
    prototypes = Prototypes.from_weight(rows)
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    nearest = nearest_of(comparison, leader_cover(comparison))
    squared = [truth.squared_chords(row) for row in range(k)]
    assert nearest.index.tolist() == [int(s.argmin()) for s in squared]
    assert nearest.distance.tolist() == [float(s.min() / 2) for s in squared]
    assert nearest.copies == k - len({row.tobytes() for row in truth.unit})


def test_the_nearest_ones_do_not_depend_on_the_cover(make_head, panels):
    prototypes = make_head("wide groups").prototypes
    found = []
    for epsilon in (1e-6, 0.01, 0.025, 0.3, 0.95):
        comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
        nearest = nearest_of(comparison, leader_cover(comparison))
        found.append((nearest.index.tobytes(), nearest.distance.tobytes()))
    assert len(set(found)) == 1


def test_near_copies_are_ranked_where_one_minus_the_cosine_is_all_rounding(kinds, panels):
    # A row and others at angles of 1e-8, 1.01e-8, 1.02e-8 ...: their cosines all round to one.
    angles = 1e-8 * (1 + 0.01 * np.arange(40))
    hub = kinds.random_unit(np.random.default_rng(3), 1, 64)[0]
    aside = np.linalg.qr(np.column_stack([hub, np.random.default_rng(4).random((64, 40))]))[0][
        :, 1:
    ]
    order = np.random.default_rng(5).permutation(40)
    rows = np.concatenate([hub[None], (hub[:, None] + angles * aside).T[order]])
    prototypes = Prototypes.from_weight(rows)
    comparison = Comparison(prototypes, Threshold(0.025), panels=panels)
    nearest = nearest_of(comparison, leader_cover(comparison))
    assert nearest.index[0] == 1 + int(order.argmin())
    np.testing.assert_allclose(nearest.angle[0], 1e-8, rtol=1e-6)
    assert (nearest.index[1:] == 0).all()  # spokes are sqrt(2) further from each other
    np.testing.assert_allclose(nearest.angle[1:], angles[order], rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "epsilon", "unique"),
    [
        ([[1, 0], [3, 4]], 0.4, 2),
        ([[1, 0], [3, 4]], 0.4000000000000001, 1),
        ([[1, 0], [3, 4]], 0.3999999999999999, 2),
        ([[1, 0], [4, 3]], 0.2, 2),
        ([[1, 0], [4, 3]], 0.2000000000000001, 1),
        ([[1, 1, 1, 1], [1, 1, 1, -1]], 0.5, 2),
        ([[1, 1, 1, 1], [1, 1, 1, -1]], 0.5000000000000001, 1),
        ([[5, 0], [3, 4]], 0.4, 2),
        # the stored numbers count: 0.3 to 0.4 is a little flatter than 3 to 4 in float64 ...
        ([[0.1, 0.0], [0.3, 0.4]], 0.4, 2),
        # ... and a little steeper in float32
        ([[0.1, 0.0], [float(np.float32(0.3)), float(np.float32(0.4))]], 0.4, 1),
    ],
)
def test_a_pair_at_exactly_the_threshold_is_no_duplicate(panels, rows, epsilon, unique):
    weight = np.array(rows, dtype=np.float64)
    prototypes = Prototypes.from_weight(weight)
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    cover = leader_cover(comparison)
    links = link_groups(comparison, cover)
    assert len(cover.leaders) == links.num_components == unique
    assert links.neighbours.tolist() == [2 - unique] * 2
    (level,) = survey(comparison, [epsilon], nearest=False).levels
    assert (level.greedy, level.components, level.isolated) == (unique, unique, 2 * unique - 2)


def test_equally_near_members_of_a_group_are_ranked_beyond_float32(kinds, panels):
    # 20 members of one group, each with two others 0.02 away but for a factor of 1 + 1e-9
    rng = np.random.default_rng(6)
    hub = kinds.random_unit(rng, 1, 64)[0]
    members = kinds.at_distance(rng, hub, np.full(20, 0.005))
    near = [kinds.at_distance(rng, m, 0.0002 * np.array([1 + 1e-9, 1.0])) for m in members]
    rows = np.concatenate([hub[None], members, *near])
    prototypes = Prototypes.from_weight(rows)
    comparison = Comparison(prototypes, Threshold(0.025), panels=panels)
    cover = leader_cover(comparison)
    assert len(cover.leaders) == 1
    found = nearest_of(comparison, cover).index
    assert found[1:21].tolist() == [22 + 2 * i for i in range(20)]
