"""A report as one self-contained HTML page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from typing import Any

from collapse_audit.report import cells, svg, words
from collapse_audit.report.json_text import to_json


def to_html(report: dict[str, Any]) -> str:
    """Write a report as a page to keep, mail or attach to a CI run.

    Args:
        report: A report that obeys the schema.

    Returns:
        A complete document in UTF-8 with inline style and SVG, light or dark as the reader's
        system is, and the JSON of the report folded in at the end.
    """
    import jinja2

    # everything in a report may come out of a file that nobody vouches for
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("collapse_audit.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(cells=cells, svg=svg, words=words)
    page = environment.get_template("report.html.jinja").render(
        report=report, json=to_json(report), epsilon=report["parameters"]["epsilon"]
    )
    return page.rstrip() + "\n"
