"""Output formats: their names, the file suffixes that imply them, and who writes them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from collapse_audit.report.csv_text import to_csv
from collapse_audit.report.documents import ErrorDocument, FeaturesReport, ReportDocument
from collapse_audit.report.features_text import (
    features_to_csv,
    features_to_markdown,
    features_to_table,
)
from collapse_audit.report.html import features_to_html, to_html
from collapse_audit.report.json_text import to_json
from collapse_audit.report.markdown import to_markdown
from collapse_audit.report.table import WIDEST, to_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Document: TypeAlias = ReportDocument | FeaturesReport | ErrorDocument

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


def table_width(*, to_terminal: bool) -> int:
    """Columns of a table: COLUMNS or the terminal's width; files get the full width."""
    return shutil.get_terminal_size((WIDEST, 24)).columns if to_terminal else WIDEST


def render(
    documents: Sequence[Document],
    form: str,
    *,
    groups: Sequence[Sequence[npt.NDArray[np.int64]]],
    to_terminal: bool,
) -> str:
    """Write reports, which obey the schema, in one of :data:`FORMATS`; errors are for JSON only."""
    # groups: of each report with heads, for HTML alone
    if form == "json":
        return to_json(documents[0] if len(documents) == 1 else documents)
    if "features" in documents[0]:  # of one source alone
        return _render_features(cast("FeaturesReport", documents[0]), form, to_terminal)
    sound = [cast("ReportDocument", d) for d in documents if "heads" in d]
    if form == "markdown":
        return "\n".join(map(to_markdown, sound))
    if form == "table":
        width = table_width(to_terminal=to_terminal)
        return "\n".join(to_table(report, width=width) for report in sound)
    if form == "csv":
        return to_csv(*sound) if sound else ""
    return to_html(*sound, groups=groups) if sound else ""


def _render_features(report: FeaturesReport, form: str, to_terminal: bool) -> str:
    if form == "table":
        return features_to_table(report, width=table_width(to_terminal=to_terminal))
    if form == "csv":
        return features_to_csv([report])
    return (features_to_markdown if form == "markdown" else features_to_html)(report)
