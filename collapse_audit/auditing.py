"""A source in, one audit out, or one for each of its heads: everything the command line does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy.typing as npt

from collapse_audit.checkpoints.selection import select_default
from collapse_audit.head_audit import CollapseAudit, Measuring, Published, Source, audit_prototypes
from collapse_audit.prototypes import Branch, Metric, Prototypes, check_metric
from collapse_audit.sources import ResolvedSource, resolve_source

if TYPE_CHECKING:
    import torch

    from collapse_audit.remote.reporting import Reporter
    from collapse_audit.remote.settings import RemoteSettings


def audit(
    source: str | Path | Prototypes | npt.ArrayLike | torch.Tensor,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    checkpoint_dir: Path | None = None,
    **measuring: Unpack[Measuring],
) -> CollapseAudit:
    """Audit one head: the one call for a file, an id, an address or a matrix.

    Args:
        source: As for :func:`audit_source`; or what is in memory: prototypes, or their matrix
            (k x d, numpy or torch).
        branch: As for :func:`audit_source`; only for a source.
        head: Likewise. By default the image-level head, with a warning that names the others.
        checkpoint_dir: As for :func:`audit_source`.
        **measuring: ``epsilon`` (0.025), ``sweep`` (true), ``nearest`` (true), ``device``
            ("auto"), ``metric`` ("cosine"), ``radius`` and ``progress``, as for
            :func:`audit_prototypes`.

    Returns:
        The audit. In a notebook it shows itself, with its figures.

    Example:
        >>> audit("demo", sweep=False, nearest=False)
        CollapseAudit(Prototypes('head', k=512, d=64, dtype='float16', branch='teacher'),
        num_unique=112, epsilon=0.025, source='demo')
    """
    if not isinstance(source, str | Path):
        return audit_prototypes(source, **measuring)
    metric = _check(measuring)
    resolved = resolve_source(source, checkpoint_dir=checkpoint_dir)
    chosen = select_default(resolved.select(branch=branch, head=head), resolved.spec)
    (audited,) = audit_heads(
        resolved, resolved.load([chosen], zero_rows=metric == "euclidean"), **measuring
    )
    return audited


def audit_source(
    source: str | Path,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    checkpoint_dir: Path | None = None,
    settings: RemoteSettings | None = None,
    reporter: Reporter | None = None,
    **measuring: Unpack[Measuring],
) -> list[CollapseAudit]:
    """Audit every head of a checkpoint.

    Args:
        source: A path of a file or folder, an id of the manifest, an address, ``demo``, or ``-``
            for a file on stdin.
        branch: The network, where the method has two; without a teacher the student, with a note.
        head: Name of a head, or (the end of) the key of any matrix, ``KEY.T`` for its columns; all
            heads by default.
        checkpoint_dir: Folder in which the files of ids are looked for before the cache.
        settings: Cache, limits and patience for what is somewhere else.
        reporter: Told what is fetched.
        **measuring: ``epsilon`` (0.025), ``sweep`` (true), ``nearest`` (true), ``device``
            ("auto"), ``metric`` ("cosine"), ``radius`` and ``progress``, as for
            :func:`audit_prototypes`.

    Returns:
        One audit per head, in file order; heads are never pooled.

    Raises:
        SourceError: If there is no such source, or it cannot be fetched.
        CheckpointError: If it is damaged, no checkpoint, or lacks the head or branch.
        PrototypeError: If prototypes are not finite, of zero norm or fewer than two.
        ParameterError: If a threshold is out of its range or not of the metric, or there is no such
            metric or device.

    Example:
        >>> (audit,) = audit_source("demo", sweep=False, nearest=False)
        >>> audit.num_unique, audit.prototypes.k
        (112, 512)
    """
    metric = _check(measuring)
    resolved = resolve_source(
        source, checkpoint_dir=checkpoint_dir, settings=settings, reporter=reporter
    )
    chosen = resolved.select(branch=branch, head=head)
    heads = resolved.load(chosen, zero_rows=metric == "euclidean")
    return audit_heads(resolved, heads, **measuring)


def audit_heads(
    resolved: ResolvedSource, heads: tuple[Prototypes, ...], **measuring: Unpack[Measuring]
) -> list[CollapseAudit]:
    """Audit heads of a source that have been read; one audit each, as :func:`audit_source` does."""
    with ThreadPoolExecutor(1) as worker:
        # reading a file of gigabytes and comparing prototypes keep different parts busy
        checksum = worker.submit(resolved.sha256)
        audits = [audit_prototypes(_noted(head, resolved), **measuring) for head in heads]
        digest = checksum.result()
    return [replace(found, source=_source_of(resolved, found, digest)) for found in audits]


def _check(measuring: Measuring) -> Metric:
    """The metric; refuse what cannot be measured with before a source is fetched."""
    for name in measuring.keys() - Measuring.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {name!r}")
    metric = measuring.get("metric", "cosine")
    return check_metric(metric, measuring.get("epsilon"), measuring.get("radius"))


def _source_of(resolved: ResolvedSource, audited: CollapseAudit, sha256: str | None) -> Source:
    """What a report says of the source of one head."""
    # published counts at another epsilon or of another K are not comparable; where they state no K
    # it is that of the row
    entry = resolved.entry
    comparable = tuple(
        Published(count.unique, count.source + (", second hand" if count.second_hand else ""))
        for count in (entry.published if entry else ())
        if (count.k or (entry and entry.k)) in (None, audited.prototypes.k)
        and audited.redundancy.metric == "cosine"
        and count.epsilon in (None, audited.redundancy.epsilon)
    )
    family = resolved.family or audited.prototypes.family
    return Source(resolved.spec, resolved.id, family, sha256, comparable)


def _noted(prototypes: Prototypes, resolved: ResolvedSource) -> Prototypes:
    """The same, with a note if K is not that of the row of the manifest."""
    entry = resolved.entry
    if entry is None or entry.k is None or prototypes.k in (entry.k, *entry.nested_k):
        return prototypes
    note = (
        f"K is {prototypes.k:,} in this file and {entry.k:,} in the manifest's row {entry.id}, so "
        "it is another head, and no count that is published for that one is compared"
    )
    return replace(prototypes, notes=(*prototypes.notes, note))
