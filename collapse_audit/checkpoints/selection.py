"""Choose among the heads of a checkpoint, and say what was chosen for the user."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from collapse_audit.checkpoints.obstacles import no_prototypes
from collapse_audit.checkpoints.structure import HeadLocation, default_head, plain_head
from collapse_audit.containers import FLOATING, Checkpoint, StoredTensor
from collapse_audit.errors import CheckpointError, CollapseAuditWarning
from collapse_audit.prototypes import Branch
from collapse_audit.words import did_you_mean, printable

_NAMED = 12


def select_heads(
    checkpoint: Checkpoint,
    heads: tuple[HeadLocation, ...],
    *,
    branch: Branch,
    head: str | None,
    spec: str,
    file: str = "",
) -> tuple[HeadLocation, ...]:
    """Heads of one branch, or the one that was asked for by name.

    Args:
        checkpoint: The checkpoint, for a head that is given by its key.
        heads: All its heads.
        branch: The network to audit.
        head: Name of a head, or key of any matrix, or the end of a key if no other ends so;
            ``None`` for all heads.
        spec: What to call the checkpoint in messages.
        file: Its file name.

    Returns:
        One or more heads.

    Raises:
        NoPrototypesError: If there are no heads, and ``head`` names no matrix.
        CheckpointError: If there is no such branch or head, or an ``.npz`` leaves the
            choice open.
    """  # noqa: DOC501  (made by the functions below)
    if head is not None:
        return (_named(checkpoint, heads, head, branch, spec),)
    if not heads:
        raise no_prototypes(checkpoint, spec, file)
    if _is_ambiguous(checkpoint, heads):
        raise CheckpointError(
            f"{spec}: {len(heads)} matrices, and nothing tells which one holds the prototypes.",
            hint=f"Choose a head: {_choices(heads)}.",
        )
    return _heads_of_branch(heads, branch, spec)


def select_default(heads: tuple[HeadLocation, ...], spec: str) -> HeadLocation:
    """The head to audit when nobody named one, with a warning that there are others.

    Args:
        heads: Heads of one branch.
        spec: What to call the checkpoint in messages.

    Returns:
        The image-level head.
    """
    chosen = default_head(heads)
    others = ", ".join(head.name for head in heads if head is not chosen)
    if others:
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


def _named(
    checkpoint: Checkpoint, heads: Sequence[HeadLocation], name: str, branch: Branch, spec: str
) -> HeadLocation:
    """The head of a name or key; any matrix will do for a key, the user has said so."""
    of_branch = [head for head in heads if head.branch in (branch, None)] or list(heads)
    for head in of_branch:
        if head.name == name:
            return head
    for key in _matching(checkpoint, name):
        for head in heads:
            if key in (*head.tensor_keys, *head.aliases):
                return head
        return _as_head(checkpoint.tensors[key], spec)
    if ending := [key for key in checkpoint.tensors if key.endswith(name)]:
        shown = ", ".join(printable(key, 80) for key in ending[:3])
        raise CheckpointError(
            f"{spec}: {len(ending)} tensors end in {printable(name)!r}.", hint=f"Such as {shown}."
        )
    near = did_you_mean(name, [*(head.name for head in heads), *checkpoint.tensors])
    known = f"Heads: {_choices(heads)}." if heads else "`collapse-audit info --all` lists its keys."
    raise CheckpointError(
        f"{spec}: no head and no tensor is called {printable(name)!r}.",
        hint=f"{near} {known}".strip(),
    )


def _matching(checkpoint: Checkpoint, name: str) -> list[str]:
    """The key that a name means: itself, or the only one that ends so at a dot or a slash."""
    if name in checkpoint.tensors:
        return [name]
    ends = (f"/{name}", f".{name}")
    found = [key for key in checkpoint.tensors if key.endswith(ends)]
    return found if len(found) == 1 else []


def _as_head(tensor: StoredTensor, spec: str) -> HeadLocation:
    """A tensor that the user named as the prototypes, if it can be that."""
    shape = printable(list(tensor.shape))
    if tensor.dtype not in FLOATING:
        raise CheckpointError(
            f"{spec}: {printable(tensor.key)!r} is not floating-point but {tensor.dtype} "
            f"(shape {shape})."
        )
    if not tensor.is_float_matrix:
        squeezed = tensor.shape[:2] if set(tensor.shape[2:]) == {1} else ()
        if len(squeezed) == 2 and 0 not in squeezed:
            return plain_head(replace(tensor, shape=squeezed))
        raise CheckpointError(
            f"{spec}: {printable(tensor.key)!r} is not a matrix (2-D) but {len(tensor.shape)}-D, "
            f"of shape {shape}.",
            hint="Prototypes are K x D: name a matrix, or save the one that is meant on its own.",
        )
    return plain_head(tensor)


def _heads_of_branch(
    heads: tuple[HeadLocation, ...], branch: Branch, spec: str
) -> tuple[HeadLocation, ...]:
    present = {head.branch for head in heads}
    if branch not in present and branch == "teacher":
        # The default falls back to what is there. A single network is no substitute for a
        # teacher that should have been there, so only the student needs a word.
        if present == {"student"}:
            note = "no teacher in this file; took the student"
            warnings.warn(f"{spec}: {note}.", CollapseAuditWarning, stacklevel=4)
            return tuple(replace(head, notes=(*head.notes, note)) for head in heads)
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


def _choices(heads: Sequence[HeadLocation]) -> str:
    names = [f"{head.name} ({head.branch})" if head.branch else head.name for head in heads]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more
