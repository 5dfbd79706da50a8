"""Find the prototype layers among the tensors of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from collapse_audit.checkpoints.layouts import is_patch_level, parse_key
from collapse_audit.checkpoints.tensors import Checkpoint, StoredTensor, printable
from collapse_audit.errors import CheckpointError
from collapse_audit.prototypes import Branch


@dataclass(frozen=True, slots=True, eq=False)
class HeadLocation:
    """Where one head's prototypes are in a file; nothing of them has been read.

    Attributes:
        name: Module that owns the layer, such as ``head`` or ``dino_head``; unique in its branch.
        branch: ``"teacher"`` or ``"student"``; ``None`` where the file has a single network.
        weight_key: Key of the weight, or of the directions ``v`` of a weight-normed layer.
        scale_key: Key of the scales ``g`` of a weight-normed layer, else ``None``.
        bias_key: Key of the bias, else ``None``.
        aliases: Further keys under which the same stored weight appears.
        parametrisation: ``"weight_norm"`` or ``"plain"``.
        k: Number of prototypes, K.
        d: Their dimension, D.
        dtype: Type of the stored weight.
    """

    name: str
    branch: Branch | None
    weight_key: str
    scale_key: str | None
    bias_key: str | None
    aliases: tuple[str, ...]
    parametrisation: Literal["weight_norm", "plain"]
    k: int
    d: int
    dtype: str

    @property
    def tensor_keys(self) -> tuple[str, ...]:
        """Keys of all tensors that the head needs."""
        return tuple(key for key in (self.weight_key, self.scale_key, self.bias_key) if key)


def discover_heads(checkpoint: Checkpoint) -> tuple[HeadLocation, ...]:
    """Find every head of a file.

    A layer is known by its name (see :mod:`collapse_audit.checkpoints.layouts`), never by its
    shape: a classifier over ImageNet has the shape of a prototype layer. Weights that share their
    storage are one head with aliases, as in iBOT's shared head. A file without such names that
    is nothing but a matrix (or, for ``.npz``, holds matrices) is taken at its word.

    Args:
        checkpoint: The file.

    Returns:
        Its heads in file order; empty for a backbone.

    Raises:
        CheckpointError: If a weight-normed layer lacks one of its two tensors.
    """
    layers: dict[tuple[object, str], tuple[str, Branch | None, dict[str, StoredTensor]]] = {}
    for tensor in checkpoint.tensors.values():
        if key := parse_key(tensor.path):
            _, _, parts = layers.setdefault(
                (tensor.path[:-1], key.module), (key.name, key.branch, {})
            )
            parts[key.part] = tensor
    found = []
    for (_, module), (name, branch, parts) in layers.items():
        if head := _locate(checkpoint, name, branch, parts):
            found.append((module, head, parts["direction" if head.scale_key else "weight"]))
    heads = _infer_branches(_merge_shared(found))
    return _make_unique(heads) or _plain_matrices(checkpoint)


def plain_head(tensor: StoredTensor) -> HeadLocation:
    """Take a matrix for a head because the user, or the file, says that it is one.

    Args:
        tensor: A floating-point matrix.

    Returns:
        Its location, named after its key.
    """
    return HeadLocation(
        name=tensor.key,
        branch=None,
        weight_key=tensor.key,
        scale_key=None,
        bias_key=None,
        aliases=(),
        parametrisation="plain",
        k=tensor.shape[0],
        d=tensor.shape[1],
        dtype=tensor.dtype,
    )


def default_head(heads: tuple[HeadLocation, ...]) -> HeadLocation:
    """The head that a paper's number is about.

    Args:
        heads: Heads of one branch.

    Returns:
        The largest image-level (class-token) head, the first of these if several are as large;
        a patch-level head only if there is no other.
    """
    return max(heads, key=lambda head: (not is_patch_level(head.name), head.k))


def _locate(
    checkpoint: Checkpoint, name: str, branch: Branch | None, parts: dict[str, StoredTensor]
) -> HeadLocation | None:
    """A head from the tensors of one layer; ``None`` if they are not of a prototype layer."""
    # A weight beside g and v is the cache of an old weight-norm hook, stale after a step.
    weight = parts.get("direction") or parts.get("weight")
    scale = parts.get("scale")
    if weight is None or not weight.is_float_matrix:
        return None
    if "direction" in parts and scale is None:
        raise CheckpointError(
            f"{printable(checkpoint.path)}: {weight.key}: a weight-normed layer without its scale "
            "(weight_g).",
            hint="The file is incomplete: use the full training checkpoint.",
        )
    normed = "direction" in parts and scale is not None
    bias = parts.get("bias")
    return replace(
        plain_head(weight),
        name=name,
        branch=branch,
        scale_key=scale.key if normed and scale else None,
        bias_key=bias.key if bias and bias.size == weight.shape[0] else None,
        parametrisation="weight_norm" if normed else "plain",
    )


def _merge_shared(
    found: list[tuple[str, HeadLocation, StoredTensor]],
) -> list[tuple[str, HeadLocation]]:
    """One head per storage and branch; the class-token name wins, then the shortest."""
    groups: dict[object, list[tuple[str, HeadLocation]]] = {}
    for module, head, weight in found:
        groups.setdefault((head.branch, weight.storage), []).append((module, head))
    merged = []
    for group in groups.values():
        module, first = min(group, key=lambda m: (is_patch_level(m[1].name), len(m[1].weight_key)))
        others = tuple(head.weight_key for _, head in group if head is not first)
        merged.append((module, replace(first, aliases=others)))
    return merged


def _infer_branches(heads: list[tuple[str, HeadLocation]]) -> list[tuple[str, HeadLocation]]:
    """Where the keys mark one network only, the unmarked heads belong to the other."""
    # lightly has projection_head (teacher) beside student_projection_head; solo-learn has
    # head (student) beside momentum_head; VISSL keeps the teacher apart, under loss.
    marked = {head.branch for _, head in heads if head.branch}
    if len(marked) != 1:
        return heads
    other: Branch = "student" if "teacher" in marked else "teacher"
    return [(module, replace(head, branch=head.branch or other)) for module, head in heads]


def _make_unique(heads: list[tuple[str, HeadLocation]]) -> tuple[HeadLocation, ...]:
    """Fall back to full module paths for names that two heads of a branch would share."""
    uses = Counter((head.branch, head.name) for _, head in heads)
    return tuple(
        replace(head, name=module) if uses[head.branch, head.name] > 1 else head
        for module, head in heads
    )


def _plain_matrices(checkpoint: Checkpoint) -> tuple[HeadLocation, ...]:
    """Files that are a matrix and nothing else, and the matrices of an ``.npz``."""
    tensors = list(checkpoint.tensors.values())
    if checkpoint.container != "npz" and len(tensors) != 1:
        return ()
    matrices = [tensor for tensor in tensors if tensor.is_float_matrix]
    # head.weight, fc.weight and the like are classifiers
    return tuple(plain_head(t) for t in matrices if not t.key.endswith(_CLASSIFIERS))


_CLASSIFIERS = ("head.weight", "fc.weight", "classifier.weight", "linear.weight")
