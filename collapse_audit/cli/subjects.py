"""What `check` and `compare` are given: heads to audit, or reports that were saved."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from collapse_audit.cli.console import is_quiet
from collapse_audit.cli.options import AuditOptions
from collapse_audit.cli.pipeline import audits_of
from collapse_audit.cli.progress import progress_bars
from collapse_audit.errors import ParameterError, ReportError
from collapse_audit.gate import Difference, parse_report, read_report

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.remote import RemoteSettings
    from collapse_audit.report import ReportDocument

STDIN: Final = "-"


@dataclass(frozen=True, slots=True)
class Opener:
    """How a source becomes a report."""

    options: AuditOptions  # what to measure, if it is a head
    allow: tuple[Difference, ...]  # differences that are no obstacle
    progress: bool  # whether progress bars are wanted
    fetching: RemoteSettings
    epsilon: float | None = None  # asked for; ``None``: a saved report may have been made with any

    def report(self, source: str) -> ReportDocument:
        """Read a saved report (``.json``, or ``-`` for stdin), or audit a head."""
        if not is_report(source):
            from collapse_audit.head_audit import build_report

            return build_report(self.audits(source))
        if source == STDIN:
            report = parse_report(sys.stdin.read(), "stdin", allow=self.allow)
        else:
            report = read_report(Path(source), allow=self.allow)
        return self._chosen(report, source)

    def audits(self, source: str) -> list[CollapseAudit]:
        """Audit the heads of a source and keep their groups, which no report holds."""
        with progress_bars(wanted=self.progress and not is_quiet()) as progress:
            return audits_of(source, self.options, progress, self.fetching)

    def _chosen(self, report: ReportDocument, source: str) -> ReportDocument:
        """The part of a saved report that --head asks for; refused if made with another epsilon."""
        used = report["parameters"].get("epsilon")
        if self.epsilon not in (None, used):
            raise ReportError(
                f"{source}: was made with epsilon {used}, not {self.epsilon}.",
                hint="Audit the head again with that epsilon, or leave --epsilon out.",
            )
        name = self.options.head
        if name is None:
            return report
        heads = [head for head in report["heads"] if head["name"] == name]
        if not heads:
            names = ", ".join(head["name"] for head in report["heads"])
            raise ReportError(f"{source}: has no head {name!r}.", hint=f"It has: {names}.")
        return {**report, "heads": heads}


def is_report(source: str) -> bool:
    """Whether a source is a saved report by its name."""
    return source == STDIN or source.lower().endswith(".json")


def refuse_same_file(source: str, baseline: Path) -> None:
    """Refuse to compare a report with itself, which would always pass."""
    path = Path(source)
    if path.exists() and baseline.exists() and path.samefile(baseline):
        raise ParameterError(
            f"{source} is the baseline itself, so nothing could ever fail.",
            hint="Give the new head or report, and the baseline with --baseline.",
        )
