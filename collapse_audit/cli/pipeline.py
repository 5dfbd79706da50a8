"""From a source to its report to its text: the one call behind `audit` and `demo`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from collapse_audit.cli.console import Session, check_output, emit
from collapse_audit.cli.formats import render
from collapse_audit.cli.options import AuditOptions, OutputOptions
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.storage_options import reporter

if TYPE_CHECKING:
    from collapse_audit.audit import Published, Source
    from collapse_audit.manifest import PublishedCount
    from collapse_audit.prototypes import Prototypes
    from collapse_audit.similarity import Progress
    from collapse_audit.storage import StorageSettings

_CHUNK: Final = 1 << 23


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
    source: str, options: AuditOptions, progress: Progress, storage: StorageSettings
) -> dict[str, Any]:
    """Audit what a user typed.

    Args:
        source: A path, a manifest id or an address.
        options: What to measure.
        storage: Cache and manners, should it have to be fetched.
        progress: Told how far the work is.

    Returns:
        The report.
    """
    from collapse_audit.audit import Source
    from collapse_audit.checkpoints.ids import locate_source
    from collapse_audit.checkpoints.remote import load_remote_heads, remote_for
    from collapse_audit.manifest import load_manifest

    if remote := remote_for(source, checkpoint_dir=options.checkpoint_dir, settings=storage):
        heads = load_remote_heads(
            remote, storage, branch=options.branch, head=options.head, reporter=reporter()
        )
        known = remote.name if remote.family else None
        counts = load_manifest().get(known).published if known else ()
        described = Source(spec=remote.name, id=known, family=remote.family)
        return _audit_heads(heads, described, counts, options, progress)
    found = locate_source(source, checkpoint_dir=options.checkpoint_dir)
    counts = load_manifest().get(found.id).published if found.id else ()
    described = Source(spec=found.spec, id=found.id, family=found.family)
    return _audit_file(found.path, described, counts, options, progress)


def audit_embedded(options: AuditOptions, progress: Progress) -> dict[str, Any]:
    """Audit the head inside the package.

    Args:
        options: What to measure.
        progress: Told how far the work is.

    Returns:
        The report; its source is ``demo``.
    """
    from collapse_audit.audit import Source
    from collapse_audit.examples import embedded_head

    return _audit_file(embedded_head(), Source(spec="demo"), (), options, progress)


def file_sha256(path: Path, progress: Progress) -> str:
    """Checksum of a file, read once in chunks of 8 MiB.

    Args:
        path: An existing file.
        progress: Told how far the work is, in bytes: checkpoints reach several GB.

    Returns:
        64 hexadecimal digits.
    """
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress("checksum", done, size)
    return digest.hexdigest()


def _audit_file(
    path: Path,
    described: Source,
    counts: tuple[PublishedCount, ...],
    options: AuditOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Audit a file of this machine."""
    from collapse_audit.checkpoints import load_heads

    heads = load_heads(path, branch=options.branch, head=options.head)
    described = replace(described, sha256=file_sha256(path, progress))
    return _audit_heads(heads, described, counts, options, progress)


def _audit_heads(
    heads: tuple[Prototypes, ...],
    described: Source,
    counts: tuple[PublishedCount, ...],
    options: AuditOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Audit every head on its own: heads are never pooled."""
    from collapse_audit.audit import audit_prototypes, build_report

    described = replace(described, family=described.family or heads[0].family)
    return build_report(
        [
            audit_prototypes(
                prototypes,
                epsilon=options.epsilon,
                sweep=options.sweep,
                nearest=options.nearest,
                device=options.device,
                source=replace(described, published=_comparable(counts, prototypes, options)),
                progress=progress,
            )
            for prototypes in heads
        ]
    )


def _comparable(
    counts: tuple[PublishedCount, ...], prototypes: Prototypes, options: AuditOptions
) -> tuple[Published, ...]:
    """Published counts of this head at this epsilon; sources that state neither are kept."""
    from collapse_audit.audit import Published

    return tuple(
        Published(count.unique, count.source + (", second hand" if count.second_hand else ""))
        for count in counts
        if count.k in (None, prototypes.k) and count.epsilon in (None, options.epsilon)
    )
