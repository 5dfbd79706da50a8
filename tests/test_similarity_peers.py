"""Independent packages on the same input: scikit-learn and faiss."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.neighbors import NearestNeighbors, radius_neighbors_graph

from collapse_audit import Prototypes
from collapse_audit.similarity import (
    Comparison,
    Threshold,
    leader_cover,
    link_groups,
)
from tests.engine_panels import nearest_of

HEADS = [
    "collapsed",
    "healthy",
    "healthy, linked",
    "chained",
    "wide groups",
    "wide groups near by",
    "cone 0.8",
    "half collapsed",
    "antipodal",
    "star shells 0.001",
    "d = 16",
    "d = 1024",
]


@pytest.fixture(scope="module", params=HEADS)
def case(request, make_head, clear_epsilon):
    """A head, and a threshold from which every pair keeps clear of float32 rounding."""
    head = make_head(request.param)
    return head.prototypes, clear_epsilon(head.weight, head.epsilon)


def compared(case, panels):
    prototypes, epsilon = case
    comparison = Comparison(prototypes, Threshold(epsilon), panels=panels)
    return comparison, leader_cover(comparison)


def same_partition(one, other):
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_components_are_the_clusters_of_dbscan_with_one_sample(case, panels, metric):
    prototypes, epsilon = case
    links = link_groups(*compared(case, panels))
    radius = epsilon if metric == "cosine" else np.sqrt(2 * epsilon)
    peer = DBSCAN(eps=radius, min_samples=1, metric=metric).fit(prototypes.unit_rows())
    assert same_partition(links.component, peer.labels_)
    assert links.num_components == peer.labels_.max() + 1


def test_neighbours_are_the_radius_neighbours_of_scikit_learn(case, panels):
    prototypes, epsilon = case
    links = link_groups(*compared(case, panels))
    graph = radius_neighbors_graph(prototypes.unit_rows(), np.sqrt(2 * epsilon))
    np.testing.assert_array_equal(links.neighbours, np.asarray(graph.sum(axis=1)).ravel())


def test_neighbours_are_the_range_search_of_faiss(case, panels):
    faiss = pytest.importorskip("faiss")
    prototypes, epsilon = case
    links = link_groups(*compared(case, panels))
    unit = prototypes.unit_rows().astype(np.float32)
    index = faiss.IndexFlatIP(prototypes.d)
    index.add(unit)
    limits, _, _ = index.range_search(unit, 1 - epsilon)
    np.testing.assert_array_equal(links.neighbours, np.diff(limits.astype(np.int64)) - 1)


def test_the_nearest_are_those_of_scikit_learn(case, panels):
    prototypes, _ = case
    nearest = nearest_of(*compared(case, panels))
    unit = prototypes.unit_rows()
    peer = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(unit)
    distance, _ = peer.kneighbors()
    np.testing.assert_allclose(np.sqrt(2 * nearest.distance), distance[:, 0], atol=1e-7)
    chord = np.linalg.norm(unit - unit[nearest.index], axis=1)
    np.testing.assert_allclose(chord, distance[:, 0], atol=1e-7)


@pytest.mark.slow
def test_a_head_of_many_blocks_agrees_with_the_peers(kinds, clear_epsilon):
    rng = np.random.default_rng(12)
    rows = np.concatenate(
        [kinds.collapsed(rng, 4000, 32, 60, 0.16), rng.standard_normal((2500, 32))]
    )
    prototypes = Prototypes.from_weight(rng.permutation(rows))
    epsilon = clear_epsilon(prototypes.rows, 0.025)
    comparison = Comparison(prototypes, Threshold(epsilon))
    links = link_groups(comparison, leader_cover(comparison))
    unit = prototypes.unit_rows()
    peer = DBSCAN(eps=np.sqrt(2 * epsilon), min_samples=1).fit(unit)
    assert same_partition(links.component, peer.labels_)
    graph = radius_neighbors_graph(unit, np.sqrt(2 * epsilon))
    np.testing.assert_array_equal(links.neighbours, np.asarray(graph.sum(axis=1)).ravel())
