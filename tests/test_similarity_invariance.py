"""What must not change the result, what must change it in a known way, and the laws it obeys."""

from __future__ import annotations

from importlib import import_module
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collapse_audit import Prototypes
from collapse_audit.similarity import (
    Comparison,
    NearestSearch,
    Threshold,
    bracket_unique,
    leader_cover,
    link_groups,
    small_components,
    survey,
)
from collapse_audit.similarity.components import connect_groups
from tests.engine_panels import nearest_of

# the package has a function of the same name
survey_module = import_module("collapse_audit.similarity.survey")
bracket_module = import_module("collapse_audit.similarity.bracket")

SOME_HEADS = ["collapsed", "healthy, linked", "chained", "wide groups near by", "signs at 0.25"]


def results(prototypes, epsilon, panels, block_rows=1024):
    """Everything that the engine computes, as bytes."""
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    cover = leader_cover(comparison, block_rows=block_rows)
    links = link_groups(comparison, cover)
    nearest = nearest_of(comparison, cover)
    arrays_ = [cover.leaders, cover.group, links.neighbours, links.clique, links.component]
    levels = survey(
        comparison, [epsilon / 2, epsilon, min(2 * epsilon, 0.99)], nearest=False
    ).levels
    found = [nearest.index, nearest.distance]
    return [a.tobytes() for a in (*arrays_, *found)], links.num_components, levels, nearest.copies


def counts(weight, epsilon, panels):
    """M, components, isolated and sorted neighbour counts."""
    prototypes = Prototypes.from_weight(weight)
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    cover = leader_cover(comparison)
    links = link_groups(comparison, cover)
    return len(cover.leaders), links.num_components, links.neighbours.tolist()


# Coarse numbers: copies, antipodes and equal distances are common.
coordinates = st.integers(-8, 8).map(lambda v: v / 2)
weights = st.tuples(st.integers(2, 24), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=coordinates)
)
weights = weights.filter(lambda w: (w != 0).any(axis=1).all())
few = settings(max_examples=20)
thresholds = st.sampled_from([0.001, 0.025, 0.1, 0.2, 0.25, 0.4, 0.5, 0.75, 0.96])


@settings(max_examples=40)
@given(weights, thresholds, st.integers(1, 30))
def test_any_small_head_equals_its_definition_for_every_block_size(
    definition, panels, weight, epsilon, block_rows
):
    truth = definition(weight, epsilon)
    prototypes = Prototypes.from_weight(weight)
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    cover = leader_cover(comparison, block_rows=block_rows)
    assert (cover.leaders.tolist(), cover.group.tolist()) == truth.greedy()
    links = link_groups(comparison, cover)
    assert links.num_components == truth.components
    assert links.neighbours.tolist() == truth.neighbours
    assert links.clique.tolist() == truth.cliques()
    nearest = nearest_of(comparison, cover)
    smallest = [truth.squared_chords(row).min() / 2 for row in range(len(weight))]
    np.testing.assert_allclose(nearest.distance, smallest, rtol=1e-12, atol=1e-28)


@settings(max_examples=60)
@given(
    weights,
    st.tuples(thresholds, st.sets(thresholds, max_size=4)),
    st.tuples(st.sampled_from([0, 3, 32]), st.sampled_from([1, 2, 8]), st.booleans()),
)
def test_a_survey_of_any_small_head_equals_counts_from_scratch(
    definition, panels, weight, asked, how
):
    (epsilon, epsilons), (most_members, share, nearest) = asked, how
    prototypes = Prototypes.from_weight(weight)
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    with (
        mock.patch.object(small_components, "_MOST_MEMBERS", most_members),
        mock.patch.object(survey_module, "_SHARE", share),
    ):
        found = survey(comparison, sorted(epsilons), nearest=nearest)
    assert [level.threshold for level in found.levels] == sorted(epsilons)
    for level in found.levels:
        truth = definition(weight, level.threshold)
        assert level.greedy == len(truth.greedy()[0])
        assert (level.components, level.isolated) == (truth.components, truth.isolated)
    truth = definition(weight, epsilon)
    assert (found.cover.leaders.tolist(), found.cover.group.tolist()) == truth.greedy()
    assert found.links.num_components == truth.components
    assert found.links.neighbours.tolist() == truth.neighbours
    assert found.links.clique.tolist() == truth.cliques()
    connected = link_groups(comparison, found.cover).component
    assert len(set(zip(connected, found.links.component, strict=True))) == truth.components
    if nearest:
        smallest = [truth.squared_chords(row).min() / 2 for row in range(len(weight))]
        np.testing.assert_allclose(found.nearest.distance, smallest, rtol=1e-12, atol=1e-28)
    else:
        assert found.nearest is None


@few
@given(weights, thresholds, thresholds)
def test_what_is_known_to_be_apart_changes_no_answer(panels, weight, one, other):
    tight, loose = sorted([one, other])
    prototypes = Prototypes.from_weight(weight)
    comparison = Comparison(prototypes, Threshold(tight), panels=panels)
    wide = comparison.at(loose)
    part = link_groups(wide, leader_cover(wide)).component
    cover, within = leader_cover(comparison), leader_cover(comparison, within=part)
    assert within.leaders.tolist() == cover.leaders.tolist()
    assert within.group.tolist() == cover.group.tolist()
    links, linked = link_groups(comparison, cover), link_groups(comparison, cover, within=part)
    assert linked.neighbours.tolist() == links.neighbours.tolist()
    assert linked.clique.tolist() == links.clique.tolist()
    connected = connect_groups(comparison, cover, within=part)
    for found in (linked, connected, connect_groups(comparison, cover)):
        assert found.num_components == links.num_components
        pairs = set(zip(found.component, links.component, strict=True))
        assert len(pairs) == links.num_components
    assert connected.sizes.sum() == len(weight)


@few
@given(weights, thresholds, thresholds)
def test_the_counts_obey_the_laws_of_the_duplicate_graph(panels, weight, one, other):
    prototypes = Prototypes.from_weight(weight)
    comparison = Comparison(prototypes, Threshold(one), panels=panels)
    cover = leader_cover(comparison)
    links = link_groups(comparison, cover)
    isolated = int((links.neighbours == 0).sum())
    assert isolated <= links.num_components <= len(cover.leaders) <= len(weight)
    assert cover.sizes.sum() == len(weight)
    assert (np.diff(cover.leaders) > 0).all()
    assert (cover.group[cover.leaders] == np.arange(len(cover.leaders))).all()
    unit = prototypes.unit_rows()
    assert (1 - (unit * unit[cover.leaders[cover.group]]).sum(axis=1) < one + 1e-12).all()
    apart = 1 - unit[cover.leaders] @ unit[cover.leaders].T + 2 * np.eye(len(cover.leaders))
    assert (apart >= one - 1e-12).all()
    below, above = sorted([one, other])
    levels = survey(comparison, [below, above], nearest=False).levels
    assert levels[0].components >= levels[-1].components
    assert levels[0].isolated >= levels[-1].isolated


@few
@given(weights, thresholds, st.randoms(use_true_random=False))
def test_permuting_the_rows_permutes_what_does_not_depend_on_order(panels, weight, epsilon, random):
    order = np.array(random.sample(range(len(weight)), len(weight)))
    _, components, neighbours = counts(weight, epsilon, panels)
    _, components_too, neighbours_too = counts(weight[order], epsilon, panels)
    assert components_too == components
    assert neighbours_too == np.array(neighbours)[order].tolist()


@few
@given(weights, thresholds, st.randoms(use_true_random=False))
def test_scanning_in_an_order_equals_permuting_the_rows(panels, weight, epsilon, random):
    order = np.array(random.sample(range(len(weight)), len(weight)))
    here, there = Prototypes.from_weight(weight), Prototypes.from_weight(weight[order])
    scanned = leader_cover(
        Comparison(here, Threshold(epsilon), panels=panels), order=order, block_rows=7
    )
    permuted = leader_cover(Comparison(there, Threshold(epsilon), panels=panels))
    assert scanned.leaders.tolist() == order[permuted.leaders].tolist()
    assert scanned.group[order].tolist() == permuted.group.tolist()


@few
@given(weights, thresholds, st.data())
def test_scaling_rows_by_powers_of_two_changes_no_byte(panels, weight, epsilon, data):
    powers = data.draw(arrays(np.int64, len(weight), elements=st.integers(-200, 200)))
    scaled = Prototypes.from_weight(weight * 2.0 ** powers[:, None])
    assert results(scaled, epsilon, panels) == results(
        Prototypes.from_weight(weight), epsilon, panels
    )


@pytest.mark.parametrize("name", SOME_HEADS)
def test_scaling_rows_by_any_factors_changes_no_count(make_head, clear_epsilon, panels, name):
    head = make_head(name)
    epsilon = clear_epsilon(head.weight, head.epsilon)
    rng = np.random.default_rng(1)
    scaled = head.weight * 10.0 ** rng.uniform(-9, 9, (len(head.weight), 1))
    assert counts(scaled, epsilon, panels) == counts(head.weight, epsilon, panels)


@pytest.mark.parametrize("name", SOME_HEADS)
def test_rotating_the_rows_changes_no_count(make_head, clear_epsilon, panels, name):
    head = make_head(name)
    epsilon = clear_epsilon(head.weight, head.epsilon)
    d = head.prototypes.d
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((d, d)))[0]
    assert counts(head.weight @ rotation, epsilon, panels) == counts(head.weight, epsilon, panels)


@pytest.mark.parametrize("name", SOME_HEADS)
def test_padding_with_zero_columns_changes_no_count(make_head, panels, name):
    head = make_head(name)
    padded = np.pad(head.weight, ((0, 0), (3, 5)))
    assert counts(padded, head.epsilon, panels) == counts(head.weight, head.epsilon, panels)


@pytest.mark.parametrize("name", SOME_HEADS)
@pytest.mark.parametrize("block_rows", [7, 100_000])
def test_the_block_size_changes_no_byte(make_head, panels, name, block_rows):
    head = make_head(name)
    expected = results(head.prototypes, head.epsilon, panels)
    assert results(head.prototypes, head.epsilon, panels, block_rows=block_rows) == expected


def test_the_number_of_threads_changes_no_byte(kinds, panels, threads):
    rng = np.random.default_rng(6)
    rows = np.concatenate([kinds.collapsed(rng, 700, 64, 3, 0.155), rng.standard_normal((500, 64))])
    prototypes = Prototypes.from_weight(rng.permutation(rows).astype(np.float32))
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(results(prototypes, 0.025, panels))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", SOME_HEADS)
def test_every_panel_gives_the_same_bytes(make_head, all_panels, name):
    head = make_head(name)
    first, *others = (results(head.prototypes, head.epsilon, made) for made in all_panels.values())
    assert all(other == first for other in others)


def test_one_panel_serves_many_thresholds(make_head, panels):
    head = make_head("wide groups near by")
    elsewhere = Comparison(head.prototypes, Threshold(0.5), panels=panels)
    here = elsewhere.at(head.epsilon)
    assert here.panel is elsewhere.panel
    assert leader_cover(here).leaders.tolist() == head.truth.greedy()[0]
    assert leader_cover(elsewhere).leaders.tolist() == head.truth.at(0.5).greedy()[0]


def test_progress_runs_up_to_the_whole_in_every_stage(make_head, panels):
    head = make_head("healthy, linked")
    seen: dict[str, list[tuple[int, int]]] = {}

    def progress(stage, done, total):
        seen.setdefault(stage, []).append((done, total))

    comparison = Comparison(head.prototypes, Threshold(head.epsilon), panels=panels)
    cover = leader_cover(comparison, block_rows=50, progress=progress)
    link_groups(comparison, cover, progress=progress)
    survey(comparison, [0.1, 0.9], progress=progress)
    assert {"cover", "links", "cover at 0.9", "links at 0.9"} <= set(seen)
    assert any(stage.startswith("nearest at ") for stage in seen)
    for calls in seen.values():
        done, totals = zip(*calls, strict=True)
        assert list(done) == sorted(done)
        assert done[-1] == totals[-1]
        assert len(set(totals)) == 1


@pytest.mark.parametrize("sweep", [(), (0.005, 0.5)])
def test_near_copies_beside_noise_leave_few_pairs_in_doubt(panels, sweep):
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((1024, 16))
    centre = weight[0] / np.linalg.norm(weight[0])
    weight[:450] = centre + 1e-6 * rng.standard_normal((450, 16))
    prototypes = Prototypes.from_weight(rng.permutation(weight).astype(np.float32))
    comparison = Comparison(prototypes, Threshold(0.025), panels=panels)
    offer, offered = NearestSearch._offer, []
    with mock.patch.object(
        NearestSearch, "_offer", lambda *a: (offered.append(len(a[1])), offer(*a))
    ):
        nearest = survey(comparison, sweep).nearest
    unit = prototypes.unit_rows()
    squared = np.stack([((unit - row) ** 2).sum(axis=1) for row in unit])
    np.fill_diagonal(squared, np.inf)
    np.testing.assert_allclose(nearest.distance, squared.min(axis=1) / 2, rtol=1e-9, atol=1e-28)
    assert sum(offered) < 450**2 / 2


def test_a_threshold_far_below_every_distance_finds_the_copies_alone(panels):
    prototypes = Prototypes.from_weight(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    comparison = Comparison(prototypes, Threshold(1e-160), panels=panels)
    found = survey(comparison, [1e-200, 0.5])
    assert len(found.cover.leaders) == 2
    assert [level.greedy for level in found.levels] == [2, 2]


def test_a_bracket_is_the_same_whatever_the_tiles_of_its_pairs(make_head, panels):
    head = make_head("chained")
    comparison = Comparison(head.prototypes, Threshold(head.epsilon), panels=panels)
    cover = leader_cover(comparison)
    links = link_groups(comparison, cover)
    expected = bracket_unique(comparison, cover, links)
    assert not expected.definition_independent
    for limits in ({"_ROWS": 7, "_COLUMNS": 11}, {"_LARGE_RUN": 0}):
        with mock.patch.multiple(bracket_module, **limits):
            assert bracket_unique(comparison, cover, links) == expected
