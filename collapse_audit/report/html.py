"""A report as HTML: a self-contained page without scripts, or a fragment for a notebook."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from collapse_audit.report import (
    advice,
    cells,
    features_cells,
    history_text,
    levels,
    mlcd_cells,
    svg,
    words,
)
from collapse_audit.report.documents import FeaturesReport, HistoryDocument, ReportDocument
from collapse_audit.report.json_text import to_json

if TYPE_CHECKING:
    import jinja2


def to_html(*reports: ReportDocument) -> str:
    """Write reports as a page to keep, mail or attach to a CI run."""
    # A complete document in UTF-8 with inline style and SVG, light or dark as the reader's system
    # is, and the JSON of each report folded in at its end. It loads nothing.
    return _render("report.html.jinja", reports=reports, to_json=to_json)


def history_to_html(history: HistoryDocument) -> str:
    """Write the history of a run as such a page."""
    return _render("history.html.jinja", history=history, to_json=to_json)


def features_to_html(report: FeaturesReport) -> str:
    """Write the features of a source without prototypes as such a page."""
    return _render("features.html.jinja", report=report, to_json=to_json)


def to_html_fragment(report: ReportDocument) -> str:
    """Headline and main numbers of every head, for the output cell of a notebook."""
    # without style of its own, so that the notebook's theme applies
    return _render("fragment.html.jinja", report=report)


def _render(name: str, **values: object) -> str:
    return _environment().get_template(name).render(values).strip() + "\n"


@cache
def _environment() -> jinja2.Environment:
    """Where the templates are, compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("collapse_audit.report"),
        autoescape=True,  # names in a report come out of files that nobody vouches for
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        advice=advice,
        cells=cells,
        features_cells=features_cells,
        history_text=history_text,
        levels=levels,
        mlcd_cells=mlcd_cells,
        svg=svg,
        words=words,
    )
    return environment
