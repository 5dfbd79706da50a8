"""A report as Markdown, for issues, pull requests, job summaries and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from collapse_audit.report import cells, words
from collapse_audit.report.mlcd_cells import MLCD_TITLES, mlcd_headline, mlcd_rows

_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#~$"})


def to_markdown(report: dict[str, Any]) -> str:
    """Write a report as GitHub-flavoured Markdown: one section per head.

    Args:
        report: A report that obeys the schema.

    Returns:
        Markdown without raw HTML; names out of files are escaped.
    """
    parameters, source = report["parameters"], report["source"]
    lines = [f"# Prototype audit of {_escape(words.source_name(report))}", ""]
    for head in report["heads"]:
        lines += [*_head(head, parameters), ""]
    lines.append(
        f"collapse-audit {_escape(report['tool']['version'])}, epsilon {parameters['epsilon']:g}, "
        f"rule: {parameters['rule']} cover"
        + (", certified" if parameters["certified"] else "")
        + (f", sha256 `{source['sha256']}`" if source["sha256"] else "")
    )
    return "\n".join(lines) + "\n"


def _head(head: dict[str, Any], parameters: dict[str, Any]) -> Iterator[str]:
    """Section of one head."""
    yield f"## {_escape(words.head_name(head))}"
    yield ""
    yield f"**{words.headline(head)}**"
    yield ""
    yield from _table(("measure", "value"), cells.measures(head, parameters["epsilon"]))
    yield ""
    yield from _table(cells.HISTOGRAM_TITLES, cells.histogram_rows(head))
    if head["sweep"]:
        yield ""
        yield from _table(cells.SWEEP_TITLES, cells.sweep_rows(head))
    if head["nearest_cosine"]:
        yield ""
        yield from _table(cells.NEAREST_TITLES, cells.nearest_rows(head))
    if head["mlcd"]:
        yield ""
        yield from (f"- {_escape(line)}" for line in mlcd_headline(head["mlcd"]))
        yield ""
        yield from _table(MLCD_TITLES, mlcd_rows(head["mlcd"]))


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    for row in rows:
        yield f"| {' | '.join(map(_escape, row))} |"


def _escape(text: str) -> str:
    return words.printable(text).translate(_ESCAPES)
