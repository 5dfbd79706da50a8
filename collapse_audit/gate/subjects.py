"""What is checked or compared: an audit, a report, or the source of one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from collapse_audit.errors import ParameterError
from collapse_audit.gate.files import check_report, read_report
from collapse_audit.gate.pairing import Difference
from collapse_audit.remote.addresses import is_remote

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.report.documents import ReportDocument

#: A source, the folder or glob of a run (its newest checkpoint), a saved report, the dictionary of
#: one, an audit, or those of all heads of a file.
Subject: TypeAlias = "str | Path | ReportDocument | CollapseAudit | Sequence[CollapseAudit]"


def is_report(source: str | Path) -> bool:
    """Whether a source is a saved report here by its name, and no index of a sharded checkpoint."""
    name = str(source).lower()
    return name.endswith(".json") and not name.endswith(".index.json") and not is_remote(source)


def open_subject(
    subject: Subject, allow: Collection[Difference] = ()
) -> ReportDocument | Sequence[CollapseAudit]:
    """Read or audit what is a name, and leave a report or audits as they are."""
    from collapse_audit.head_audit import CollapseAudit

    match subject:
        case str() | Path() if is_report(subject):
            return read_report(Path(subject), allow=allow)
        case str() | Path():
            from collapse_audit.auditing import audit_source
            from collapse_audit.history import newest_checkpoint

            return audit_source(newest_checkpoint(subject))
        case CollapseAudit():
            return [subject]
        case dict():
            # of any version: it is compared with that of the other side
            return check_report(subject, allow=["schema"])
        case list() | tuple() if subject and all(isinstance(s, CollapseAudit) for s in subject):
            return subject
    raise ParameterError(
        f"an audit, a report or a source is needed, got {type(subject).__name__}.",
        hint="collapse_audit.audit(...) audits a source or a matrix.",
    )


def document_of(opened: ReportDocument | Sequence[CollapseAudit]) -> ReportDocument:
    """A report as it is, or that of audits."""
    if isinstance(opened, dict):
        return opened
    from collapse_audit.head_audit import build_report

    return build_report(opened)
