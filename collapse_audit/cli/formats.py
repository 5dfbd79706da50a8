"""Output formats: their names, the file suffixes that imply them, and who writes them."""

from __future__ import annotations

import shutil
from typing import Final

from collapse_audit import report as reports
from collapse_audit.report.table import WIDEST

#: Formats of a report.
FORMATS: Final = ("table", "json", "csv", "markdown", "html")
#: Every format that a command writes, by the file suffixes that imply it.
FORMAT_OF_SUFFIX: Final = {
    ".txt": "table",
    ".json": "json",
    ".csv": "csv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xml": "junit",
}


def render(report: reports.ReportDocument, form: str, *, to_terminal: bool) -> str:
    """Write a report, which obeys the schema, in one of :data:`FORMATS`."""
    # on a terminal a table follows COLUMNS and the terminal's width; files get the full width
    if form == "table":
        columns = shutil.get_terminal_size((WIDEST, 24)).columns if to_terminal else WIDEST
        return reports.to_table(report, width=columns)
    writers = {
        "json": reports.to_json,
        "csv": reports.to_csv,
        "markdown": reports.to_markdown,
        "html": reports.to_html,
    }
    return writers[form](report)
