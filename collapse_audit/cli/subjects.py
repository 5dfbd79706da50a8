"""What `check` and `compare` are given: heads to audit, or reports that were saved."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collapse_audit.cli.console import is_quiet
from collapse_audit.cli.options import AuditOptions
from collapse_audit.cli.pipeline import audits_of
from collapse_audit.cli.progress import progress_bars
from collapse_audit.errors import ParameterError, ReportError
from collapse_audit.gate.files import parse_report, read_report
from collapse_audit.gate.pairing import Difference, no_head
from collapse_audit.gate.subjects import is_report
from collapse_audit.history import newest_checkpoint
from collapse_audit.sources import STDIN, read_stdin

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.remote.settings import RemoteSettings
    from collapse_audit.report.documents import ReportDocument


@dataclass(frozen=True, slots=True)
class Opener:
    """How a source becomes a report."""

    options: AuditOptions  # what to measure, if it is a head
    allow: tuple[Difference, ...]  # differences that are no obstacle
    progress: bool  # whether progress bars are wanted
    fetching: RemoteSettings

    def open(self, source: str) -> ReportDocument | list[CollapseAudit]:
        """A saved report (``.json``, or on stdin); else audits, which have the groups of heads."""
        if source == STDIN and _stdin_holds_text():
            text = read_stdin().decode("utf-8", "replace")
            return self._chosen(parse_report(text, "stdin", allow=self.allow), source)
        if is_report(source):
            return self._chosen(read_report(Path(source), allow=self.allow), source)
        with progress_bars(wanted=self.progress and not is_quiet()) as progress:
            newest = str(newest_checkpoint(source))
            return audits_of(newest, self.options, progress, self.fetching)

    def _chosen(self, report: ReportDocument, source: str) -> ReportDocument:
        """The part of a saved report that --head asks for; refused if made otherwise than asked."""
        made = report["parameters"]
        for threshold, used, asked in (
            ("epsilon", made.get("epsilon"), self.options.epsilon),
            ("radius", made.get("radius"), self.options.radius),
        ):
            if asked not in (None, used):
                raise ReportError(
                    f"{source}: was made with {threshold} {used}, not {asked}.",
                    hint=f"Audit the head again with that {threshold}, or leave --{threshold} out.",
                )
        name = self.options.head
        if name is None:
            return report
        heads = [head for head in report["heads"] if head["name"] == name]
        if not heads:
            raise no_head(name, source, [head["name"] for head in report["heads"]])
        return {**report, "heads": heads}


def _stdin_holds_text() -> bool:
    """Whether what comes is JSON, and not the header of safetensors, which may begin like it."""
    start = getattr(sys.stdin.buffer, "peek", lambda _: b"")(8)
    return start.lstrip()[:1] == b"{" and start[4:8] != bytes(4)


def refuse_same_file(source: str, baseline: Path) -> None:
    """Refuse to compare a report with itself, which would always pass."""
    path = Path(source)
    if path.exists() and baseline.exists() and path.samefile(baseline):
        raise ParameterError(
            f"{source} is the baseline itself, so nothing could ever fail.",
            hint="Give the new head or report, and the baseline with --baseline.",
        )
