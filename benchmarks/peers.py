"""What one would use instead: each answers a part of an audit, or the nearest neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from benchmarks.inputs import EPSILON, Rows
from benchmarks.methods import Answer, Method, chords

_COSINE = 1.0 - EPSILON
_RADIUS = (2.0 * EPSILON) ** 0.5  # |x - y|^2 = 2 (1 - cosine) for unit rows
_BLOCK = 2048


def methods() -> list[Method]:
    """The peers, those that are not installed included."""
    return [
        Method(
            name="faiss-range",
            label="faiss range_search + components",
            task="audit",
            run=_faiss_range,
            read=_read_graph,
            package="faiss",
        ),
        Method(
            name="torch-threshold",
            label="torch, blocked product > threshold",
            task="audit",
            run=_torch_threshold,
            read=_read_degrees,
            package="torch",
        ),
        Method(
            name="faiss-knn",
            label="faiss kNN, k = 2",
            task="nearest",
            run=_faiss_knn,
            read=_read_neighbours,
            package="faiss",
        ),
        Method(
            name="sklearn-dbscan",
            label="scikit-learn DBSCAN(min_samples=1)",
            task="audit",
            run=_dbscan,
            read=_read_labels,
            package="sklearn",
        ),
        Method(
            name="sklearn-radius",
            label="scikit-learn radius_neighbors",
            task="audit",
            run=_radius_neighbours,
            read=_read_lists,
            package="sklearn",
        ),
        Method(
            name="community-detection",
            label="sentence-transformers community_detection",
            task="audit",
            run=_community_detection,
            read=_read_communities,
            package="sentence_transformers",
        ),
    ]


def _faiss_index(rows: Rows) -> Any:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def _faiss_range(rows: Rows) -> tuple[npt.NDArray[np.int64], int]:
    limits, _, neighbours = _faiss_index(rows).range_search(rows, _COSINE)
    ends = limits.astype(np.int64)
    ones = np.ones(len(neighbours), dtype=np.int8)
    graph = csr_array((ones, neighbours, ends), shape=(len(rows), len(rows)))
    return np.diff(ends) - 1, int(connected_components(graph, directed=False)[0])


def _read_graph(found: tuple[npt.NDArray[np.int64], int], rows: Rows) -> Answer:
    degrees, components = found
    counts = _read_degrees(degrees, rows).counts
    return Answer(counts={**counts, "components": components})


def _faiss_knn(rows: Rows) -> Any:
    return _faiss_index(rows).search(rows, 2)[1]


def _read_neighbours(found: Any, rows: Rows) -> Answer:
    own = np.arange(len(rows))
    # A copy of a row may come before the row itself.
    return Answer(distance=chords(rows, np.where(found[:, 0] == own, found[:, 1], found[:, 0])))


def _torch_threshold(rows: Rows) -> npt.NDArray[np.int64]:
    import torch

    tensor = torch.from_numpy(rows)
    degrees = torch.empty(len(rows), dtype=torch.int64)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        degrees[part] = (tensor[part] @ tensor.T > _COSINE).sum(1)
    return degrees.numpy() - 1


def _read_degrees(degrees: npt.NDArray[np.int64], rows: Rows) -> Answer:
    del rows
    return Answer(counts={"isolated": int((degrees == 0).sum()), "pairs": int(degrees.sum()) // 2})


def _dbscan(rows: Rows) -> npt.NDArray[np.intp]:
    from sklearn.cluster import DBSCAN

    return np.asarray(DBSCAN(eps=_RADIUS, min_samples=1, n_jobs=-1).fit(rows).labels_)


def _read_labels(labels: npt.NDArray[np.intp], rows: Rows) -> Answer:
    del rows
    sizes = np.bincount(labels)
    return Answer(counts={"components": len(sizes), "isolated": int((sizes == 1).sum())})


def _radius_neighbours(rows: Rows) -> npt.NDArray[np.object_]:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(radius=_RADIUS, n_jobs=-1).fit(rows)
    return np.asarray(search.radius_neighbors(return_distance=False))


def _read_lists(lists: npt.NDArray[np.object_], rows: Rows) -> Answer:
    return _read_degrees(np.array([len(neighbours) for neighbours in lists]), rows)


def _community_detection(rows: Rows) -> int:
    import torch
    from sentence_transformers.util import community_detection

    tensor = torch.from_numpy(rows)
    return len(community_detection(tensor, threshold=_COSINE, min_community_size=1))


def _read_communities(count: int, rows: Rows) -> Answer:
    del rows
    return Answer(counts={"communities": count})
