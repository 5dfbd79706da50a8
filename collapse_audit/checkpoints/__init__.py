"""Checkpoint files: bytes -> heads found -> Prototypes.

Nothing that a file names is ever executed, and of a file that can be mapped into memory only the
tensors of the head are read.
"""

from __future__ import annotations

from pathlib import Path

from collapse_audit.checkpoints.description import CheckpointDescription, describe
from collapse_audit.checkpoints.discovery import HeadLocation, discover_heads
from collapse_audit.checkpoints.ids import locate_source
from collapse_audit.checkpoints.loading import heads_of, prototypes_of
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.checkpoints.remote import (
    load_remote_heads,
    load_remote_prototypes,
    remote_for,
)
from collapse_audit.checkpoints.selection import select_default
from collapse_audit.checkpoints.sources import ResolvedSource
from collapse_audit.prototypes import Branch, Prototypes

__all__ = [
    "CheckpointDescription",
    "HeadLocation",
    "ResolvedSource",
    "describe",
    "find_heads",
    "load_heads",
    "load_prototypes",
    "locate_source",
]


def find_heads(path: str | Path) -> tuple[HeadLocation, ...]:
    """List the prototype heads of a file without reading their values.

    Args:
        path: A file of torch.save (zip or legacy), safetensors, ``.npy`` or ``.npz``.

    Returns:
        The heads of all branches in file order; empty for a backbone-only file.

    Raises:
        SourceError: If there is no such file.
        CheckpointError: If it is damaged or no checkpoint.
        UnsafePickleError: If its pickle names an object outside the allow-list.
    """
    return discover_heads(read_checkpoint(locate_source(path).path))


def load_prototypes(
    source: str | Path, *, branch: Branch = "teacher", head: str | None = None
) -> Prototypes:
    """Load the prototypes of one head.

    Args:
        source: A file of torch.save (zip or legacy), safetensors, ``.npy`` or ``.npz``, or the id
            of a manifest entry whose file is in the cache.
        branch: The network, where the method has two. The default, the teacher, is the one that
            the literature audits; a file without one gives the student, with a warning, or its
            single network.
        head: Name of a head, or key of any matrix of the file. By default the image-level head,
            with a warning that names the others.

    Returns:
        Its prototypes.

    Raises:
        SourceError: If there is no such file.
        CheckpointError: If it is damaged, no checkpoint, or lacks the head or branch.
        UnsafePickleError: If its pickle names an object outside the allow-list.
        NoPrototypesError: If it is a backbone only.
        PrototypeError: If the prototypes are not finite, of zero norm or fewer than two.
    """
    if remote := remote_for(source):
        return load_remote_prototypes(remote, branch=branch, head=head)
    resolved = locate_source(source)
    checkpoint = read_checkpoint(resolved.path)
    chosen = heads_of(checkpoint, resolved.path, resolved.spec, branch=branch, head=head)
    location = select_default(chosen, resolved.spec)
    return prototypes_of(checkpoint, location, resolved.spec, resolved.family)


def load_heads(
    source: str | Path,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    checkpoint_dir: Path | None = None,
) -> tuple[Prototypes, ...]:
    """Load the prototypes of every head of a branch.

    Args:
        source: As for :func:`load_prototypes`.
        branch: As for :func:`load_prototypes`.
        head: As for :func:`load_prototypes`, but all heads by default.
        checkpoint_dir: Folder in which the files of ids are looked for before the cache.

    Returns:
        One entry per head, in file order. They are never pooled: heads are independent.

    Raises:
        SourceError: If there is no such file.
        CheckpointError: If it is damaged, no checkpoint, or lacks the head or branch.
        UnsafePickleError: If its pickle names an object outside the allow-list.
        NoPrototypesError: If it is a backbone only.
        PrototypeError: If the prototypes are not finite, of zero norm or fewer than two.
    """
    if remote := remote_for(source, checkpoint_dir=checkpoint_dir):
        return load_remote_heads(remote, branch=branch, head=head)
    resolved = locate_source(source, checkpoint_dir=checkpoint_dir)
    checkpoint = read_checkpoint(resolved.path)
    chosen = heads_of(checkpoint, resolved.path, resolved.spec, branch=branch, head=head)
    return tuple(
        prototypes_of(checkpoint, location, resolved.spec, resolved.family) for location in chosen
    )
