"""From sources to their reports to text: the one call behind `audit`, `demo` and `mlcd`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.console import Session, check_output, emit, explain, is_quiet, say
from collapse_audit.cli.formats import Document, render
from collapse_audit.cli.groups import Grouping, check_suffix, grouping_of, write_groups
from collapse_audit.cli.options import AuditOptions, OutputOptions
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.remote_options import reporter
from collapse_audit.errors import CollapseAuditError
from collapse_audit.report.documents import ErrorDocument, FeaturesReport
from collapse_audit.report.schema import error_document

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.remote.settings import RemoteSettings
    from collapse_audit.similarity import Progress


def deliver(
    work: Sequence[tuple[str, Callable[[Progress], list[CollapseAudit] | FeaturesReport]]],
    options: OutputOptions,
) -> None:
    """Measure the heads of each source and print the reports; unfit outputs are refused before."""
    sources = [source for source, _ in work]
    if options.output is not None:
        check_output(options.output, sources)
    if options.groups is not None:
        check_output(options.groups, sources, option="--groups")
        check_suffix(options.groups)
    documents: list[Document] = []
    groups: list[Grouping] = []
    members = []
    with progress_bars(wanted=options.progress and not is_quiet()) as progress:
        for source, measure in work:
            try:
                audits = measure(progress)
            except CollapseAuditError as error:
                documents.append(_one_of_several(source, error, len(work)))
            else:
                from collapse_audit.head_audit import build_report

                if isinstance(audits, dict):
                    documents.append(audits)
                    continue
                documents.append(build_report(audits))
                groups += map(grouping_of, audits)
                members.append([audit.groups for audit in audits])
    if options.groups is not None and groups:
        write_groups(groups, options.groups)
    to_terminal = options.output is None
    emit(render(documents, options.form, groups=members, to_terminal=to_terminal), options.output)
    if any("error" in document for document in documents):
        click.get_current_context().exit(2)


def _one_of_several(source: str, error: CollapseAuditError, number: int) -> ErrorDocument:
    """Tell an error that does not cost the other sources; that of a single one is passed on."""
    if number == 1:
        raise error
    context = click.get_current_context()
    message, hint = explain(error)
    message = message if message.startswith(source) else f"{source}: {message}"
    say("error", f"{message} {hint}".strip(), context.ensure_object(Session))
    return error_document(type(error).__name__, message, hint)


def audits_of(
    source: str, options: AuditOptions, progress: Progress, fetching: RemoteSettings | None = None
) -> list[CollapseAudit]:
    """Audit the heads of whatever a source is."""
    from collapse_audit.auditing import audit_source

    told = None if fetching is None else reporter()
    return audit_source(
        source, **asdict(options), settings=fetching, reporter=told, progress=progress
    )
