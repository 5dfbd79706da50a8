"""A report as a compact text table that says what its numbers mean."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from collapse_audit.report import cells, words
from collapse_audit.report.columns import text_columns
from collapse_audit.report.documents import HeadDocument, MLCDDocument, Parameters, ReportDocument
from collapse_audit.report.features_cells import features_lines
from collapse_audit.report.mlcd_cells import MLCD_TITLES, mlcd_headline, mlcd_rows
from collapse_audit.words import printable

#: Wider than this is hard to read and breaks in e-mails, issues and logs; narrower does not fit.
WIDEST: Final = 100
NARROWEST: Final = 72

_LABEL = 20
_NUMBERS = 55  # columns that the numbers of the table of heads take at the most
_BAR = "\N{FULL BLOCK}"


def to_table(report: ReportDocument, *, width: int = WIDEST) -> str:
    """A report for a terminal, one block per head; no line is longer than ``width`` (72 to 100)."""
    # The bars of the histogram are the only characters outside ASCII.
    width = min(max(width, NARROWEST), WIDEST)
    lines = [words.shorten(f"collapse-audit {report['tool']['version']}", width)]
    lines += _row("source", words.shorten(words.source_name(report), width - _LABEL), width)
    if report["source"]["sha256"]:
        lines += _row("sha256", report["source"]["sha256"], width)
    if "summary" in report:
        titles, rows = cells.heads_titles(report), cells.heads_rows(report, width - _NUMBERS)
        lines += ["", *text_columns(titles, rows, "<" + " >" * (len(titles) - 1)), ""]
        lines += textwrap.wrap(printable(words.summary(report), None), width)
    for head in report["heads"]:
        lines += ["", *_head(head, report["parameters"], width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(head: HeadDocument, parameters: Parameters, width: int) -> Iterator[str]:
    size = (
        f": K = {words.count(head['k'])} prototypes, D = {words.count(head['d'])}, "
        f"{words.shorten(head['dtype'], 20)}"
    )
    yield words.shorten(words.head_name(head["name"], head["branch"]), width - len(size)) + size
    yield "-" * width
    yield from textwrap.wrap(words.headline(head), width)
    if notes := words.notes(head):
        yield from textwrap.wrap(f"Notes: {printable(notes, None)}", width)
    yield ""
    for label, text in cells.measures(head, parameters):
        yield from _row(label, text, width)
    yield ""
    yield from _histogram(head, width)
    if head["sweep"]:
        yield ""
        yield from _sweep(head, head.get("radius") or parameters["epsilon"])
    if head["nearest_cosine"] or head.get("nearest_distance"):
        yield ""
        yield from _nearest(head)
    if head["mlcd"]:
        yield ""
        yield from _mlcd(head["mlcd"], width)


def _histogram(head: HeadDocument, width: int) -> list[str]:
    """Text histogram of the redundancy factors."""
    octaves = words.octaves(head["redundancy_factors"]["histogram"])
    tallest = max((unique for _, unique, _ in octaves), default=1)
    # at least one block for what is there: a single huge group is the finding
    bars = (
        _BAR * max(round((width - 58) * unique / tallest), 1) if unique else ""
        for _, unique, _ in octaves
    )
    rows = ((*row, bar) for row, bar in zip(cells.histogram_rows(head), bars, strict=True))
    return text_columns((*cells.HISTOGRAM_TITLES, ""), rows, ">19 >9 >10 >9 <")


def _sweep(head: HeadDocument, own: float | None) -> list[str]:
    """M over epsilon, or the radius, one line each; the row of the report's own is marked."""
    marks = ("<" if words.level(row) == own else "" for row in head["sweep"])
    rows = ((*row, mark) for row, mark in zip(cells.sweep_rows(head), marks, strict=True))
    # the padding is in the widths, so that long numbers take from it before the line grows
    widths = ">9 >8 >10 >8 >8 >11 >10 <"
    return text_columns((*cells.sweep_titles(head), ""), rows, widths, gap=" ")


def _nearest(head: HeadDocument) -> list[str]:
    """Quantiles of how near the nearest other prototype is, beside those of chance."""
    rows = (
        (f"  {label.removesuffix(' directions')}", *values)  # 72 characters hold no more
        for label, *values in cells.nearest_rows(head)
    )
    return text_columns(cells.nearest_titles(head), rows, "<16" + 7 * " >7", gap=" ")


def _mlcd(mlcd: MLCDDocument, width: int) -> Iterator[str]:
    """The class distribution over the prototypes, beside that over the unique ones."""
    for line in mlcd_headline(mlcd):
        yield from textwrap.wrap(line, width)
    yield ""
    yield from text_columns(MLCD_TITLES, mlcd_rows(mlcd), "<26 >12 >12")
    if features := mlcd.get("features"):
        yield ""
        yield from features_lines(features)


def _row(label: str, text: str, width: int) -> list[str]:
    """A label and its text, wrapped under itself."""
    return textwrap.wrap(
        printable(text, None),
        width,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )
