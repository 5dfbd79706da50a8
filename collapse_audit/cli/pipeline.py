"""From a source to its report to its text: the one call behind `audit`, `demo` and `mlcd`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collapse_audit.cli.console import Session, check_output, emit
from collapse_audit.cli.formats import render
from collapse_audit.cli.options import AuditOptions, OutputOptions
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.remote_options import reporter
from collapse_audit.cli.sources import FoundSource, embedded_source, find_source

if TYPE_CHECKING:
    from collapse_audit.audit import CollapseAudit
    from collapse_audit.prototypes import Prototypes
    from collapse_audit.remote import RemoteSettings
    from collapse_audit.similarity import Progress


def deliver(
    measure: Callable[[Progress], dict[str, Any]],
    options: OutputOptions,
    *,
    source: str | None = None,
) -> None:
    """Measure a report and print it as the options say.

    Args:
        measure: Makes the report, given where to tell its progress.
        options: Format and destination; the destination is checked before the work.
        source: What is audited, which the output must not overwrite.
    """
    if options.output is not None:
        check_output(options.output, source)
    quiet = click.get_current_context().ensure_object(Session).quiet
    with progress_bars(wanted=options.progress and not quiet) as progress:
        report = measure(progress)
    emit(render(report, options.form, to_terminal=options.output is None), options.output)


def audit_source(
    source: str, options: AuditOptions, progress: Progress, fetching: RemoteSettings
) -> dict[str, Any]:
    """Audit what a user typed, for its report.

    Args:
        source: A path, a manifest id or an address.
        options: What to measure.
        fetching: Cache and manners, should it have to be fetched.
        progress: Told how far the work is.

    Returns:
        The report.
    """
    from collapse_audit.audit import build_report

    return build_report(audits_of_source(source, options, progress, fetching))


def audits_of_source(
    source: str, options: AuditOptions, progress: Progress, fetching: RemoteSettings
) -> list[CollapseAudit]:
    """Audit what a user typed.

    Args:
        source: A path, a manifest id or an address.
        options: What to measure.
        fetching: Cache and manners, should it have to be fetched.
        progress: Told how far the work is.

    Returns:
        One audit per head.
    """
    from collapse_audit.audit import Source
    from collapse_audit.checkpoints.remote import load_remote_heads, remote_for
    from collapse_audit.manifest import load_manifest

    remote = remote_for(source, checkpoint_dir=options.checkpoint_dir, settings=fetching)
    if remote is None:
        return _audit_file(find_source(source, options.checkpoint_dir), options, progress)
    heads = load_remote_heads(
        remote, fetching, branch=options.branch, head=options.head, reporter=reporter()
    )
    known = remote.name if remote.family else None
    described = Source(spec=remote.name, id=known, family=remote.family or heads[0].family)
    entry = load_manifest().get(known) if known else None
    return _audit_heads(heads, FoundSource(Path(), described, entry), options, progress)


def audit_embedded(options: AuditOptions, progress: Progress) -> dict[str, Any]:
    """Audit the head inside the package.

    Args:
        options: What to measure.
        progress: Told how far the work is.

    Returns:
        The report; its source is ``demo``.
    """
    from collapse_audit.audit import build_report

    return build_report(_audit_file(embedded_source(), options, progress))


def audit_head(
    prototypes: Prototypes, found: FoundSource, options: AuditOptions, progress: Progress
) -> CollapseAudit:
    """Audit one head of a file.

    Args:
        prototypes: The head.
        found: The file.
        options: What to measure.
        progress: Told how far the work is.

    Returns:
        The audit.
    """
    from collapse_audit.audit import audit_prototypes

    return audit_prototypes(
        prototypes,
        epsilon=options.epsilon,
        sweep=options.sweep,
        nearest=options.nearest,
        device=options.device,
        source=found.source_of(prototypes, options.epsilon),
        progress=progress,
    )


def _audit_file(
    found: FoundSource, options: AuditOptions, progress: Progress
) -> list[CollapseAudit]:
    """Audit a file of this machine."""
    from collapse_audit.checkpoints import load_heads

    heads = load_heads(found.path, branch=options.branch, head=options.head)
    return _audit_heads(heads, found.checksummed(heads[0].family, progress), options, progress)


def _audit_heads(
    heads: Iterable[Prototypes], found: FoundSource, options: AuditOptions, progress: Progress
) -> list[CollapseAudit]:
    """Audit every head on its own: heads are never pooled."""
    return [audit_head(head, found, options, progress) for head in heads]
