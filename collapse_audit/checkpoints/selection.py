"""Choose among the heads of a checkpoint, and say what was chosen for the user."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from collapse_audit.checkpoints.locations import HeadLocation, plain_head
from collapse_audit.checkpoints.obstacles import no_prototypes
from collapse_audit.checkpoints.structure import default_head
from collapse_audit.containers.tensors import FLOATING, Checkpoint
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
    """Heads of one branch, or the one that a name, a key or the end of a key means."""
    # spec: what to call the checkpoint in messages. A NoPrototypesError if there are no heads, and
    # ``head`` names no matrix; a CheckpointError if there is no such branch or head, or an ``.npz``
    # leaves the choice open.
    if head is not None:
        return _named(checkpoint, heads, head, branch, spec)
    if not heads:
        raise no_prototypes(checkpoint, spec, file)
    default = heads_by_default(checkpoint, heads)
    if not default and (open_ones := [head for head in heads if head.undecided]):
        key = printable(open_ones[0].weight_key, 80)
        raise CheckpointError(
            f"{spec}: {key}: {open_ones[0].undecided}.",
            hint=f"Choose its rows with `head={key}`, or its columns with `head={key}.T`.",
        )
    if not default:
        raise CheckpointError(
            f"{spec}: {len(heads)} matrices, and nothing tells which one holds the prototypes.",
            hint=f"Choose a head: {_choices(heads)}.",
        )
    return _heads_of_branch(default, heads, branch, spec)


def heads_by_default(
    checkpoint: Checkpoint, heads: tuple[HeadLocation, ...]
) -> tuple[HeadLocation, ...]:
    """The heads that are audited by default: those of the teacher, or else of the only network."""
    # None if they are just the matrices of an .npz, features and logits among them.
    heads = tuple(head for head in heads if not head.undecided)
    unnamed = all(head.name == head.weight_key for head in heads)
    if checkpoint.container == "npz" and unnamed and len(heads) > 1:
        return ()
    for branch in ("teacher", None):
        if of_branch := tuple(head for head in heads if head.branch == branch):
            return of_branch
    return heads


def select_default(heads: tuple[HeadLocation, ...], spec: str) -> HeadLocation:
    """The image-level head of a branch, with a warning that there are others."""
    chosen = default_head(heads)
    others = ", ".join(head.name for head in heads if head is not chosen)
    if others:
        warnings.warn(
            f"{spec}: took head {chosen.name!r}; the file also has {others}.",
            CollapseAuditWarning,
            stacklevel=3,
        )
    return chosen


def _named(
    checkpoint: Checkpoint, heads: Sequence[HeadLocation], name: str, branch: Branch, spec: str
) -> tuple[HeadLocation, ...]:
    """The head of a name or key; any matrix will do for a key, the user has said so."""
    of_branch = [head for head in heads if head.branch in (branch, None)] or list(heads)
    for head in of_branch:
        if head.name == name:
            return (head,)
    keys = _matching(checkpoint, name)
    if not keys and len(turned := _matching(checkpoint, name.removesuffix(".T"))) == 1:
        stored = _as_head(checkpoint, turned[0], spec)
        return (replace(stored, k=stored.d, d=stored.k, transposed=True, notes=()),)
    if len(keys) == 1:  # a stack of matrices is several heads
        known = (
            head for head in heads if keys[0] in (head.weight_key, head.scale_key, *head.aliases)
        )
        return tuple(known) or (_as_head(checkpoint, keys[0], spec),)
    if keys:
        shown = ", ".join(printable(key, 80) for key in keys[:_NAMED])
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        raise CheckpointError(
            f"{spec}: {len(keys)} tensors end in {printable(name)!r}.",
            hint=f"Give more of the key: {shown}{more}.",
        )
    elsewhere = next((head.branch for head in heads if head.name == name), None)
    near = (
        f"It is a head of the {elsewhere}: choose `branch={elsewhere}`."
        if elsewhere
        else did_you_mean(name, [*(head.name for head in heads), *checkpoint.tensors])
    )
    choices = (
        f"Heads: {_choices(heads)}." if heads else "`collapse-audit info --all` lists its keys."
    )
    raise CheckpointError(
        f"{spec}: no head and no tensor is called {printable(name)!r}.",
        hint=f"{near} {choices}".strip(),
    )


def _matching(checkpoint: Checkpoint, name: str) -> list[str]:
    """The keys that a name can mean: itself, or those that end so, best at a dot or a slash."""
    if name in checkpoint.tensors:
        return [name]
    ending = [key for key in checkpoint.tensors if key.endswith(name)]
    return [key for key in ending if key.endswith((f"/{name}", f".{name}"))] or ending


def _as_head(checkpoint: Checkpoint, key: str, spec: str) -> HeadLocation:
    """A tensor that the user named as the prototypes, if it can be that."""
    tensor = checkpoint.tensors[key]
    shape = tensor.shape
    if set(shape[2:]) == {1}:  # a 1 x 1 convolution
        shape = shape[:2]
    if tensor.dtype not in FLOATING:
        what = f"not floating-point but {tensor.dtype}"
    elif len(shape) != 2:
        what = f"not a matrix (2-D) but {len(shape)}-D"
    elif 0 in shape:
        what = "empty"
    else:
        found = plain_head(replace(tensor, shape=shape))
        note = f"its {found.k:,} rows are audited, as it is stored; KEY.T would take its columns"
        return replace(found, notes=(note,) if found.k < found.d else ())
    near = did_you_mean(key, (t.key for t in checkpoint.tensors.values() if t.is_float_matrix))
    raise CheckpointError(
        f"{spec}: {printable(key)!r} is {what}, of shape {printable(list(tensor.shape))}.",
        hint=f"Prototypes are a matrix of K x D. {near}".strip(),
    )


def _heads_of_branch(
    default: tuple[HeadLocation, ...], heads: tuple[HeadLocation, ...], branch: Branch, spec: str
) -> tuple[HeadLocation, ...]:
    of_branch = tuple(head for head in heads if head.branch == branch)
    if of_branch:
        return of_branch
    if branch == "teacher":
        # The default falls back to what is there. A single network is no substitute for a
        # teacher that should have been there, so only the student needs a word.
        if default[0].branch is None:
            return default
        note = "no teacher in this file; took the student"
        warnings.warn(f"{spec}: {note}.", CollapseAuditWarning, stacklevel=4)
        return tuple(replace(head, notes=(*head.notes, note)) for head in default)
    choices = sorted({head.branch for head in heads if head.branch})
    raise CheckpointError(
        f"{spec}: no branch {branch!r} in this file.",
        hint=f"Branches: {', '.join(choices)}."
        if choices
        else "It holds a single network: leave the branch out.",
    )


def _choices(heads: Sequence[HeadLocation]) -> str:
    names = [f"{head.name} ({head.branch})" if head.branch else head.name for head in heads]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more
