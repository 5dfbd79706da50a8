"""The report of a source without prototypes: as a table, Markdown and CSV."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from collapse_audit.report import words
from collapse_audit.report.columns import escape, pipe_table
from collapse_audit.report.csv_text import rows_to_csv
from collapse_audit.report.documents import FeaturesReport
from collapse_audit.report.features_cells import (
    features_columns,
    features_lines,
    features_rows,
    features_titles,
)


def features_to_table(report: FeaturesReport, *, width: int) -> str:
    """The report of a source without prototypes for a terminal."""
    lines = [
        words.shorten(f"collapse-audit {report['tool']['version']}", width),
        words.shorten(f"source: {words.source_name(report)}", width),
        *textwrap.wrap(report["note"], width),
        "",
        *features_lines(report["features"]),
    ]
    return "\n".join(lines) + "\n"


def features_to_markdown(report: FeaturesReport) -> str:
    """The same as GitHub-flavoured Markdown."""
    blocks = (
        [f"# Features of {escape(words.source_name(report))}"],
        [escape(report["note"])],
        pipe_table(features_titles(report["features"]), features_rows(report["features"])),
        [f"collapse-audit {escape(report['tool']['version'])}"],
    )
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def features_to_csv(reports: Sequence[FeaturesReport]) -> str:
    """The same as CSV: one row for each source."""
    return rows_to_csv(
        [
            {
                **report["source"],
                "tool_version": report["tool"]["version"],
                "note": report["note"],
                "n": report["features"]["backbone"]["n"],
                **features_columns(report["features"]),
            }
            for report in reports
        ]
    )
