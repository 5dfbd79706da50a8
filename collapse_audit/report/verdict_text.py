"""A verdict as a table for terminals and as Markdown for pull requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from collapse_audit.report import words

TITLES: Final = ("status", "head", "threshold", "baseline", "value", "must be")
_MARKS: Final = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
_MARKDOWN: Final = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#~$"})


def verdict_to_table(verdict: Mapping[str, Any]) -> str:
    """Write a verdict for a terminal: the failures with old, new and limit, then the count.

    Args:
        verdict: What ``--format json`` prints.

    Returns:
        Text ending in a newline.
    """
    rows = verdict_rows(verdict)
    table = f"{align([TITLES, *rows])}\n\n" if rows else ""
    return f"{table}{verdict_headline(verdict)}\n"


def verdict_to_markdown(verdict: Mapping[str, Any]) -> str:
    """Write a verdict as GitHub-flavoured Markdown.

    Args:
        verdict: What ``--format json`` prints.

    Returns:
        A heading, the headline and one table; names out of files are escaped.
    """
    lines = ["### Prototype collapse check", "", f"**{escape(verdict_headline(verdict))}**", ""]
    lines.append(f"Checked: {escape(verdict['source'])}")
    if verdict["baseline"] is not None:
        lines.append(f"against {escape(verdict['baseline'])}")
    if verdict["checks"]:
        lines += ["", *markdown_table(TITLES, verdict_rows(verdict))]
    return "\n".join(lines) + "\n"


def verdict_headline(verdict: Mapping[str, Any]) -> str:
    """The one sentence that tells whether it is really green, or nothing ran.

    Args:
        verdict: What ``--format json`` prints.

    Returns:
        Such as ``all 3 checks passed`` or ``1 of 3 checks failed``.
    """
    statuses = [check["status"] for check in verdict["checks"]]
    skipped = statuses.count("skipped")
    ran, failed = len(statuses) - skipped, statuses.count("failed")
    rest = f", {skipped} skipped for want of a baseline" if skipped else ""
    if failed:
        return f"{failed} of {words.plural(ran, 'check')} failed{rest}"
    if ran == 0:
        return f"nothing was compared{rest}"
    return f"{'the only check' if ran == 1 else f'all {ran} checks'} passed{rest}"


def verdict_rows(verdict: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The cells under :data:`TITLES`, failures first.

    Args:
        verdict: What ``--format json`` prints.

    Returns:
        One row per check.
    """
    ordered = sorted(verdict["checks"], key=lambda check: check["status"] != "failed")
    return [
        (
            _MARKS[check["status"]],
            head_of(check),
            words.printable(check["threshold"]),
            figure(check["baseline"]),
            figure(check["value"]),
            check["limit"] or "-",
        )
        for check in ordered
    ]


def head_of(check: Mapping[str, Any]) -> str:
    """Head and branch of a check, such as ``head, teacher``."""
    return words.head_name({"name": check["head"], "branch": check["branch"]})


def check_name(check: Mapping[str, Any]) -> str:
    """Head and threshold of a check, such as ``head, teacher: unique_fraction:-5%``."""
    return f"{head_of(check)}: {words.printable(check['threshold'])}"


def failure(check: Mapping[str, Any]) -> str:
    """What is wrong: metric, new, old and limit in one line."""
    old = "" if check["baseline"] is None else f" (baseline {figure(check['baseline'])})"
    value = figure(check["value"])
    return f"{check['metric']} is {value}{old} and must be {check['limit']}"


def figure(value: float | None) -> str:
    """A number as it can be compared by eye: integers whole, others to six digits."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def align(rows: Iterable[tuple[str, ...]]) -> str:
    """Lay cells out in columns as wide as their widest cell."""
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in listed
    )


def markdown_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table, cells escaped."""
    return [
        f"| {' | '.join(titles)} |",
        f"|{'---|' * len(titles)}",
        *(f"| {' | '.join(map(escape, row))} |" for row in rows),
    ]


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return words.printable(text).translate(_MARKDOWN)
