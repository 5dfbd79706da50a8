"""Choose among the heads of a file, and say what was chosen for the user."""

from __future__ import annotations

import warnings

from collapse_audit.checkpoints.discovery import HeadLocation, default_head, plain_head
from collapse_audit.checkpoints.tensors import Checkpoint, printable
from collapse_audit.errors import CheckpointError, CollapseAuditWarning, NoPrototypesError
from collapse_audit.prototypes import Branch

_KEYS_SHOWN = 6


def select_heads(
    checkpoint: Checkpoint,
    heads: tuple[HeadLocation, ...],
    *,
    branch: Branch,
    head: str | None,
    spec: str,
) -> tuple[HeadLocation, ...]:
    """Heads of one branch, or the one that was asked for by name.

    Args:
        checkpoint: The file, for a head that is given by its key.
        heads: All heads of the file.
        branch: The network to audit.
        head: Name of a head, or key of any matrix of the file; ``None`` for all.
        spec: What to call the file in messages.

    Returns:
        One or more heads.

    Raises:
        NoPrototypesError: If the file has no heads, and ``head`` names no matrix of it.
        CheckpointError: If there is no such branch or head, or an ``.npz`` leaves the
            choice open.
    """  # noqa: DOC501  (raised through the functions below)
    if head is not None:
        by_key = _by_key(checkpoint, heads, head)
        if by_key is not None:
            return (by_key,)
    if not heads:
        raise _no_prototypes(checkpoint, spec)
    of_branch = _heads_of_branch(heads, branch, spec)
    if head is None and _is_ambiguous(checkpoint, heads):
        raise CheckpointError(
            f"{spec}: {len(heads)} matrices, and nothing tells which one holds the prototypes.",
            hint=f"Choose a head: {_choices(heads)}.",
        )
    if head is None:
        return of_branch
    named = tuple(location for location in of_branch if location.name == head)
    if not named:
        raise CheckpointError(
            f"{spec}: no head {printable(head)!r}.", hint=f"Heads: {_choices(heads)}."
        )
    return named


def select_default(heads: tuple[HeadLocation, ...], spec: str) -> HeadLocation:
    """The head to audit when nobody named one, with a warning that there are others.

    Args:
        heads: Heads of one branch.
        spec: What to call the file in messages.

    Returns:
        The image-level head.
    """
    chosen = default_head(heads)
    others = ", ".join(head.name for head in heads if head is not chosen)
    if not others:
        return chosen
    warnings.warn(
        f"{spec}: took head {chosen.name!r}; the file also has {others}.",
        CollapseAuditWarning,
        stacklevel=3,
    )
    return chosen


def _is_ambiguous(checkpoint: Checkpoint, heads: tuple[HeadLocation, ...]) -> bool:
    """Whether the heads are just the matrices of an ``.npz``, features and logits among them."""
    unnamed = all(head.name == head.weight_key for head in heads)
    return checkpoint.container == "npz" and unnamed and len(heads) > 1


def _by_key(
    checkpoint: Checkpoint, heads: tuple[HeadLocation, ...], key: str
) -> HeadLocation | None:
    """A head given by the key of its weight; any matrix will do, the user has said so."""
    for head in heads:
        if key in (head.weight_key, *head.aliases) and key != head.name:
            return head
    tensor = checkpoint.tensors.get(key)
    if tensor is None or not tensor.is_float_matrix or any(head.name == key for head in heads):
        return None
    return plain_head(tensor)


def _heads_of_branch(
    heads: tuple[HeadLocation, ...], branch: Branch, spec: str
) -> tuple[HeadLocation, ...]:
    present = {head.branch for head in heads}
    if branch not in present and branch == "teacher":
        # The default falls back to what is there. A single network is no substitute for a
        # teacher that should have been there, so only the student needs a word.
        if present == {"student"}:
            warnings.warn(
                f"{spec}: no teacher in this file; took the student.",
                CollapseAuditWarning,
                stacklevel=4,
            )
            return heads
        return tuple(head for head in heads if head.branch is None)
    of_branch = tuple(head for head in heads if head.branch == branch)
    if not of_branch:
        choices = sorted(name for name in present if name)
        raise CheckpointError(
            f"{spec}: no branch {branch!r} in this file.",
            hint=f"Branches: {', '.join(choices)}."
            if choices
            else "It holds a single network: leave the branch out.",
        )
    return of_branch


def _choices(heads: tuple[HeadLocation, ...]) -> str:
    return ", ".join(f"{head.name} ({head.branch})" if head.branch else head.name for head in heads)


def _no_prototypes(checkpoint: Checkpoint, spec: str) -> NoPrototypesError:
    keys = list(checkpoint.tensors) or list(checkpoint.top_level)
    seen = ", ".join(printable(key, 60) for key in keys[:_KEYS_SHOWN]) or "none"
    more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
    return NoPrototypesError(
        f"{spec}: no prototypes in this file; its keys are {seen}{more}.",
        hint="Backbone-only releases have none: use the full training checkpoint, "
        "or name the key of the last layer as the head.",
    )
