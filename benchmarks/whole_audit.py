"""A script as one would write it with faiss or scikit-learn: what ``collapse-audit FILE`` answers.

``python -m benchmarks.whole_audit faiss FILE`` reads a matrix and prints, as JSON, the unique
prototypes by leader cover, components and isolated rows at seven epsilons, and quantiles of the
cosine to the nearest other row. It imports nothing of this package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

EPSILONS = (0.005, 0.0125, 0.025, 0.05, 0.1, 0.25, 0.5)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BLOCK = 1024

Rows = npt.NDArray[np.float32]
# rows of a block -> (row in the block, other row, cosine) of pairs closer than the largest epsilon,
# and the nearest cosine of each row
Search = Callable[[int, int], tuple[Any, Any, Any, Any]]


def main() -> None:
    """Read, search block by block, print."""
    package, path = sys.argv[1:]
    rows = _read(Path(path))
    search = {"faiss": _faiss, "sklearn": _sklearn}[package](rows)
    k = len(rows)
    label = np.tile(np.arange(k), (len(EPSILONS), 1))
    leader = np.zeros((len(EPSILONS), k), dtype=np.bool_)
    alone = np.ones((len(EPSILONS), k), dtype=np.bool_)
    nearest = np.empty(k)
    for first in range(0, k, _BLOCK):
        last = min(first + _BLOCK, k)
        row, other, cosine, nearest[first:last] = search(first, last)
        row = row + first
        row, other, cosine = (values[row != other] for values in (row, other, cosine))
        for level, epsilon in enumerate(EPSILONS):
            close = cosine > 1 - epsilon
            i, j = row[close], other[close]
            alone[level, i] = False
            _cover(leader[level], first, last, i, j)
            ends = label[level][i], label[level][j]
            graph = coo_array((np.ones(len(i), dtype=np.int8), ends), shape=(k, k))
            label[level] = connected_components(graph, directed=False)[1][label[level]]
    print(json.dumps(_report(leader, label, alone, nearest)))


def _cover(leader: Any, first: int, last: int, row: Any, other: Any) -> None:
    """Leaders among the rows of a block: no leader before them is closer."""
    earlier = other < row
    row, other = row[earlier], other[earlier]
    starts = np.searchsorted(row, np.arange(first, last + 1))
    for place in range(last - first):
        leader[first + place] = not leader[other[starts[place] : starts[place + 1]]].any()


def _report(leader: Any, label: Any, alone: Any, nearest: Any) -> dict[str, Any]:
    return {
        "sweep": [
            {
                "epsilon": epsilon,
                "greedy": int(leader[level].sum()),
                "components": len(np.unique(label[level])),
                "isolated": int(alone[level].sum()),
            }
            for level, epsilon in enumerate(EPSILONS)
        ],
        "nearest_cosine": np.quantile(nearest, QUANTILES).tolist(),
    }


def _read(path: Path) -> Rows:
    from safetensors.numpy import load_file

    (weight,) = (value for value in load_file(path).values() if value.ndim == 2)
    rows: Rows = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    return rows


def _faiss(rows: Rows) -> Search:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)

    def search(first: int, last: int) -> tuple[Any, Any, Any, Any]:
        limits, cosine, other = index.range_search(rows[first:last], 1 - EPSILONS[-1])
        row = np.repeat(np.arange(last - first), np.diff(limits).astype(np.int64))
        two, found = index.search(rows[first:last], 2)
        own = found[:, 0] == np.arange(first, last)
        return row, other, cosine, np.where(own, two[:, 1], two[:, 0])

    return search


def _sklearn(rows: Rows) -> Search:
    from sklearn.neighbors import NearestNeighbors

    radius = (2 * EPSILONS[-1]) ** 0.5
    neighbours = NearestNeighbors(algorithm="brute", radius=radius).fit(rows)

    def search(first: int, last: int) -> tuple[Any, Any, Any, Any]:
        graph = neighbours.radius_neighbors_graph(rows[first:last], mode="distance").tocoo()
        two, found = neighbours.kneighbors(rows[first:last], 2)
        own = found[:, 0] == np.arange(first, last)
        nearest = np.where(own, two[:, 1], two[:, 0])
        return graph.row, graph.col, 1 - graph.data**2 / 2, 1 - nearest**2 / 2

    return search


if __name__ == "__main__":
    main()
