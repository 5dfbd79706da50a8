"""Checkpoint files: bytes -> heads found -> Prototypes.

Nothing that a file names is ever executed, and of a file that can be mapped into memory only the
tensors of the head are read.
"""

from __future__ import annotations

from pathlib import Path

from collapse_audit.checkpoints.description import CheckpointDescription, describe
from collapse_audit.checkpoints.discovery import HeadLocation, discover_heads
from collapse_audit.checkpoints.loading import prototypes_of
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.checkpoints.selection import select_default, select_heads
from collapse_audit.checkpoints.sources import ResolvedSource, resolve_source
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.prototypes import Branch, Prototypes

__all__ = [
    "Checkpoint",
    "CheckpointDescription",
    "HeadLocation",
    "ResolvedSource",
    "describe",
    "find_heads",
    "load_heads",
    "load_prototypes",
    "resolve_source",
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
    return discover_heads(read_checkpoint(resolve_source(path).path))


def load_prototypes(
    source: str | Path, *, branch: Branch = "teacher", head: str | None = None
) -> Prototypes:
    """Load the prototypes of one head.

    Args:
        source: A file of torch.save (zip or legacy), safetensors, ``.npy`` or ``.npz``.
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
    resolved = resolve_source(source)
    checkpoint = read_checkpoint(resolved.path)
    heads = discover_heads(checkpoint)
    chosen = select_heads(checkpoint, heads, branch=branch, head=head, spec=resolved.spec)
    return prototypes_of(checkpoint, select_default(chosen, resolved.spec), resolved.spec)


def load_heads(
    source: str | Path, *, branch: Branch = "teacher", head: str | None = None
) -> tuple[Prototypes, ...]:
    """Load the prototypes of every head of a branch.

    Args:
        source: As for :func:`load_prototypes`.
        branch: As for :func:`load_prototypes`.
        head: As for :func:`load_prototypes`, but all heads by default.

    Returns:
        One entry per head, in file order. They are never pooled: heads are independent.

    Raises:
        SourceError: If there is no such file.
        CheckpointError: If it is damaged, no checkpoint, or lacks the head or branch.
        UnsafePickleError: If its pickle names an object outside the allow-list.
        NoPrototypesError: If it is a backbone only.
        PrototypeError: If the prototypes are not finite, of zero norm or fewer than two.
    """
    resolved = resolve_source(source)
    checkpoint = read_checkpoint(resolved.path)
    heads = discover_heads(checkpoint)
    chosen = select_heads(checkpoint, heads, branch=branch, head=head, spec=resolved.spec)
    return tuple(prototypes_of(checkpoint, location, resolved.spec) for location in chosen)
