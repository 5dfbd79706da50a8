"""Where the prototypes of a head are in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from collapse_audit.containers import limits
from collapse_audit.containers.tensors import StoredTensor
from collapse_audit.errors import CheckpointError
from collapse_audit.prototypes import Branch


@dataclass(frozen=True, slots=True, eq=False)
class HeadLocation:
    """Where one head's prototypes are in a checkpoint; nothing of them has been read."""

    name: str  # module that owns the layer, such as ``dino_head``; unique in its branch
    weight_key: str  # of the weight, or of the directions ``v`` of a weight-normed layer
    k: int  # number of prototypes, K
    d: int  # their dimension, D
    dtype: str  # of the stored weight
    branch: Branch | None = None  # ``None`` where the file has a single network
    scale_key: str | None = None  # of the scales ``g`` of a weight-normed layer
    bias_key: str | None = None
    aliases: tuple[str, ...] = ()  # further keys under which the same weight appears
    transposed: bool = False  # stored as D x K
    index: int | None = None  # which matrix of a stack it is
    across: bool = False  # stacked along the second axis: K x heads x D
    usage_key: str | None = None  # of how often training took each prototype
    divided: bool = False  # the prototypes are the stored rows over their usage
    undecided: str = ""  # why nothing tells whether it lies K x D or D x K
    notes: tuple[str, ...] = ()  # what a reader of the result should know
    scope: tuple[str, ...] = ()  # dictionaries and modules that lead to the layer

    @property
    def parametrisation(self) -> Literal["weight_norm", "plain"]:
        """How the layer is stored: a weight-normed one has scales of its own."""
        return "plain" if self.scale_key is None else "weight_norm"

    @property
    def tensor_keys(self) -> tuple[str, ...]:
        """Keys of all tensors that the head needs."""
        keys = (self.weight_key, self.scale_key, self.bias_key, self.usage_key)
        return tuple(key for key in keys if key is not None)


def plain_head(tensor: StoredTensor) -> HeadLocation:
    """Take a matrix for a head because the user, or the file, says that it is one."""
    k, d = tensor.shape[-2:]  # of a stack the first
    return HeadLocation(tensor.key, tensor.key, k, d, tensor.dtype)


def heads_of_stack(head: HeadLocation, number: int, checkpoint: str) -> list[HeadLocation]:
    """One head for each of so many matrices that one tensor holds."""
    if number > limits.STACK:
        raise CheckpointError(
            f"{checkpoint}: {head.weight_key}: a stack of {number:,} matrices, over "
            f"{limits.STACK:,}.",
            hint="Save the heads that matter alone.",
        )
    return [replace(head, name=f"{head.name}.{index}", index=index) for index in range(number)]
