"""From a source to its report to its text: the one call behind `audit` and `demo`."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from collapse_audit.cli.console import Session, check_output, emit
from collapse_audit.cli.options import AuditOptions, OutputOptions
from collapse_audit.cli.progress import Progress, progress_bars
from collapse_audit.report import render
from collapse_audit.report.table import WIDEST

if TYPE_CHECKING:
    from collapse_audit.prototypes import Prototypes

_CHUNK: Final = 1 << 23


def deliver(
    measure: Callable[[Progress | None], dict[str, Any]],
    output: OutputOptions,
    *,
    source: str | None = None,
) -> None:
    """Measure a report and print it as the options say.

    Args:
        measure: Makes the report, given where to tell its progress.
        output: Format and destination; the destination is checked before the work.
        source: What is audited, which the output must not overwrite.
    """
    if output.output is not None:
        check_output(output.output, source)
    quiet = click.get_current_context().ensure_object(Session).quiet
    with progress_bars(wanted=output.progress and not quiet) as progress:
        report = measure(progress)
    width = shutil.get_terminal_size((WIDEST, 24)).columns if output.output is None else WIDEST
    emit(render(report, output.form, width=width), output.output)


def audit_source(source: str, options: AuditOptions, progress: Progress | None) -> dict[str, Any]:
    """Audit what a user typed.

    Args:
        source: A path or a manifest id.
        options: What to measure.
        progress: Told how far the work is.

    Returns:
        The report.
    """
    from collapse_audit.checkpoints import load_heads, resolve_source
    from collapse_audit.manifest import load_manifest

    resolved = resolve_source(source, checkpoint_dir=options.checkpoint_dir)
    heads = load_heads(resolved.path, branch=options.branch, head=options.head)
    return _report(
        heads,
        options,
        progress,
        spec=resolved.spec,
        id=resolved.id,
        family=resolved.family,
        sha256=file_sha256(resolved.path, progress),
        published=load_manifest().get(resolved.id).published if resolved.id else (),
    )


def audit_embedded(options: AuditOptions, progress: Progress | None) -> dict[str, Any]:
    """Audit the head inside the package.

    Args:
        options: What to measure.
        progress: Told how far the work is.

    Returns:
        The report; its source is ``demo``.
    """
    from collapse_audit.checkpoints import load_heads
    from collapse_audit.examples import embedded_head

    path = embedded_head()
    heads = load_heads(path, branch=options.branch, head=options.head)
    sha256 = file_sha256(path, progress)
    return _report(
        heads, options, progress, spec="demo", id=None, family="dino", sha256=sha256, published=()
    )


def file_sha256(path: Path, progress: Progress | None = None) -> str:
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
            if progress is not None:
                progress("checksum", done, size)
    return digest.hexdigest()


def _report(
    heads: Sequence[Prototypes], options: AuditOptions, progress: Progress | None, **source: Any
) -> dict[str, Any]:
    """Audit every head on its own: heads are never pooled."""
    from collapse_audit.audit import audit_prototypes, build_report

    audits = [
        audit_prototypes(
            prototypes,
            epsilon=options.epsilon,
            sweep=options.sweep,
            nearest=options.nearest,
            device=options.device,
            progress=progress,
        )
        for prototypes in heads
    ]
    return build_report(audits, **source)
