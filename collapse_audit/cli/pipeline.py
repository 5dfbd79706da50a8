"""From a source to its report to its text: the one call behind `audit`, `demo` and `mlcd`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from collapse_audit.cli.console import check_output, emit, is_quiet
from collapse_audit.cli.formats import render
from collapse_audit.cli.options import AuditOptions, OutputOptions
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.remote_options import reporter

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.remote import RemoteSettings
    from collapse_audit.similarity import Progress


def deliver(
    measure: Callable[[Progress], list[CollapseAudit]],
    options: OutputOptions,
    *,
    source: str | None = None,
) -> None:
    """Measure the heads of a source and print the report; an unfit output is refused before."""
    if options.output is not None:
        check_output(options.output, source)
    with progress_bars(wanted=options.progress and not is_quiet()) as progress:
        audits = measure(progress)
    from collapse_audit.head_audit import build_report

    text = render(build_report(audits), options.form, to_terminal=options.output is None)
    emit(text, options.output)


def audits_of(
    source: str, options: AuditOptions, progress: Progress, fetching: RemoteSettings | None = None
) -> list[CollapseAudit]:
    """Audit the heads of a path, a manifest id or an address."""
    from collapse_audit.auditing import audit_source

    told = None if fetching is None else reporter()
    return audit_source(
        source, **asdict(options), settings=fetching, reporter=told, progress=progress
    )
