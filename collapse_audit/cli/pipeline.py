"""From a source to its report to its text: the one call behind `audit`, `demo` and `mlcd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.console import Session, check_output, emit
from collapse_audit.cli.formats import render
from collapse_audit.cli.options import AuditOptions, OutputOptions
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.remote_options import reporter

if TYPE_CHECKING:
    from collapse_audit.audit import CollapseAudit
    from collapse_audit.remote import RemoteSettings
    from collapse_audit.report import ReportDocument
    from collapse_audit.similarity import Progress


def deliver(
    measure: Callable[[Progress], list[CollapseAudit]],
    options: OutputOptions,
    *,
    source: str | None = None,
) -> None:
    """Measure the heads of a source and print the report as the options say.

    Args:
        measure: Makes the audits, given where to tell its progress.
        options: Format and destination; the destination is checked before the work.
        source: What is audited, which the output must not overwrite.
    """
    if options.output is not None:
        check_output(options.output, source)
    quiet = click.get_current_context().ensure_object(Session).quiet
    with progress_bars(wanted=options.progress and not quiet) as progress:
        audits = measure(progress)
    text = render(report_of(audits), options.form, to_terminal=options.output is None)
    emit(text, options.output)


def audits_of(
    source: str, options: AuditOptions, progress: Progress, fetching: RemoteSettings | None = None
) -> list[CollapseAudit]:
    """Audit what a user typed.

    Args:
        source: A path, a manifest id or an address.
        options: What to measure.
        progress: Told how far the work is.
        fetching: Cache and manners, should it have to be fetched.

    Returns:
        One audit per head.
    """
    from collapse_audit.auditing import audit_source

    return audit_source(
        source,
        branch=options.branch,
        head=options.head,
        epsilon=options.epsilon,
        sweep=options.sweep,
        nearest=options.nearest,
        device=options.device,
        checkpoint_dir=options.checkpoint_dir,
        settings=fetching,
        reporter=None if fetching is None else reporter(),
        progress=progress,
    )


def report_of(audits: list[CollapseAudit]) -> ReportDocument:
    """The report of all heads of a source.

    Args:
        audits: At least one.

    Returns:
        The document.
    """
    from collapse_audit.audit import build_report

    return build_report(audits)
