"""Heads side by side as a table, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, Final

from collapse_audit.report import words
from collapse_audit.report.verdict_text import align, escape, figure, markdown_table

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def comparison_to_table(comparison: Mapping[str, Any]) -> str:
    """Write a comparison for a terminal.

    Args:
        comparison: What ``compare --format json`` prints.

    Returns:
        Text ending in a newline.
    """
    lines = [f"{letter}  {words.printable(source)}" for letter, source in _sources(comparison)]
    for head in comparison["heads"]:
        lines += ["", words.head_name(head), align([_titles(comparison), *_rows(head)])]
        lines += _regroupings(head)
    return "\n".join(lines) + "\n"


def comparison_to_markdown(comparison: Mapping[str, Any]) -> str:
    """Write a comparison as GitHub-flavoured Markdown.

    Args:
        comparison: What ``compare --format json`` prints.

    Returns:
        One section per head; names out of files are escaped.
    """
    lines = ["# Heads side by side", ""]
    lines += [f"- {letter}: {escape(source)}" for letter, source in _sources(comparison)]
    for head in comparison["heads"]:
        lines += ["", f"## {escape(words.head_name(head))}", ""]
        lines += markdown_table(_titles(comparison), _rows(head))
        lines += [line for text in _regroupings(head) for line in ("", escape(text))]
    return "\n".join(lines) + "\n"


def comparison_to_csv(comparison: Mapping[str, Any]) -> str:
    """Write a comparison as CSV: one row per head, metric and source, in full precision.

    Args:
        comparison: What ``compare --format json`` prints.

    Returns:
        CSV text with a header; the first source has neither delta nor judgement.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("head", "branch", "metric", "source", "value", "delta", "judgement"))
    for head in comparison["heads"]:
        for row in head["metrics"]:
            deltas, judgements = [None, *row["deltas"]], [None, *row["judgements"]]
            cells = zip(comparison["sources"], row["values"], deltas, judgements, strict=True)
            for source, value, delta, judgement in cells:
                name = (head["name"], head["branch"] or "", row["metric"], source)
                writer.writerow(
                    (*name, *("" if c is None else c for c in (value, delta, judgement)))
                )
    return stream.getvalue()


def _labels(number: int) -> list[str]:
    """A, B, C, ..., Z, #27, #28, ..."""
    return [_LETTERS[i] if i < len(_LETTERS) else f"#{i + 1}" for i in range(number)]


def _sources(comparison: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sources = comparison["sources"]
    return zip(_labels(len(sources)), sources, strict=True)


def _titles(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    first, *others = _labels(len(comparison["sources"]))
    return ("metric", first, *(title for x in others for title in (x, f"{x} - {first}", "")))


def _rows(head: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in head["metrics"]:
        first, *others = row["values"]
        cells = [row["metric"], figure(first)]
        for value, delta, verdict in zip(others, row["deltas"], row["judgements"], strict=True):
            sign = "+" if delta is not None and delta > 0 else ""
            cells += [figure(value), sign + figure(delta), verdict or ""]
        yield tuple(cells)


def _regroupings(head: Mapping[str, Any]) -> Iterator[str]:
    others = _labels(1 + len(head["regroupings"]))[1:]
    for letter, found in zip(others, head["regroupings"], strict=True):
        if found is None:
            continue
        yield (
            f"Groups of A in {letter}: {words.count(found['unchanged'])} unchanged, "
            f"{words.count(found['split'])} split, {words.count(found['merged'])} groups of "
            f"{letter} merged from several; {words.plural(found['pairs']['kept'], 'pair')} of "
            f"duplicates kept, {words.count(found['pairs']['parted'])} parted, "
            f"{words.count(found['pairs']['joined'])} joined."
        )
        for verb, many in (("split", found["splits"]), ("merged", found["merges"])):
            for change in many[:3]:
                owner = "A" if verb == "split" else letter
                parts = ", ".join(map(words.count, change["parts"][:8]))
                more = ", ..." if len(change["parts"]) > 8 else ""
                side = "into" if verb == "split" else "from"
                yield f"  group {change['group']} of {owner}: {verb} {side} {parts}{more}"
