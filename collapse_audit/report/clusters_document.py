"""The document of `collapse-audit clusters --format json`, as types."""

from __future__ import annotations

from typing import Final, TypedDict

from collapse_audit.report.documents import Document

CLUSTERS_SCHEMA: Final = "collapse-audit/clusters"


class PlateauDocument(TypedDict):
    """A count that a range of epsilon leaves alone."""

    clusters: int
    start: float
    stop: float
    width: float
    votes: int


class PartDocument(TypedDict):
    """The shape of one component of the widest plateau."""

    samples: int
    elongation: float | None
    p_round: float | None
    p_normal: float | None


class CurveDocument(TypedDict):
    """M over epsilon, with its 5 and 95 % quantiles over the bootstraps."""

    epsilon: list[float]
    clusters: list[int]
    low: list[int]
    high: list[int]


class ClustersDocument(Document):
    """An estimate of the number of clusters, or why there is none."""

    clusters: int | None
    reason: str
    n: int
    d: int
    centres: int
    kept: int
    bootstraps: int
    seed: int
    plateaus: list[PlateauDocument]
    parts: list[PartDocument]
    curve: CurveDocument
