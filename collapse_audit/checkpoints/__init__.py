"""Checkpoint files: bytes -> heads found -> Prototypes.

Nothing that a file names is ever executed, and of a file that can be mapped into memory only the
tensors of the head are read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from collapse_audit.checkpoints.description import CheckpointDescription, describe
from collapse_audit.checkpoints.discovery import HeadLocation, discover_heads
from collapse_audit.checkpoints.ids import full_checkpoint_hint, locate_source
from collapse_audit.checkpoints.layouts import guess_family
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.checkpoints.selection import select_default, select_heads
from collapse_audit.checkpoints.sources import ResolvedSource
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.errors import NoPrototypesError, PrototypeError
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
    resolved = locate_source(source)
    checkpoint = read_checkpoint(resolved.path)
    chosen = _select(checkpoint, resolved, branch=branch, head=head)
    return _load(checkpoint, select_default(chosen, resolved.spec), resolved)


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
    resolved = locate_source(source, checkpoint_dir=checkpoint_dir)
    checkpoint = read_checkpoint(resolved.path)
    chosen = _select(checkpoint, resolved, branch=branch, head=head)
    return tuple(_load(checkpoint, location, resolved) for location in chosen)


def _select(
    checkpoint: Checkpoint, resolved: ResolvedSource, *, branch: Branch, head: str | None
) -> tuple[HeadLocation, ...]:
    heads = discover_heads(checkpoint)
    try:
        return select_heads(checkpoint, heads, branch=branch, head=head, spec=resolved.spec)
    except NoPrototypesError as error:
        known = full_checkpoint_hint(resolved.path)
        raise NoPrototypesError(error.message, hint=known or error.hint) from error


def _load(checkpoint: Checkpoint, head: HeadLocation, resolved: ResolvedSource) -> Prototypes:
    spec = resolved.spec
    read = {key: checkpoint.tensors[key].read() for key in head.tensor_keys}
    try:
        prototypes = Prototypes.from_weight(
            read[head.weight_key],
            scale=read[head.scale_key] if head.scale_key else None,
            bias=read[head.bias_key] if head.bias_key else None,
            name=head.name,
            branch=head.branch,
            tensor_keys=head.tensor_keys,
            source=spec,
        )
    except PrototypeError as error:
        raise PrototypeError(f"{spec}: {error.message}", hint=error.hint) from error
    family = resolved.family or guess_family(checkpoint, [head.name])
    # The stored type: bfloat16 may have been widened on the way.
    return replace(prototypes, dtype=head.dtype, family=family)
