"""Report dictionaries -> text: table, JSON, CSV, Markdown, HTML; and the JSON Schema they obey.

Everything here is a pure function of the dictionary that ``--format json`` prints, so a report
that was saved last year renders like one that was measured a second ago.
"""

from __future__ import annotations

from typing import Any, Final

from collapse_audit.errors import ParameterError

#: Output formats, and the file suffixes that imply them.
FORMATS: Final = {
    "table": (".txt",),
    "json": (".json",),
    "csv": (".csv",),
    "markdown": (".md", ".markdown"),
    "html": (".html", ".htm"),
}


def render(report: dict[str, Any], form: str, *, width: int = 100) -> str:
    """Write a report in one of the output formats.

    Args:
        report: A report that obeys :func:`collapse_audit.report.schema.report_schema`.
        form: One of :data:`FORMATS`.
        width: Columns of the table; the other formats have no width.

    Returns:
        The whole text, ending in a newline.

    Raises:
        ParameterError: If there is no such format.
    """
    # each renderer is imported when it is asked for: jinja2 alone costs more than all others
    match form:
        case "table":
            from collapse_audit.report.table import to_table

            return to_table(report, width=width)
        case "json":
            from collapse_audit.report.json_text import to_json

            return to_json(report)
        case "csv":
            from collapse_audit.report.csv_text import to_csv

            return to_csv(report)
        case "markdown":
            from collapse_audit.report.markdown import to_markdown

            return to_markdown(report)
        case "html":
            from collapse_audit.report.html import to_html

            return to_html(report)
        case _:
            raise ParameterError(
                f"no output format {form!r}.", hint=f"Choose one of {', '.join(FORMATS)}."
            )
