"""A verdict as a table for terminals and as Markdown for pull requests."""

from __future__ import annotations

from typing import Final

from collapse_audit.report.columns import escape, pipe_table, text_columns
from collapse_audit.report.documents import CheckDocument, VerdictDocument
from collapse_audit.report.words import head_name, plural, shorten
from collapse_audit.words import printable

_TITLES: Final = ("status", "head", "threshold", "baseline", "value", "must be")
_MARKS: Final = {"passed": "ok", "failed": "FAILED"}
_NO_RESULT: Final = {
    "accepted": "accepted for the new baseline",
    "skipped": "skipped for want of a baseline",
}


def verdict_to_table(verdict: VerdictDocument) -> str:
    """Write a verdict for a terminal: the failures with old, new and limit, then the count."""
    rows = _rows(verdict)
    table = [*text_columns(_TITLES, rows), ""] if rows else []
    return "\n".join([*table, verdict_headline(verdict)]) + "\n"


def verdict_to_markdown(verdict: VerdictDocument) -> str:
    """Write a verdict as GitHub-flavoured Markdown: a heading, the headline and one table."""
    lines = ["### Prototype collapse check", "", f"**{escape(verdict_headline(verdict))}**", ""]
    lines.append(f"Checked: {escape(shorten(verdict['source'], 300))}")
    if verdict["baseline"] is not None:
        lines.append(f"against {escape(shorten(verdict['baseline'], 300))}")
    if verdict["checks"]:
        lines += ["", *pipe_table(_TITLES, _rows(verdict))]
    return "\n".join(lines) + "\n"


def verdict_headline(verdict: VerdictDocument) -> str:
    """Whether it is really green, or nothing ran: such as ``1 of 3 checks failed``."""
    statuses: list[str] = [check["status"] for check in verdict["checks"]]
    rest = [f"{n} {why}" for status, why in _NO_RESULT.items() if (n := statuses.count(status))]
    failed, passed = statuses.count("failed"), statuses.count("passed")
    if failed:
        rest.insert(0, f"{failed} of {plural(failed + passed, 'check')} failed")
    elif passed:
        rest.insert(0, f"{'the only check' if passed == 1 else f'all {passed} checks'} passed")
    elif "accepted" not in statuses:
        rest.insert(0, "nothing was compared")
    return ", ".join(rest)


def check_name(check: CheckDocument) -> str:
    """Head and threshold of a check, such as ``head, teacher: unique_fraction:-5%``."""
    return printable(f"{head_name(check['head'], check['branch'])}: {check['threshold']}", None)


def failure(check: CheckDocument) -> str:
    """What is wrong: metric, new, old and limit in one line."""
    old = "" if check["baseline"] is None else f" (baseline {figure(check['baseline'])})"
    value = figure(check["value"])
    return f"{check['metric']} is {value}{old} and must be {check['limit']}"


def figure(value: float | None) -> str:
    """A number as it can be compared by eye: integers whole, others to six digits."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _rows(verdict: VerdictDocument) -> list[tuple[str, ...]]:
    """The cells under the titles, failures first."""
    return [
        (
            _MARKS.get(check["status"], check["status"]),
            head_name(check["head"], check["branch"]),
            check["threshold"],
            figure(check["baseline"]),
            figure(check["value"]),
            check["limit"] or "-",
        )
        for check in sorted(verdict["checks"], key=lambda check: check["status"] != "failed")
    ]
