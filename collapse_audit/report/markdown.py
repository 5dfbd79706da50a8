"""A report as Markdown, for issues, pull requests, job summaries and notebooks."""

from __future__ import annotations

from collections.abc import Iterator

from collapse_audit.report import cells, words
from collapse_audit.report.columns import escape, pipe_table
from collapse_audit.report.documents import HeadDocument, Parameters, ReportDocument
from collapse_audit.report.features_cells import features_rows, features_titles
from collapse_audit.report.mlcd_cells import MLCD_TITLES, mlcd_headline, mlcd_rows


def to_markdown(report: ReportDocument) -> str:
    """A report as GitHub-flavoured Markdown without raw HTML: one section per head."""
    parameters, source = report["parameters"], report["source"]
    blocks = [[f"# Prototype audit of {escape(words.source_name(report))}"]]
    if "summary" in report:
        titles = cells.heads_titles(report)
        layout = "<" + " >" * (len(titles) - 1)
        blocks.append(pipe_table(titles, cells.heads_rows(report), layout))
        blocks.append([escape(words.summary(report))])
    for head in report["heads"]:
        blocks += _blocks(head, parameters)
    footer = (
        f"collapse-audit {escape(report['tool']['version'])}, {words.threshold(parameters)}, "
        f"rule: {parameters['rule']} cover"
        + (", certified" if parameters["certified"] else "")
        + (f", sha256 `{source['sha256']}`" if source["sha256"] else "")
    )
    return "\n\n".join("\n".join(block) for block in (*blocks, [footer])) + "\n"


def _blocks(head: HeadDocument, parameters: Parameters) -> Iterator[list[str]]:
    """Section of one head: blocks of lines, to be set apart by an empty one."""
    yield [f"## {escape(words.head_name(head['name'], head['branch']))}"]
    yield [f"**{words.headline(head)}**"]
    if notes := words.notes(head):
        yield [f"Notes: {escape(notes)}"]
    measures = (*cells.stored(head), *cells.measures(head, parameters))
    yield pipe_table(("measure", "value"), measures)
    yield pipe_table(cells.HISTOGRAM_TITLES, cells.histogram_rows(head))
    if head["sweep"]:
        yield pipe_table(cells.sweep_titles(head), cells.sweep_rows(head))
    if nearest := [*cells.nearest_rows(head)]:
        yield pipe_table(cells.nearest_titles(head), nearest)
    if head["mlcd"]:
        yield [f"- {escape(line)}" for line in mlcd_headline(head["mlcd"])]
        yield pipe_table(MLCD_TITLES, mlcd_rows(head["mlcd"]))
        if features := head["mlcd"].get("features"):
            yield pipe_table(features_titles(features), features_rows(features))
