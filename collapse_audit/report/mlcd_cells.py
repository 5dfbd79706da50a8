"""The cells of an MLCD, for every format: prototypes and unique prototypes side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from collapse_audit.report.documents import MLCDDocument
from collapse_audit.report.features_cells import features_columns

_MEASURES: Final = (
    ("entropy (nats)", "entropy"),
    ("perplexity", "perplexity"),
    ("KL(p || prior)", "kl_to_prior"),
    ("KL(prior || p)", "kl_from_prior"),
    ("Jensen-Shannon", "js"),
    ("total variation", "tv"),
)
_USAGE: Final = (
    ("classes used (argmax)", "used"),
    ("  expected by chance", "expected_used"),
    ("mass of top 10 %", "head_mass"),
    ("mass of next 40 %", "medium_mass"),
    ("mass of last 50 %", "tail_mass"),
)
_SCALARS: Final = (
    *("n", "temperature", "temperature_source", "centre", "centre_source", "vmf"),
    *("assignment", "prior", "mean_entropy"),
    *("mutual_information", "mutual_information_corrected", "kl_to_redundancy"),
)
#: Over the two columns of numbers of :func:`mlcd_rows`.
MLCD_TITLES: Final = ("class distribution", "K prototypes", "M unique")
_SOURCES: Final = ("temperature_source", "centre_source")
_CENTRES: Final = {
    "file": "centre from the file",
    "estimated": "centre estimated over these samples",
    "none": "no centre",
}


def mlcd_rows(mlcd: MLCDDocument) -> list[tuple[str, str, str]]:
    """What each number is, over the K prototypes, and over the M unique ones (or empty)."""
    usage, labels = mlcd["usage"], mlcd.get("labels")
    rows = [_row(label, key, mlcd["k"], mlcd["m"]) for label, key in _MEASURES]
    rows += [_row(label, key, usage["k"], usage.get("m")) for label, key in _USAGE]
    if labels:
        names = ("label information (nats)", f"labels merged, of {labels['number']}")
        for label, key in zip(names, ("mutual_information", "merged"), strict=True):
            rows.append(_row(label, key, labels["k"], labels.get("m")))
    for order, value in enumerate((mlcd.get("diversity") or {}).values()):
        rows.append((f"diversity of order {order}", "", _number(value)))
    return rows


def mlcd_headline(mlcd: MLCDDocument) -> list[str]:
    """What was measured, and the numbers that copies of prototypes cannot change."""
    error = mlcd.get("mean_entropy_error")
    spread = f" +- {error:.2g}" if error is not None else ""
    corrected = mlcd["mutual_information_corrected"]
    told = [f" ({text})" if text else "" for text in map(mlcd.get, _SOURCES)]
    return [
        f"MLCD of {mlcd['n']:,} samples, temperature {mlcd['temperature']:g}{told[0]}, "
        f"{_CENTRES[mlcd['centre']]}{told[1]}, {mlcd['assignment']}"
        f"{' with the vMF normaliser' if mlcd.get('vmf') else ''}, {mlcd['prior']} prior",
        f"mutual information {_number(mlcd['mutual_information'])} nats "
        f"({_number(corrected)} corrected for the finite sample); copies cannot inflate it",
        f"mean entropy {_number(mlcd['mean_entropy'])}{spread} nats, "
        f"mean max probability {_number(mlcd['mean_max_probability'])}",
    ]


def mlcd_columns(mlcd: MLCDDocument | None) -> dict[str, Any]:
    """The numbers of one head for a row of CSV: always the same names; ``None`` for no number."""
    found: Mapping[str, Any] = mlcd or {}
    usage = found.get("usage") or {}
    levels = [(level, found.get(level) or {}, usage.get(level) or {}) for level in ("k", "m")]
    return {
        **{f"mlcd_{key}": found.get(key) for key in _SCALARS},
        **{f"mlcd_{level}_{key}": own.get(key) for level, own, _ in levels for _, key in _MEASURES},
        **{f"mlcd_{level}_{key}": own.get(key) for level, _, own in levels for _, key in _USAGE},
        **{f"mlcd_{key}": value for key, value in features_columns(found.get("features")).items()},
    }


def _row(
    label: str, key: str, k: Mapping[str, Any], m: Mapping[str, Any] | None
) -> tuple[str, str, str]:
    return label, _number(k[key]), _number(m[key]) if m else ""


def _number(value: float | None) -> str:
    if value is None:
        return "infinite"
    if isinstance(value, int):
        return f"{value:,}"
    if value and abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.1f}"
