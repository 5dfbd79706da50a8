"""A report as Markdown, for issues, pull requests, job summaries and notebooks."""

from __future__ import annotations

from collections.abc import Iterator

from collapse_audit.report import cells, words
from collapse_audit.report.columns import escape, pipe_table
from collapse_audit.report.documents import HeadDocument, Parameters, ReportDocument
from collapse_audit.report.mlcd_cells import MLCD_TITLES, mlcd_headline, mlcd_rows


def to_markdown(report: ReportDocument) -> str:
    """Write a report as GitHub-flavoured Markdown: one section per head.

    Args:
        report: A report that obeys the schema.

    Returns:
        Markdown without raw HTML; names out of files are escaped.
    """
    parameters, source = report["parameters"], report["source"]
    lines = [f"# Prototype audit of {escape(words.source_name(report))}", ""]
    for head in report["heads"]:
        lines += [*_head(head, parameters), ""]
    lines.append(
        f"collapse-audit {escape(report['tool']['version'])}, epsilon {parameters['epsilon']:g}, "
        f"rule: {parameters['rule']} cover"
        + (", certified" if parameters["certified"] else "")
        + (f", sha256 `{source['sha256']}`" if source["sha256"] else "")
    )
    return "\n".join(lines) + "\n"


def _head(head: HeadDocument, parameters: Parameters) -> Iterator[str]:
    """Section of one head."""
    yield f"## {escape(words.head_name(head['name'], head['branch']))}"
    yield ""
    yield f"**{words.headline(head)}**"
    yield ""
    if notes := words.notes(head):
        yield f"Notes: {escape(notes)}"
        yield ""
    measures = (*cells.stored(head), *cells.measures(head, parameters))
    yield from pipe_table(("measure", "value"), measures)
    yield ""
    yield from pipe_table(cells.HISTOGRAM_TITLES, cells.histogram_rows(head))
    if head["sweep"]:
        yield ""
        yield from pipe_table(cells.SWEEP_TITLES, cells.sweep_rows(head))
    if head["nearest_cosine"]:
        yield ""
        yield from pipe_table(cells.NEAREST_TITLES, cells.nearest_rows(head))
    if head["mlcd"]:
        yield ""
        yield from (f"- {escape(line)}" for line in mlcd_headline(head["mlcd"]))
        yield ""
        yield from pipe_table(MLCD_TITLES, mlcd_rows(head["mlcd"]))
