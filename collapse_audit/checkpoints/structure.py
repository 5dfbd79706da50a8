"""Find the prototype layers among the tensors of a checkpoint, by structure.

A layer is one if it is named as prototypes are (``last_layer``, ``prototypes``, ``group_features``
and their relatives), or if it ends a projection head as only prototypes do: weight-normed, or the
last of a numbered chain whose bottleneck it follows, wider than that and without the bias that the
layers before it have. A matrix alone is no evidence: a classifier over ImageNet has the shape of a
prototype layer, and so has a word embedding. A file without prototypes may have a codebook or the
decoder of a sparse autoencoder, whose rows are looked at in the same way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from collapse_audit.checkpoints.autoencoders import find_decoders
from collapse_audit.checkpoints.codebooks import find_codebooks
from collapse_audit.checkpoints.keys import Layer, layers_of, numbered_chains
from collapse_audit.checkpoints.locations import HeadLocation, heads_of_stack, plain_head
from collapse_audit.checkpoints.roles import branch_of, head_name, is_copy, is_patch_level
from collapse_audit.containers.tensors import FLOATING, Checkpoint, StoredTensor
from collapse_audit.errors import CheckpointError
from collapse_audit.prototypes import Branch

_ROLE = r"_?(?:(?:teacher|student|momentum|target|online|ema)_)?"
_NAMED = re.compile(
    rf"{_ROLE}(?:(?:aux_)?last_layer\d*|prototypes?\d*|protos|group_features)(?:_(?:ema|teacher|student))?"
)
_LISTS = re.compile(rf"{_ROLE}(?:prototypes|last_layers)")
_HEAD = re.compile(r"\w*(?:head|projector|projection|neck)\w*")
# Modules that predict or classify: what ends them is no prototype layer.
_OTHER_HEADS = re.compile(r"\w*(?:predictor|prediction|pred_head|classifier|queue|bank)\w*")
_CLASSIFIERS = ("head.weight", "fc.weight", "classifier.weight", "linear.weight")
# Dictionaries of an optimiser repeat the names of the network.
STATES = frozenset({
    "optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "optim", "opt",
    "clustering_optimizer", "scheduler", "lr_schedulers", "scaler", "fp16_scaler",
})  # fmt: skip


def discover_heads(checkpoint: Checkpoint) -> tuple[HeadLocation, ...]:
    """Every head of a checkpoint, in file order; none for a backbone."""
    # Weights that are one storage are one head with aliases, as in iBOT's shared head, and a
    # running average beside a teacher is a copy that is not counted again. A file that is nothing
    # but a matrix (or, for ``.npz``, holds matrices) is taken at its word. A weight-normed layer
    # without one of its two tensors is a CheckpointError.
    tensors = {
        key: tensor
        for key, tensor in checkpoint.tensors.items()
        if not STATES.intersection(tensor.path[:-1]) and tensor.dtype in FLOATING
    }
    layers = layers_of(tensors)
    chains = _Chains(numbered_chains(layers))
    # mmengine writes "meta", and exchanges the weights with their average when it saves
    swapped = {"meta", "ema_state_dict"} <= set(checkpoint.top_level)
    found: list[HeadLocation] = []
    for layer in layers:
        if _is_named(layer) or _ends_a_head(layer, chains):
            branch = branch_of(layer.scope, swapped=swapped)
            heads = _locate(checkpoint, layer, chains)
            found += [replace(head, branch=branch, scope=layer.scope) for head in heads]
    found = found or find_codebooks(checkpoint, layers) or find_decoders(checkpoint, layers)
    found = _infer_branches(_without_copies(_merge_shared(found, checkpoint.tensors)))
    return _make_unique(found) or _plain_matrices(checkpoint)


class _Chains(dict[tuple[str, ...], list[Layer]]):
    """Chains of numbered layers, by the module that owns each."""

    @cached_property
    def projections(self) -> dict[tuple[str, ...], list[list[Layer]]]:
        """Those of projection heads, by the modules one and two steps around their owner."""
        found: dict[tuple[str, ...], list[list[Layer]]] = {}
        for owner, chain in self.items():
            if (
                owner
                and (_HEAD.fullmatch(owner[-1]) or owner[-1] in {"mlp", "layers"})
                and not any(_OTHER_HEADS.fullmatch(p) or _LISTS.fullmatch(p) for p in owner)
            ):
                for steps in range(1, min(len(owner), 2) + 1):
                    found.setdefault(owner[:-steps], []).append(chain)
        return found


def default_head(heads: Sequence[HeadLocation]) -> HeadLocation:
    """The head of a branch that a paper's number is about: the largest image-level one."""
    # The first of several as large; a patch-level head only if there is no other.
    return max(heads, key=lambda head: (not is_patch_level(head.name), head.k))


def _is_named(layer: Layer) -> bool:
    """Whether a layer is called as prototypes are."""
    if _OTHER_HEADS.fullmatch(layer.name):
        return False
    if _NAMED.fullmatch(layer.name):
        return True
    owner = layer.owner
    if layer.name.isdecimal() and owner:  # prototypes.0, prototypes.heads.1, last_layers.2
        listed = owner[-1] if owner[-1] != "heads" else (owner[-2] if len(owner) > 1 else "")
        return _LISTS.fullmatch(listed) is not None
    if layer.name == "layers" and owner:  # lightly until 2022
        return _LISTS.fullmatch(owner[-1]) is not None
    return layer.name == "layer" and bool(owner) and owner[-1].endswith("head")  # CAPI


def _ends_a_head(layer: Layer, chains: _Chains) -> bool:
    """Whether a layer ends a projection head as only prototypes do."""
    weight = layer.weight
    if layer.raw or weight is None or not weight.is_float_matrix:
        return False
    if any(_OTHER_HEADS.fullmatch(part) for part in layer.scope):
        return False
    if not any(_HEAD.fullmatch(part) for part in layer.scope):
        return False
    chain = chains.get(layer.owner, [])
    if layer.name.isdecimal() and (not chain or chain[-1] is not layer):
        return False
    k, d = weight.shape
    if "scale" in layer.parts:
        return layer.parts["scale"].size == k and k > 1
    before = chain[:-1]
    return (
        len(before) >= 2
        and "bias" not in layer.parts
        and all("bias" in other.parts for other in before)
        and all(other.weight is not None and d <= other.weight.shape[0] for other in before)
        and k > d
    )


def _locate(checkpoint: Checkpoint, layer: Layer, chains: _Chains) -> list[HeadLocation]:
    """The heads of one layer: several if it is a stack, none if it is no matrix."""
    weight = layer.weight
    if weight is None or weight.dtype not in FLOATING or 0 in weight.shape:
        return []
    if len(weight.shape) == 3 and layer.raw:
        first = replace(plain_head(weight), name=head_name(layer.scope))
        return heads_of_stack(first, weight.shape[0], checkpoint.name)
    if len(weight.shape) == 4 and weight.shape[2:] == (1, 1):  # a 1 x 1 convolution
        weight = replace(weight, shape=weight.shape[:2])
    if len(weight.shape) != 2:
        return []
    scale, bias = layer.parts.get("scale"), layer.parts.get("bias")
    if "direction" in layer.parts and scale is None:
        raise CheckpointError(
            f"{checkpoint.name}: {weight.key}: a weight-normed layer without its scale (weight_g).",
            hint="One shard of several, or incomplete: give the folder or its index, or the full "
            "training checkpoint.",
        )
    head = replace(
        plain_head(weight),
        name=head_name(layer.scope),
        scale_key=scale.key if "direction" in layer.parts and scale else None,
    )
    head = _oriented(head, layer, chains)
    notes = head.notes
    if layer.adapted:
        notes += ("a low-rank adapter (LoRA) changes this layer when it runs: the base is audited",)
    with_bias = bias is not None and bias.size == head.k
    return [replace(head, bias_key=bias.key if bias and with_bias else None, notes=notes)]


def _oriented(head: HeadLocation, layer: Layer, chains: _Chains) -> HeadLocation:
    """Decide whether a layer is stored as K x D, as torch does, or as D x K."""
    rows, columns = head.k, head.d
    flipped = replace(head, k=columns, d=rows, transposed=True)
    if head.scale_key is not None or rows == columns:
        return head
    bias = layer.parts.get("bias")
    if layer.kernel:
        why = "a kernel, which is stored as D x K"
    elif bias is not None and bias.size in (rows, columns):
        if bias.size == rows:
            return head
        why = f"its bias has {columns:,} values"
    else:
        as_torch, as_kernel = _fits(layer, (rows, columns), chains)
        if as_torch != as_kernel:
            if as_torch:
                return head
            why = f"the layer before it gives {rows:,} values"
        elif rows < columns:
            note = (
                f"fewer prototypes than dimensions (K = {rows:,} < D = {columns:,}), and nothing in"
                " the file tells whether it was saved as D x K; it was not transposed"
            )
            return replace(head, notes=(*head.notes, note))
        else:
            return head
    note = f"transposed: stored as {rows:,} x {columns:,}, and {why}"
    return replace(flipped, notes=(*head.notes, note))


def _fits(layer: Layer, shape: tuple[int, int], chains: _Chains) -> tuple[bool, bool]:
    """Whether the projection head before a layer fits it as K x D, and as D x K."""
    before = [other for other in _projection_before(layer, chains) if other is not layer]
    shapes = [other.weight.shape for other in before if other.weight is not None]
    if not shapes:
        return True, True
    as_torch = all(b[1] == a[0] for a, b in zip(shapes, [*shapes[1:], shape], strict=True))
    as_kernel = all(b[0] == a[1] for a, b in zip(shapes, [*shapes[1:], shape], strict=True))
    if as_torch != as_kernel:
        return as_torch, as_kernel
    width, other = shapes[-1]  # the layer before the prototypes alone, which may lie another way
    return width == shape[1], other == shape[0] or width == shape[0] < shape[1]


def _projection_before(layer: Layer, chains: _Chains) -> list[Layer]:
    """The chain before a prototype layer: in its module, or else the only one beside that."""
    own = chains.get(layer.owner, []) if layer.name.isdecimal() else []
    if len(own) > 1 and not _LISTS.fullmatch(layer.owner[-1]):
        return [other for other in own if other is not layer]
    for depth in range(len(layer.owner), max(len(layer.owner) - 3, -1), -1):
        inside = chains.projections.get(layer.owner[:depth], [])
        if len(inside) == 1:
            return inside[0]
        if inside:
            return []
    return []


def _merge_shared(
    heads: list[HeadLocation], tensors: Mapping[str, StoredTensor]
) -> list[HeadLocation]:
    """One head per storage and branch; the class-token name wins, then the shortest."""
    groups: dict[tuple[Branch | None, object], list[HeadLocation]] = {}
    networks: dict[object, set[Branch | None]] = {}
    for head in heads:
        place = (tensors[head.weight_key].storage, head.index)
        groups.setdefault((head.branch, place), []).append(head)
        networks.setdefault(place, set()).add(head.branch)
    merged = []
    for (_, shared), group in groups.items():
        first = min(group, key=lambda head: (is_patch_level(head.name), len(head.weight_key)))
        aliases = tuple(head.weight_key for head in group if head is not first)
        notes = first.notes
        if {"teacher", "student"} <= networks[shared]:
            notes += (
                "teacher and student are one storage: the teacher is no average of the student, "
                "a known cause of a loss that stays at ln K",
            )
        merged.append(replace(first, aliases=aliases, notes=notes))
    return merged


def _without_copies(heads: list[HeadLocation]) -> list[HeadLocation]:
    """Leave out what a running average repeats of a teacher."""
    averages = {head for head in heads if head.branch == "teacher" and is_copy(head.scope)}
    taught = {h.name for h in heads if h.branch == "teacher" and h not in averages}
    return [head for head in heads if not (head in averages and head.name in taught)]


def _infer_branches(heads: list[HeadLocation]) -> list[HeadLocation]:
    """Where the keys mark one network only, the unmarked heads belong to the other."""
    # lightly has projection_head (teacher) beside student_projection_head; solo-learn has
    # head (student) beside momentum_head; VISSL keeps the teacher apart, under loss.
    marked = {head.branch for head in heads if head.branch}
    if len(marked) != 1:
        return heads
    other: Branch = "student" if "teacher" in marked else "teacher"
    return [replace(head, branch=head.branch or other) for head in heads]


def _make_unique(heads: list[HeadLocation]) -> tuple[HeadLocation, ...]:
    """Fall back to full module paths for names that two heads of a branch would share."""
    uses = Counter((head.branch, head.name) for head in heads)
    return tuple(
        replace(head, name=".".join(head.scope)) if uses[head.branch, head.name] > 1 else head
        for head in heads
    )


def _plain_matrices(checkpoint: Checkpoint) -> tuple[HeadLocation, ...]:
    """Files that are a matrix and nothing else, and the matrices of an ``.npz``."""
    tensors = list(checkpoint.tensors.values())
    if checkpoint.container != "npz" and len(tensors) != 1:
        return ()
    matrices = [tensor for tensor in tensors if tensor.is_float_matrix]
    return tuple(plain_head(t) for t in matrices if not t.key.endswith(_CLASSIFIERS))
