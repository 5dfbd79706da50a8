"""The cells of features, for every format: each number, at each place where it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from collapse_audit.report.columns import text_columns
from collapse_audit.report.documents import FeaturesDocument

#: Places at which features are measured, in the order in which they are shown.
PLACES: Final = ("backbone", "bottleneck")
_NUMBERS: Final = (
    ("RankMe, uncentred, p + 1e-7, N = {n:,}", "rankme_uncentred_1e-7"),
    ("RankMe, centred, p + 1e-7, N = {n:,}", "rankme_centred_1e-7"),
    ("participation ratio, centred", "participation_ratio_centred"),
    ("uniformity, t = 2, {uniformity_n:,} samples", "uniformity_t2"),
)


def features_titles(features: Mapping[str, FeaturesDocument]) -> tuple[str, ...]:
    """Over the columns of :func:`features_rows`: where the features were measured."""
    units = (f"{place}, unit" if f["unit_norm"] else place for place, f in _placed(features))
    return ("features", *units)


def features_rows(features: Mapping[str, FeaturesDocument]) -> list[tuple[str, ...]]:
    """What each number is, and its value at each place."""
    found = [document for _, document in _placed(features)]
    rows = [
        (label.format(**found[0]), *(_number(document[key]) for document in found))
        for label, key in _NUMBERS
    ]
    return [("dimensions", *(f"{document['d']:,}" for document in found)), *rows]


def features_columns(features: Mapping[str, FeaturesDocument] | None) -> dict[str, Any]:
    """The numbers of one head for a row of CSV: always the same names; ``None`` for no number."""
    found: Mapping[str, Mapping[str, Any]] = features or {}
    return {
        f"{place}_{key}": found.get(place, {}).get(key)
        for place in PLACES
        for key in ("d", *(key for _, key in _NUMBERS))
    }


def features_lines(features: Mapping[str, FeaturesDocument]) -> list[str]:
    """The numbers as columns of text."""
    titles = features_titles(features)
    return text_columns(titles, features_rows(features), "<26" + " >8" * (len(titles) - 1))


def _placed(
    features: Mapping[str, FeaturesDocument],
) -> Iterator[tuple[str, FeaturesDocument]]:
    return ((place, features[place]) for place in PLACES if place in features)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:,.4f}" if abs(value) < 10 else f"{value:,.2f}"
