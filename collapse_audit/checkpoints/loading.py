"""A head that was found -> its prototypes."""

from __future__ import annotations

from dataclasses import replace

from collapse_audit.checkpoints.discovery import HeadLocation
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.errors import PrototypeError
from collapse_audit.prototypes import Prototypes


def prototypes_of(checkpoint: Checkpoint, head: HeadLocation, spec: str) -> Prototypes:
    """Read the tensors of one head.

    Args:
        checkpoint: The file, here or somewhere else.
        head: One of its heads.
        spec: What to call the file in messages and reports.

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
    return replace(prototypes, dtype=head.dtype)  # bfloat16 may have been widened on the way
