"""Report documents -> text: table, JSON, CSV, Markdown, HTML; and the JSON Schema they obey.

Everything here is a pure function of the document that ``--format json`` prints, so a report
that was saved last year renders like one that was measured a second ago.
"""

from __future__ import annotations

from collapse_audit.report.csv_text import to_csv
from collapse_audit.report.documents import (
    ErrorDocument,
    HeadDocument,
    HistoryDocument,
    ReportDocument,
    SourceDocument,
    VerdictDocument,
)
from collapse_audit.report.history_text import history_to_csv, history_to_table
from collapse_audit.report.html import history_to_html, to_html, to_html_fragment
from collapse_audit.report.json_text import to_json
from collapse_audit.report.markdown import to_markdown
from collapse_audit.report.schema import error_document, report_schema
from collapse_audit.report.table import to_table

__all__ = [
    "ErrorDocument",
    "HeadDocument",
    "HistoryDocument",
    "ReportDocument",
    "SourceDocument",
    "VerdictDocument",
    "error_document",
    "history_to_csv",
    "history_to_html",
    "history_to_table",
    "report_schema",
    "to_csv",
    "to_html",
    "to_html_fragment",
    "to_json",
    "to_markdown",
    "to_table",
]
