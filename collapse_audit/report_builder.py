"""What was measured on a head -> its entry in a report; heads -> the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.causes import ALL_EQUAL
from collapse_audit.dead_rows import DeadRows
from collapse_audit.prototypes import Metric, Prototypes
from collapse_audit.redundancy import Diversity, Redundancy
from collapse_audit.report.documents import (
    FEATURES_SCHEMA,
    REPORT_SCHEMA,
    SCHEMA_VERSION,
    TOOL,
    CountDocument,
    DeadDocument,
    FeaturesReport,
    HeadDocument,
    Level,
    MLCDDocument,
    NEffDocument,
    NullDocument,
    PublishedDocument,
    ReportDocument,
    SourceDocument,
)
from collapse_audit.report.usage_documents import SummaryDocument, SummaryUsage, UsageDocument
from collapse_audit.similarity import (
    Nearest,
    NEff,
    SweepLevel,
    duplicate_probability,
    nearest_cosine_quantiles,
)
from collapse_audit.stored_usage import DEAD_SHARE, measure_stored_usage

if TYPE_CHECKING:
    from collapse_audit.mlcd import MLCD, FeatureSpread

_TOP_FACTORS: Final = 20
_QUANTILES: Final = {"q01": 0.01, "q05": 0.05, "median": 0.5, "q95": 0.95, "q99": 0.99}


def report_document(
    source: SourceDocument, metric: Metric, epsilon: float | None, heads: Sequence[HeadDocument]
) -> ReportDocument:
    """The report of one source, with at least one head."""
    radii = {head.get("radius") for head in heads}
    report: ReportDocument = {
        "schema": REPORT_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tool": TOOL.copy(),
        "source": source,
        "parameters": {
            "epsilon": epsilon,
            "rule": "greedy",
            "certified": True,
            "metric": metric,
            "radius": radii.pop() if len(radii) == 1 else None,
        },
        "heads": list(heads),
    }
    if len(heads) > 1:
        report["summary"] = _summary(heads)
    return report


def features_report(
    source: SourceDocument, note: str, features: Mapping[str, FeatureSpread]
) -> FeaturesReport:
    """The report of a source without prototypes; the note says why there is no head."""
    return {
        "schema": FEATURES_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tool": TOOL.copy(),
        "source": source,
        "note": note,
        "features": {place: spread.to_dict() for place, spread in features.items()},
    }


def head_document(
    prototypes: Prototypes,
    redundancy: Redundancy,
    published: Sequence[tuple[int, str]] = (),
    mlcd: MLCD | None = None,
    diversity: Diversity | None = None,
    *,
    dead: DeadRows | None = None,
) -> HeadDocument:
    """The entry of one head, with its published counts: the one to compare with first."""
    p, r, bracket, nearest = prototypes, redundancy, redundancy.bracket, redundancy.nearest
    document: HeadDocument = {
        "name": p.name,
        "branch": p.branch,
        "tensor_keys": list(p.tensor_keys),
        "tensor_sha256": dict(p.tensor_sha256),
        "notes": [
            *p.notes,
            *r.notes,
            *([ALL_EQUAL] if r.num_unique == 1 and r.metric == "cosine" else []),
            *([] if dead is None else [dead.note]),
        ],
        "k": p.k,
        "d": p.d,
        "dtype": p.dtype,
        "unique": {
            "greedy": r.num_unique,
            "components": r.components,
            "isolated": r.isolated,
            **_n_eff(r.n_eff),
            "bracket": [bracket.low, bracket.high],
            "order_range": bracket.order_range and list(bracket.order_range),
            "definition_independent": bracket.definition_independent,
        },
        "unique_fraction": r.unique_fraction,
        "redundancy_factors": {
            "max": int(r.redundancy_factors[0]),
            "mean": r.mean_redundancy,
            "gini": r.gini,
            "effective_number": r.effective_number,
            "top": [int(factor) for factor in r.redundancy_factors[:_TOP_FACTORS]],
            "histogram": [list(bar) for bar in r.histogram],
        },
        "sweep": [_level(level, r.metric) for level in r.sweep],
        "nearest_cosine": None,
        "dead": None if dead is None else _dead(dead),
        "norms": _norms(p, r),
        "stored_usage": None if p.usage is None else _stored_usage(p.usage, r),
        "exact_duplicates": None if nearest is None else nearest.copies,
        "mean_direction_norm": _mean_direction_norm(p),
        "null": None if r.epsilon is None else _null(p, r.epsilon),
        "published": _published(published),
        "mlcd": None if mlcd is None else _mlcd(mlcd, diversity),
    }
    if r.radius is not None:
        document["radius"] = r.radius
        document["nearest_distance"] = None if nearest is None else _quantiles(nearest.distance)
    elif nearest is not None:
        document["nearest_cosine"] = _nearest_cosine(nearest)
    return document


def _n_eff(found: NEff) -> NEffDocument:
    interval = None if found.is_exact else [found.low, found.high]
    return {"n_eff": found.value, "n_eff_interval": interval}


def _mlcd(mlcd: MLCD, diversity: Diversity | None) -> MLCDDocument:
    return {**mlcd.to_dict(), "diversity": None if diversity is None else asdict(diversity)}


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    inner = np.quantile(values, list(_QUANTILES.values())).tolist()
    inside = dict(zip(_QUANTILES, inner, strict=True))
    return {"min": float(values.min()), **inside, "max": float(values.max())}


def _nearest_cosine(nearest: Nearest) -> dict[str, float]:
    cosine = nearest.cosine
    # SAEBench's names for its numbers; what it lists by feature, the second, is here the largest
    saebench = {
        "average_max_decoder_cosine_sim": float(cosine.mean()),
        "max_decoder_cosine_sim": float(cosine.max()),
    }
    return {**_quantiles(cosine), **saebench}


def _level(level: SweepLevel, metric: Metric) -> Level:
    effective = _n_eff(level.n_eff)
    document: Level = {
        "greedy": level.greedy,
        "components": level.components,
        "isolated": level.isolated,
        "n_eff": effective["n_eff"],
        "n_eff_interval": effective["n_eff_interval"],
    }
    document["epsilon" if metric == "cosine" else "radius"] = level.threshold
    return document


def _dead(dead: DeadRows) -> DeadDocument:
    return {
        "count": dead.count,
        "largest_norm": dead.largest_norm,
        "smallest_live_norm": dead.smallest_live_norm,
        "live": {
            "k": dead.live.k,
            "unique": dead.live.num_unique,
            "unique_fraction": dead.live.unique_fraction,
        },
    }


def _null(prototypes: Prototypes, epsilon: float) -> NullDocument:
    """The same measurements for as many random directions."""
    k, d = prototypes.k, prototypes.d
    probability = duplicate_probability(epsilon, d)
    inner = nearest_cosine_quantiles(list(_QUANTILES.values()), k, d).tolist()
    return {
        "probability": probability,
        "expected_pairs": probability * k * (k - 1) / 2,
        "nearest_cosine": dict(zip(_QUANTILES, inner, strict=True)),
    }


def _norms(prototypes: Prototypes, redundancy: Redundancy) -> dict[str, float]:
    norms, m = prototypes.norms, redundancy.num_unique
    largest, smallest = np.zeros(m), np.full(m, np.inf)
    np.maximum.at(largest, redundancy.groups, norms)
    some = norms > 0  # rows of zeros may be in a group with others
    np.minimum.at(smallest, redundancy.groups[some], norms[some])
    with np.errstate(over="ignore"):  # JSON has no infinity
        spread = np.nan_to_num(largest / smallest).max()
    return {
        "min": float(norms.min()),
        "median": float(np.median(norms)),
        "max": float(norms.max()),
        "max_spread_in_group": float(spread),
    }


def _stored_usage(usage: npt.NDArray[np.float64], redundancy: Redundancy) -> UsageDocument:
    """The usage of the prototypes, and of the unique ones, each with that of its copies."""
    return {
        "dead_below": DEAD_SHARE,
        "k": measure_stored_usage(usage).to_dict(),
        "m": measure_stored_usage(usage, redundancy.groups).to_dict(),
    }


def _summary(heads: Sequence[HeadDocument]) -> SummaryDocument:
    """What a stack or the layers of a residual quantiser come to."""
    fractions = [head["unique_fraction"] for head in heads]
    k, m = sum(head["k"] for head in heads), sum(head["unique"]["greedy"] for head in heads)
    found = [(head["k"], used["k"]) for head in heads if (used := head.get("stored_usage"))]
    perplexities = [usage["perplexity"] for _, usage in found]
    usage: SummaryUsage | None = None
    if found:
        usage = {
            "heads": len(found),
            "perplexity_min": min(perplexities),
            "perplexity_median": float(np.median(perplexities)),
            "dead": sum(int(usage["dead"]) for _, usage in found),
            "bits": float(np.log2(perplexities).sum()),
            "bits_of_k": float(np.log2([k for k, _ in found]).sum()),
        }
    return {
        "heads": len(heads),
        "k": k,
        "m": m,
        "unique_fraction": m / k,
        "unique_fraction_min": min(fractions),
        "unique_fraction_median": float(np.median(fractions)),
        "least_unique": heads[fractions.index(min(fractions))]["name"],
        "stored_usage": usage,
    }


def _mean_direction_norm(prototypes: Prototypes) -> float:
    total = np.zeros(prototypes.d)
    if not prototypes.lengths.all():  # rows of zeros have no direction
        prototypes = prototypes.take(np.flatnonzero(prototypes.lengths))
    for start in range(0, prototypes.k, 8192):
        total += prototypes.unit_rows(slice(start, start + 8192)).sum(axis=0)
    return float(np.linalg.norm(total / prototypes.k))


def _published(counts: Sequence[tuple[int, str]]) -> PublishedDocument | None:
    documents: list[CountDocument]
    documents = [{"unique": unique, "source": source} for unique, source in counts]
    return {**documents[0], "others": documents[1:]} if documents else None
