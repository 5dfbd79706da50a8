"""A report as CSV: one row per head, the same columns for every report."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from collapse_audit.report.documents import HeadDocument, ReportDocument
from collapse_audit.report.mlcd_cells import mlcd_columns
from collapse_audit.report.words import QUANTILES, notes
from collapse_audit.words import printable

# also behind a semicolon, which parts cells where the comma is in numbers
_FORMULA = re.compile("(^|;)(?=\\s*[=+@\\uff1d\\uff0b\\uff0d\\uff20-])")


def to_csv(*reports: ReportDocument) -> str:
    """One row per head, for spreadsheets and data frames; what a report lacks is an empty cell."""
    # Lists have no place in a row: the histogram and the sweep are in the JSON.
    return rows_to_csv([flat_row(report, head) for report in reports for head in report["heads"]])


def rows_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows that have the same columns, without anything that a spreadsheet takes for a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: csv_cell(value) for column, value in row.items()} for row in rows)
    return text.getvalue()


def flat_row(report: ReportDocument, head: HeadDocument) -> dict[str, Any]:
    """One head of a report, and what holds for the whole report, as scalars or ``None``."""
    unique, factors = head["unique"], head["redundancy_factors"]
    published, norms = _part(head["published"]), _part(head.get("norms"))
    usage = _part(head.get("stored_usage"))
    nearest, null = _part(head["nearest_cosine"]), _part(head.get("null"))
    distance, dead = _part(head.get("nearest_distance")), _part(head.get("dead"))
    live = _part(dead.get("live"))
    return {
        "source": report["source"]["spec"],
        "id": report["source"]["id"],
        "family": report["source"]["family"],
        "sha256": report["source"]["sha256"],
        "tool_version": report["tool"]["version"],
        "epsilon": report["parameters"]["epsilon"],
        "metric": report["parameters"].get("metric", "cosine"),
        "radius": head.get("radius"),
        "rule": report["parameters"]["rule"],
        "head": head["name"],
        "branch": head["branch"],
        "tensor_keys": " ".join(head["tensor_keys"]),
        "k": head["k"],
        "d": head["d"],
        "dtype": head["dtype"],
        "unique": unique["greedy"],
        "n_eff": unique.get("n_eff"),
        "components": unique["components"],
        "isolated": unique["isolated"],
        "unique_fraction": head["unique_fraction"],
        "redundancy_max": factors["max"],
        "redundancy_mean": factors["mean"],
        "redundancy_gini": factors["gini"],
        "effective_number": factors["effective_number"],
        "exact_duplicates": head.get("exact_duplicates"),
        **{f"nearest_cosine_{key}": nearest.get(key) for key in QUANTILES},
        **{f"nearest_distance_{key}": distance.get(key) for key in QUANTILES},
        **{f"norm_{key}": norms.get(key) for key in ("min", "median", "max")},
        "norm_max_spread_in_group": norms.get("max_spread_in_group"),
        "dead_rows": dead.get("count", 0 if "dead" in head else None),
        "live_unique": live.get("unique"),
        **{
            f"stored_usage_{level}_{key}": _part(usage.get(level)).get(key)
            for level in ("k", "m")
            for key in ("perplexity", "used", "dead")
        },
        "mean_direction_norm": head.get("mean_direction_norm"),
        "expected_pairs": null.get("expected_pairs"),
        "published_unique": published.get("unique"),
        "published_source": published.get("source"),
        **mlcd_columns(head["mlcd"]),
        "notes": notes(head),
    }


def csv_cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula; names come out of files."""
    return _FORMULA.sub(r"\1'", printable(value, None)) if isinstance(value, str) else value


def _part(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return value or {}
