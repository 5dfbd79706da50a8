"""Codebooks of vector quantisers: single ones, stacks and residual layers, with their usage.

A layout is the name of a module and of a tensor in it, as one library writes them;
docs/codebooks.md has the sources. What the model looks up is the prototype: ``embed``, and where a
file has only the running sums of what was assigned to each code, these over the usage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from collapse_audit.checkpoints.keys import Layer
from collapse_audit.checkpoints.locations import HeadLocation, heads_of_stack, plain_head
from collapse_audit.checkpoints.roles import branch_of, short_names
from collapse_audit.containers.tensors import FLOATING, Checkpoint, StoredTensor

# rows: (heads x) K x D; sums: the same, to be divided by the usage; either: K x D, or D x K where
# the usage says so; across: K x heads x D; groups: 1 x (groups x K) x D
_Kind: TypeAlias = Literal["rows", "sums", "either", "across", "groups"]


class _Layout(NamedTuple):
    module: str
    tensor: str
    raw: bool  # a parameter or buffer of the module, and not the weight of a layer in it
    kind: _Kind


_QUANTISER = r"\w*(?:quantiz|vq)\w*"
_LAYOUTS = (
    _Layout(r"_?codebook", r"embed", True, "rows"),  # lucidrains, EnCodec
    _Layout(r"_?codebook", r"embed(?:ding)?_sum|embed_avg", True, "sums"),  # Mimi
    _Layout(r"\w*", r"codebook", False, "rows"),  # DAC
    _Layout(_QUANTISER, r"_?embed(?:ding)?", False, "rows"),  # taming, LlamaGen, BEiT v2
    _Layout(_QUANTISER, r"embed", True, "either"),  # VQ-VAE-2 of rosinality
    _Layout(_QUANTISER, r"embedding", True, "across"),  # k-means of fairseq
    _Layout(_QUANTISER, r"vars|codevectors", True, "groups"),  # wav2vec 2.0
)
_USAGE = ("cluster_usage", "cluster_size", "_ema_cluster_size", "ema_cluster_size")
# parts of a path that only say that there is a codebook
_INNER = re.compile(r"_?codebook|_?embed(?:ding)?(?:_sum|_avg)?|vars|codevectors")
_GROUPS_UNKNOWN = (
    "the codes of all groups are audited as one codebook: no project_q beside it tells how many "
    "groups there are"
)


def find_codebooks(checkpoint: Checkpoint, layers: Sequence[Layer]) -> list[HeadLocation]:
    """Every codebook among the layers of a checkpoint, in file order; of a stack each one."""
    scopes = {layer.scope for layer in layers}
    found = [
        (layer, weight, kind)
        for layer in layers
        if (weight := layer.weight) is not None
        and (kind := _kind(layer, weight))
        and not (kind == "sums" and (*layer.owner, "embed") in scopes)
    ]
    lists: dict[tuple[str, ...], int] = {}  # safetensors has layers.10 before layers.2
    found.sort(key=lambda place: _in_list(place[0].scope, lists))
    branches = [branch_of(layer.scope) for layer, _, _ in found]
    paths = [_path(layer) for layer, _, _ in found]
    names: dict[tuple[str, ...], str] = {}
    for branch in dict.fromkeys(branches):  # the copy of another network may have the same name
        own = [path for path, other in zip(paths, branches, strict=True) if other == branch]
        names |= zip(own, short_names(own), strict=True)
    heads: list[HeadLocation] = []
    for (layer, weight, kind), path, branch in zip(found, paths, branches, strict=True):
        base = replace(plain_head(weight), name=names[path], branch=branch, scope=layer.scope)
        heads += _locate(checkpoint, layers, layer, base, kind)
    return heads


def _in_list(
    scope: tuple[str, ...], lists: dict[tuple[str, ...], int]
) -> tuple[int, tuple[int, ...]]:
    """Where a layer is: the lists in the order in which they come, and in each by number."""
    pattern = tuple("#" if part.isdecimal() else part for part in scope)
    numbers = tuple(int(part) for part in scope if part.isdecimal())
    return lists.setdefault(pattern, len(lists)), numbers


def _kind(layer: Layer, weight: StoredTensor) -> _Kind | None:
    """How the matrices lie in a tensor, if the layer is a codebook."""
    if weight.dtype not in FLOATING or 0 in weight.shape:
        return None
    module = layer.scope[-2] if len(layer.scope) > 1 else ""
    for layout in _LAYOUTS:
        if (
            layout.raw == layer.raw
            and re.fullmatch(layout.tensor, layer.name)
            and re.fullmatch(layout.module, module)
        ):
            dimensions = len(weight.shape)
            if dimensions == 2:
                return "rows" if layout.kind in ("across", "groups") else layout.kind
            stacked = dimensions == 3 and layer.raw
            return layout.kind if stacked and layout.kind != "either" else None
    return None


def _path(layer: Layer) -> tuple[str, ...]:
    """The modules that lead to a codebook, or what it is called where none does."""
    path = layer.scope
    while path and _INNER.fullmatch(path[-1]):
        path = path[:-1]
    return path or ("codebook",)


def _locate(
    checkpoint: Checkpoint, layers: Iterable[Layer], layer: Layer, base: HeadLocation, kind: _Kind
) -> list[HeadLocation]:
    """The heads that one tensor holds, each like the first but for its place in it."""
    weight = checkpoint.tensors[base.weight_key]
    usage = None if kind == "across" else _usage_beside(checkpoint, weight, layer)
    number, k, d = (1, *weight.shape)[-3:]
    notes: tuple[str, ...] = ()
    if kind == "across":
        number, k = k, number
        notes = (f"one of {number} codebooks, stored as K x {number} x D",)
    if kind == "groups":
        groups = _groups(layers, layer, k, d) if number == 1 else None
        number, k = groups or 1, number * k // (groups or 1)
        notes = () if groups else (_GROUPS_UNKNOWN,)
    head = replace(base, k=k, d=d)
    if usage is not None:
        notes += _notes_on_usage(checkpoint, weight, usage, kind)
        head = replace(head, usage_key=usage.key, divided=kind == "sums")
        if kind == "either" and usage.size == d != k:
            why = f"transposed: stored as {k:,} x {d:,}, and its usage has {d:,} values"
            head, notes = replace(head, k=d, d=k, transposed=True), (*notes, why)
    elif kind == "sums":
        notes += ("no usage beside the sums of each code: they are audited as they are",)
    head = replace(head, across=kind == "across", notes=notes)
    if number == 1:
        return [head if len(weight.shape) == 2 else replace(head, index=0)]
    return heads_of_stack(head, number, checkpoint.name)


def _notes_on_usage(
    checkpoint: Checkpoint, weight: StoredTensor, usage: StoredTensor, kind: _Kind
) -> tuple[str, ...]:
    """Which of several tensors the prototypes are."""
    name, divisor = (tensor.key.rpartition(".")[2] for tensor in (weight, usage))
    if kind == "sums":
        return (f"the codes are {name} / {divisor}, as the model looks them up",)
    if weight.key.removesuffix(name) + "embed_avg" in checkpoint.tensors:
        return (f"the codes are {name}, as the model looks them up, and not embed_avg",)
    return ()


def _usage_beside(
    checkpoint: Checkpoint, weight: StoredTensor, layer: Layer
) -> StoredTensor | None:
    """How often training took each code: in the module of the codebook, or the one around it."""
    stem = weight.key.removesuffix(".weight")
    around = stem[: max(stem.rfind("."), stem.rfind("/")) + 1]
    for prefix in (around,) if layer.raw else (f"{stem}.", around):
        for name in _USAGE:
            if (tensor := checkpoint.tensors.get(prefix + name)) is not None:
                return tensor
    return None


def _groups(layers: Iterable[Layer], layer: Layer, codes: int, d: int) -> int | None:
    """The groups of wav2vec 2.0: its project_q takes the codes of all, one beside the other."""
    for other in layers:
        if other.scope == (*layer.owner[:-1], "project_q") and other.weight is not None:
            groups, rest = divmod(other.weight.shape[-1], d)
            return groups if groups and not rest and codes % groups == 0 else None
    return None
