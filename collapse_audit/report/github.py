"""Workflow commands that GitHub shows as annotations beside a run.

Values are escaped as the runner unescapes them (actions/toolkit, ``command.ts``): ``%``, carriage
return and line feed everywhere, in properties also ``:`` and ``,``.
"""

from __future__ import annotations

from typing import Final, Literal

from collapse_audit.report.documents import VerdictDocument
from collapse_audit.report.verdict_text import check_name, failure, verdict_headline
from collapse_audit.words import printable

#: GitHub shows this many annotations of one kind per step and drops the rest.
SHOWN: Final = 10

_DATA: Final = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_ESCAPE_DATA: Final = str.maketrans(_DATA)
_ESCAPE_PROPERTY: Final = str.maketrans({**_DATA, ":": "%3A", ",": "%2C"})


def annotation(level: Literal["error", "warning", "notice"], title: str, message: str) -> str:
    """One workflow command, without the end of its line: a bold title, and a text below."""
    return f"::{level} title={title.translate(_ESCAPE_PROPERTY)}::{message.translate(_ESCAPE_DATA)}"


def verdict_to_github(verdict: VerdictDocument) -> str:
    """Write a verdict as annotations, one a line: an error per failed check, then the headline."""
    # where there are more failures than GitHub shows, the last one that it shows lists the rest
    failed = [check for check in verdict["checks"] if check["status"] == "failed"]
    shown, rest = failed, []
    if len(failed) > SHOWN:
        shown, rest = failed[: SHOWN - 1], failed[SHOWN - 1 :]
    lines = [annotation("error", check_name(check), failure(check)) for check in shown]
    if rest:
        details = "\n".join(f"{check_name(check)}: {failure(check)}" for check in rest)
        lines.append(annotation("error", f"{len(rest)} more failed checks", details))
    lines.append(annotation("notice", "collapse-audit", verdict_headline(verdict)))
    return "\n".join(lines) + "\n"


def error_to_github(message: str) -> str:
    """Write an input error as an annotation, so that it is seen beside the run as well."""
    return annotation("error", "collapse-audit: no verdict", printable(message, 1000)) + "\n"
