"""The Euclidean metric against its definition in fractions, at ties, copies and any scale."""

from __future__ import annotations

from fractions import Fraction
from importlib import import_module
from unittest import mock

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collapse_audit import (
    ParameterError,
    PrototypeError,
    Prototypes,
    audit,
    audit_prototypes,
    measure_redundancy,
)
from collapse_audit.report.schema import report_schema
from collapse_audit.similarity import EuclideanComparison, Points, bracket_unique, leader_cover
from collapse_audit.similarity import link_groups as links_of
from collapse_audit.similarity.euclidean import ExactDistances, Radius
from collapse_audit.similarity.products.lifted import LiftedPanel, LiftedRecheckPanel
from collapse_audit.similarity.products.panel import Operand
from tests.plain_definition import Definition, EuclideanDefinition, Rows

lifted = import_module("collapse_audit.similarity.products.lifted")
few = settings(max_examples=30)


def found_in(weight, radius, **options):
    return measure_redundancy(weight, metric="euclidean", radius=radius, **options)


def assert_is(weight, radius, sweep=()):
    """Everything that is counted, against the definition."""
    found, truth = found_in(weight, radius, sweep=sweep), EuclideanDefinition(weight, radius)
    leaders, group = truth.greedy()
    assert sorted(found.leaders.tolist()) == leaders
    assert found.leaders[found.groups].tolist() == [leaders[g] for g in group]
    assert (found.components, found.isolated) == (truth.components, truth.isolated)
    assert found.neighbours.tolist() == truth.neighbours
    assert sorted(zip(found.leaders.tolist(), found.cliques.tolist(), strict=True)) == list(
        zip(leaders, truth.cliques(), strict=True)
    )
    for level in found.sweep:
        there = truth.at(level.threshold)
        counts = (len(there.greedy()[0]), there.components, there.isolated)
        assert (level.greedy, level.components, level.isolated) == counts
    for _ in range(4):
        order = np.random.default_rng(len(weight)).permutation(len(weight))
        assert found.bracket.low <= len(truth.greedy(order)[0]) <= found.bracket.high
    nearest = [truth.distances(row).min() for row in range(len(weight))]
    np.testing.assert_allclose(found.nearest.distance, nearest, rtol=1e-11, atol=1e-300)
    return found


def lattice(k, d, seed):
    """Whole numbers from 1 to 4: distances are roots of whole numbers, and many rows are copies."""
    return np.random.default_rng(seed).integers(1, 5, (k, d)).astype(np.float32)


@pytest.mark.parametrize("radius", [1.0, 1.4142135623730951, 2.0, 2.23606797749979, 3.0, 50.0])
@pytest.mark.parametrize(("k", "d"), [(60, 2), (80, 4), (40, 16)])
def test_ties_on_a_lattice_are_decided_strictly(k, d, radius):
    assert_is(lattice(k, d, k), radius, sweep=(radius / 2, 2 * radius))


@pytest.mark.parametrize("power", [-980, -300, -40, 40, 300, 980])
def test_a_power_of_two_changes_no_count(power):
    weight, radius, scale = lattice(50, 3, 1).astype(np.float64), 1.2, 2.0**power
    found, scaled = found_in(weight, radius), found_in(weight * scale, radius * scale)
    assert found.groups.tolist() == scaled.groups.tolist()
    assert found.neighbours.tolist() == scaled.neighbours.tolist()
    assert found.bracket == scaled.bracket


def test_numbers_too_long_for_float64_are_decided_by_fractions():
    # |x - y|^2 is 1 - 2^-50 and a little more than 1 here; both round to 1 in float64
    rows = np.array([[1.0, 0.0], [2.0 - 2.0**-51, 0.0], [2.0**-60, 1.0], [3.0, 2.0**-60]])
    assert_is(rows, 1.0)
    assert_is(rows + 1.0 / 3.0, 1.0)


@pytest.mark.parametrize("offset", [0.0, 14.0, 20.0, 200.0])
def test_the_default_radius_does_not_ask_where_the_origin_is(offset):
    weight = np.random.default_rng(3).standard_normal((300, 24))
    weight[:40] = weight[40]  # copies of one code
    found = measure_redundancy(weight + offset, metric="euclidean")
    assert found.num_unique == 260
    assert found.radius == pytest.approx(measure_redundancy(weight, metric="euclidean").radius)


@pytest.mark.parametrize("radius", ["x", True, 10**400, [1.0]])
def test_what_is_no_radius_is_refused(radius):
    with pytest.raises(ParameterError, match="radius must be a"):
        measure_redundancy(np.eye(4), metric="euclidean", radius=radius)


def test_one_point_far_from_the_origin_is_one_point():
    found = audit_prototypes(np.full((20, 3), 7.0), metric="euclidean")
    assert found.num_unique == 1
    assert not any("logits" in note for note in found.head_report()["notes"])


def test_a_decimal_radius_is_the_number_that_was_typed():
    assert Fraction(0.7) < Fraction(
        "0.7"
    )  # the float is a little below, and so is the second distance
    assert found_in(np.array([[1.0, 0.0], [1.0, 0.7]]), 0.7).num_unique == 1
    tied = np.array([[0.5, 1.0], [0.75, 1.0]])
    assert [found_in(tied, radius).num_unique for radius in (0.25, 0.2500001)] == [2, 1]


def test_copies_and_chains_and_near_copies_of_one_point():
    rng = np.random.default_rng(0)
    chain = np.stack([np.arange(40) * 0.9, np.full(40, 7.0)], axis=1)
    near = np.array([20.0, 3.0]) + 1e-7 * rng.standard_normal((40, 2))
    weight = rng.permutation(np.concatenate([chain, near, chain[:9]]))
    found = assert_is(weight, 1.0, sweep=(1e-7, 0.5, 2.0))
    assert found.nearest.copies == 9
    assert not found.bracket.definition_independent


def test_float64_decides_what_float32_leaves_open():
    rng = np.random.default_rng(2)
    weight = np.concatenate([1e-4 * rng.standard_normal((100, 3)), rng.standard_normal((20, 3))])
    with mock.patch("collapse_audit.similarity.predicate._MANY", 50):
        assert_is(weight, 1e-4, sweep=(1e-5, 0.1))


@few
@given(
    arrays(np.int64, st.tuples(st.integers(2, 24), st.integers(1, 4)), elements=st.integers(1, 9)),
    st.sampled_from([0.5, 1.0, 2.0, 2.8284271247461903, 5.0, 100.0]),
)
def test_any_small_codebook_is_counted_by_definition(whole, radius):
    assert_is(whole / 8.0, radius / 8.0, sweep=(radius / 16.0, radius / 4.0))


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.005, 0.025, 0.1, 0.5]))
def test_on_unit_rows_it_is_the_cosine_metric(seed, epsilon):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((6, 8))[rng.integers(0, 6, 60)] + 0.15 * rng.standard_normal((60, 8))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    if (np.abs(distance - epsilon) < 1e-9).any():
        return  # at a tie the two round differently
    here, there = measure_redundancy(unit, epsilon=epsilon), found_in(unit, np.sqrt(2 * epsilon))
    assert here.groups.tolist() == there.groups.tolist()
    assert here.neighbours.tolist() == there.neighbours.tolist()
    assert here.components == there.components
    chord = np.sqrt(2 * here.nearest.distance)
    np.testing.assert_allclose(there.nearest.distance, chord, rtol=1e-9, atol=1e-12)


@few
@given(st.integers(0, 2**32 - 1))
def test_permuting_the_rows_permutes_what_does_not_depend_on_order(seed):
    rng = np.random.default_rng(seed)
    weight, order = lattice(50, 3, seed), rng.permutation(50)
    one, other = found_in(weight, 1.5), found_in(weight[order], 1.5)
    assert (one.components, one.isolated) == (other.components, other.isolated)
    assert one.neighbours[order].tolist() == other.neighbours.tolist()


def test_moving_all_points_changes_no_count_and_the_norms_decide():
    weight = lattice(60, 3, 5)
    assert found_in(weight + 64.0, 1.5).groups.tolist() == found_in(weight, 1.5).groups.tolist()
    ray = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    assert (measure_redundancy(ray).num_unique, found_in(ray, 0.5).num_unique) == (1, 3)


def test_a_weight_normed_layer_is_compared_by_g_v():
    v, g = lattice(40, 4, 6), np.random.default_rng(6).uniform(0.5, 3.0, 40)
    head = Prototypes.from_weight(v, scale=g)
    weight: Rows = head.rows * (head.norms / head.lengths)[:, None]
    assert_is(weight, 1.0)
    assert found_in(head, 1.0).groups.tolist() == found_in(weight, 1.0).groups.tolist()


@pytest.mark.parametrize("kind", [LiftedPanel, LiftedRecheckPanel])
@pytest.mark.parametrize("d", [1, 7, 64, 600])
def test_scores_of_lifted_rows_keep_their_bound(kind, d):
    rng = np.random.default_rng(d)
    rows = rng.standard_normal((300, d)) * 10.0 ** rng.uniform(-6, 0, (300, 1))
    points = Points(Prototypes.from_weight(rows))
    unit = points.unit_rows().astype(np.longdouble)
    expected = 1 - ((unit[:, None] - unit[None]) ** 2).sum(axis=2) / 2
    everyone = Operand(np.arange(300))
    assert np.abs(kind(points).tile(everyone, everyone) - expected).max() <= kind(points).error


def test_a_panel_as_wrong_as_its_bound_changes_no_count():
    class Worst(LiftedPanel):
        """Every score errs anew by up to a bound that is far larger."""

        def __init__(self, points):
            super().__init__(points)
            self._rng, self.error = np.random.default_rng(0), self.error + 0.02

        def tile(self, rows, columns):
            scores = super().tile(rows, columns)
            return scores + np.float32(0.0199) * self._rng.uniform(-1, 1, scores.shape)

    rng = np.random.default_rng(3)
    weight = np.concatenate([lattice(70, 3, 3), 1 + rng.random((30, 3)).astype(np.float32)])
    with mock.patch.object(lifted, "LiftedPanel", Worst):
        assert_is(weight, 1.0, sweep=(0.5, 2.0))


def test_the_bracket_holds_for_every_order():
    weight = lattice(30, 2, 8) + np.float32(0.25) * lattice(30, 2, 9)
    comparison = EuclideanComparison(Points(Prototypes.from_weight(weight)), 1.0)
    cover = leader_cover(comparison)
    bracket = bracket_unique(comparison, cover, links_of(comparison, cover))
    truth = EuclideanDefinition(weight, 1.0)
    rng = np.random.default_rng(0)
    sizes = [len(truth.greedy(rng.permutation(30))[0]) for _ in range(200)]
    assert bracket.low <= min(sizes) <= max(sizes) <= bracket.high
    assert bracket.order_range[0] >= bracket.low


@pytest.mark.parametrize("radius", [1e-300, 1e300])
def test_the_smallest_and_the_largest_radius_are_taken(radius):
    weight = lattice(40, 2, 11)
    found = found_in(weight, radius)
    assert found.num_unique == (1 if radius > 1 else len(np.unique(weight, axis=0)))
    assert found.bracket.definition_independent


def test_pairs_that_differ_by_nothing_are_closer_than_the_smallest_radius():
    pairs = ExactDistances(Points(Prototypes.from_weight(np.ones((2, 3)))))
    first, second = np.array([0]), np.array([1])
    assert pairs.closer(first, second, Radius(1e-300, 1)).all()


# --- the default radius --------------------------------------------------------------------------


def healthy(k=300, d=16, seed=0):
    return np.random.default_rng(seed).standard_normal((k, d))


def test_by_default_the_radius_is_a_fifth_of_the_median_nearest_distance():
    weight = healthy()
    truth = EuclideanDefinition(weight[:2], 1.0)
    truth.rows = weight
    median = np.median([truth.distances(row).min() for row in range(len(weight))])
    found = found_in(weight, None)
    assert found.radius == float(f"{0.2 * median:.3g}")
    assert f"median nearest distance, {median:.3g}" in found.notes[0]
    assert [level.threshold for level in found.sweep] == [
        share * found.radius for share in (0.25, 0.5, 1.0, 2.0, 4.0)
    ]
    assert_is(weight[:40], found.radius)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-2])
def test_copies_and_dead_rows_do_not_lower_the_default_radius(noise):
    rng = np.random.default_rng(1)
    weight = healthy(40)[np.append(np.arange(40), rng.integers(0, 40, 360))]
    weight = weight + noise * rng.standard_normal(weight.shape)
    found = found_in(weight, None)
    assert found.num_unique == 40
    assert found.radius == pytest.approx(found_in(healthy(40), None).radius, rel=0.05)
    assert "count once" in found.notes[0]
    dead = np.concatenate([1e-3 * rng.standard_normal((500, 16)), healthy()])
    assert found_in(dead, None).radius == found_in(healthy(), None).radius
    assert found_in(dead, None).num_unique == 301


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_codebook_that_is_one_point_has_one_unique_code(noise):
    weight = np.full((50, 4), 3.0) + noise * healthy(50, 4)
    found = found_in(weight, None)
    assert (found.num_unique, found.radius) == (1, 1.2)
    assert "one such group" in found.notes[0]


def test_the_nearest_need_not_be_kept_for_the_default_radius():
    found = found_in(healthy(), None, nearest=False)
    assert found.nearest is None
    assert found.radius == found_in(healthy(), None).radius


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "euclidean", "epsilon": 0.025}, "epsilon is a cosine distance"),
        ({"radius": 0.1}, "radius is a Euclidean distance"),
        ({"metric": "euclidean", "radius": 0.0}, "radius must be a distance from"),
        ({"metric": "euclidean", "radius": float("nan")}, "radius must be a distance from"),
        ({"metric": "euclidean", "radius": float("inf")}, "radius must be a distance from"),
        ({"metric": "euclidean", "radius": 0.5, "sweep": [-1.0]}, "a radius must be above 0"),
        ({"metric": "manhattan"}, "metric must be cosine or euclidean, got 'manhattan'"),
        ({"metric": "euclidean", "device": "tpu"}, "device"),
    ],
)
def test_a_threshold_of_the_other_metric_is_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        measure_redundancy(np.eye(3), **options)


def test_rows_of_zeros_are_points_as_others(tmp_path):
    weight = np.concatenate([np.zeros((3, 4)), healthy(30, 4), np.full((1, 4), 0.01)])
    truth = EuclideanDefinition(weight, 0.1)
    found = audit_prototypes(weight, metric="euclidean", radius=0.1)
    assert found.num_unique == len(truth.greedy()[0])
    assert (found.dead.count, found.dead.live.k) == (4, 30)
    jsonschema.validate(found.to_dict(), report_schema())
    assert "of norms up to" in str(found)
    np.save(tmp_path / "codes.npy", weight)
    stored = audit(tmp_path / "codes.npy", metric="euclidean")
    assert stored.redundancy.radius == found_in(weight[3:33], None).radius
    for metric in ("cosine", "euclidean"):
        weight[5, 0] = np.nan
        with pytest.raises(PrototypeError, match="NaN or infinite"):
            audit_prototypes(weight, metric=metric)


def test_rows_of_zeros_have_no_direction_and_not_all_may_be_dead():
    weight = np.concatenate([np.zeros((3, 4)), healthy(30, 4)])
    points = Prototypes.from_weight(weight, zero_rows=True)
    for head in (weight, points):
        with pytest.raises(PrototypeError, match="3 of 33 prototypes are all zero"):
            measure_redundancy(head)
    with pytest.raises(PrototypeError, match="9 of 9 prototypes are all zero"):
        found_in(np.zeros((9, 4)), None)
    assert found_in(np.append(np.zeros((8, 4)), np.ones((1, 4)), axis=0), None).num_unique == 2


def test_rows_too_long_for_their_distances_are_refused():
    with pytest.raises(PrototypeError, match="does not hold"):
        found_in(np.array([[1e308, 1e308], [1.0, 1.0]]), 1.0)


def test_there_is_no_cosine_of_a_nearest_point():
    nearest = found_in(healthy(), 1.0).nearest
    for name in ("cosine", "angle"):
        with pytest.raises(ParameterError, match="Euclidean metric"):
            getattr(nearest, name)


def test_the_cosine_definition_and_this_one_are_two():
    ray = [[1.0, 0.0], [2.0, 0.0]]
    assert Definition(ray, 0.5).greedy()[0] == [0]
    assert EuclideanDefinition(ray, 0.5).greedy()[0] == [0, 1]
