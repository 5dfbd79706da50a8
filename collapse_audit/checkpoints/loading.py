"""A checkpoint that is open -> the heads asked for -> their prototypes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from collapse_audit.checkpoints.discovery import HeadLocation, discover_heads
from collapse_audit.checkpoints.ids import full_checkpoint_hint
from collapse_audit.checkpoints.layouts import guess_family
from collapse_audit.checkpoints.selection import select_heads
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.errors import NoPrototypesError, PrototypeError
from collapse_audit.prototypes import Branch, Prototypes


def heads_of(
    checkpoint: Checkpoint, path: Path, spec: str, *, branch: Branch, head: str | None
) -> tuple[HeadLocation, ...]:
    """Find the heads of one branch, or the one asked for by name.

    Args:
        checkpoint: The file, here or somewhere else.
        path: Its name, by which the manifest may know where its head is if it has none.
        spec: What to call it in messages.
        branch: The network, where the method has two.
        head: Name of a head, or key of any matrix of the file; all heads by default.

    Returns:
        One or more heads.

    Raises:
        NoPrototypesError: If it is a backbone only.
    """
    heads = discover_heads(checkpoint)
    try:
        return select_heads(checkpoint, heads, branch=branch, head=head, spec=spec)
    except NoPrototypesError as error:
        known = full_checkpoint_hint(path)
        raise NoPrototypesError(error.message, hint=known or error.hint) from error


def prototypes_of(
    checkpoint: Checkpoint, head: HeadLocation, spec: str, family: str | None = None
) -> Prototypes:
    """Read the tensors of one head.

    Args:
        checkpoint: The file, here or somewhere else.
        head: One of its heads.
        spec: What to call the file in messages and reports.
        family: Method family, if the manifest knows it; by default what the layout tells.

    Returns:
        Its prototypes.

    Raises:
        PrototypeError: If they are not finite, of zero norm or fewer than two.
    """
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
    family = family or guess_family(checkpoint, [head.name])
    # The stored type: bfloat16 may have been widened on the way.
    return replace(prototypes, dtype=head.dtype, family=family)
