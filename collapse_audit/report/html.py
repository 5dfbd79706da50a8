"""A report as HTML: a self-contained page that loads nothing, or a fragment for a notebook."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from collapse_audit.report import (
    advice,
    cells,
    comparison_text,
    features_cells,
    gallery_text,
    group_table,
    history_text,
    levels,
    mlcd_cells,
    svg,
    words,
)
from collapse_audit.report.documents import (
    ComparisonDocument,
    FeaturesReport,
    HistoryDocument,
    ReportDocument,
)
from collapse_audit.report.gallery_documents import GalleryDocument
from collapse_audit.report.json_text import to_json

if TYPE_CHECKING:
    import jinja2
    import numpy as np
    import numpy.typing as npt
    from markupsafe import Markup


def to_html(
    *reports: ReportDocument, groups: Sequence[Sequence[npt.NDArray[np.int64]]] = ()
) -> str:
    """Write reports as a page to keep, mail or attach to a CI run.

    Args:
        reports: What to write, in this order.
        groups: Of each report and each of its heads the group of every prototype (k), numbered by
            falling size; none by default, as of saved reports.

    Returns:
        The page: below 2 MB for a head with K = 65,536.
    """
    # A complete document in UTF-8 with inline style and SVG, light or dark as the reader's system
    # is, and the JSON of each report folded in. It reads without its script, the only one that
    # its policy lets run: its hash is named.
    room = group_table.LONGEST // max(1, sum(map(len, groups)))
    pages = []
    for at, report in enumerate(reports):
        heads: list[group_table.GroupTable | None] = [None] * len(report["heads"])
        if groups:
            heads = [group_table.group_table(of_head, room) for of_head in groups[at]]
        pages.append((report, heads))
    return _render("report.html.jinja", pages=pages, script=_script(), to_json=to_json)


def history_to_html(history: HistoryDocument) -> str:
    """Write the history of a run as such a page."""
    return _render("history.html.jinja", history=history, to_json=to_json)


def comparison_to_html(comparison: ComparisonDocument) -> str:
    """Write heads side by side as such a page."""
    return _render("comparison.html.jinja", comparison=comparison, to_json=to_json)


def features_to_html(report: FeaturesReport) -> str:
    """Write the features of a source without prototypes as such a page."""
    return _render("features.html.jinja", report=report, to_json=to_json)


def gallery_to_html(gallery: GalleryDocument, thumbnails: Mapping[int, str]) -> str:
    """Write a gallery as such a page, with its images (``data:`` URIs, by sample) in it."""
    return _render("gallery.html.jinja", gallery=gallery, thumbnails=thumbnails)


def gallery_to_html_fragment(gallery: GalleryDocument, thumbnails: Mapping[int, str]) -> str:
    """The same for the output cell of a notebook."""
    return _render("gallery_fragment.html.jinja", gallery=gallery, thumbnails=thumbnails)


def to_html_fragment(report: ReportDocument) -> str:
    """Headline and main numbers of every head, for the output cell of a notebook."""
    # without style of its own, so that the notebook's theme applies
    return _render("fragment.html.jinja", report=report)


def _render(name: str, **values: object) -> str:
    return _environment().get_template(name).render(values).strip() + "\n"


@dataclass(frozen=True, slots=True)
class _Script:
    text: Markup
    hash: str  # as a Content-Security-Policy names it


@cache
def _script() -> _Script:
    """The script of a page of reports."""
    from markupsafe import Markup

    text = files("collapse_audit.report").joinpath("templates/page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _Script(Markup(text), f"sha256-{digest}")  # noqa: S704 - our own


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
        comparison_text=comparison_text,
        features_cells=features_cells,
        gallery_text=gallery_text,
        group_table=group_table,
        history_text=history_text,
        levels=levels,
        mlcd_cells=mlcd_cells,
        svg=svg,
        words=words,
    )
    return environment
