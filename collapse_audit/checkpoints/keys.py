"""Tensor keys, understood: which layer a tensor belongs to, and as which part of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from collapse_audit.containers.tensors import StoredTensor

# What DistributedDataParallel, torch.compile, FSDP and activation checkpointing put into a key.
WRAPPERS = frozenset({
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
})  # fmt: skip
_PART = re.compile(
    r"(?:^|\.)(weight_v|weight_g|weight|bias|kernel|parametrizations\.weight\.original[01])$"
)
_PARTS = {
    "weight": "weight",
    "kernel": "weight",
    "weight_v": "direction",
    "weight_g": "scale",
    "parametrizations.weight.original1": "direction",
    "parametrizations.weight.original0": "scale",
    "bias": "bias",
}
# PEFT keeps a trained copy of a module beside the one that it replaces; the copy is what counts.
_TRAINED = re.compile(r"\.modules_to_save\.[^.]+")
_REPLACED = ".original_module"
_BASE = ".base_layer"


@dataclass(slots=True, eq=False)
class Layer:
    """The tensors of one layer, or one raw parameter."""

    scope: tuple[str, ...]  # dictionaries and modules that lead to it, without wrappers
    # weight, or direction and scale (weight norm); bias
    parts: dict[str, StoredTensor] = field(default_factory=dict)
    raw: bool = False  # a parameter of its own and no layer
    kernel: bool = False  # D x K, as Flax and Keras have them
    adapted: bool = False  # a low-rank adapter changes it when the network runs

    @property
    def name(self) -> str:
        """Its own name: the last part of its path."""
        return self.scope[-1] if self.scope else ""

    @property
    def owner(self) -> tuple[str, ...]:
        """The module that it belongs to."""
        return self.scope[:-1]

    @property
    def weight(self) -> StoredTensor | None:
        """Its matrix. A weight beside g and v is the cache of a weight-norm hook, and stale."""
        return self.parts.get("direction") or self.parts.get("weight")


def layers_of(tensors: Mapping[str, StoredTensor]) -> list[Layer]:
    """Put tensors together to layers, and parameters beside modules to raw ones, in file order."""
    texts = {key: ".".join(tensor.path).replace("/", ".") for key, tensor in tensors.items()}
    trained = {_TRAINED.sub("", text) for text in texts.values() if _TRAINED.search(text)}
    adapted = {text.partition(".lora_A")[0] for text in texts.values() if ".lora_A" in text}
    layers: dict[tuple[tuple[str, ...], bool], Layer] = {}
    for key, tensor in tensors.items():
        text = _TRAINED.sub("", texts[key])
        if _REPLACED in text:
            text = text.replace(_REPLACED, "")
            if text in trained:
                continue
        is_base = _BASE in text
        text = text.replace(_BASE, "")
        found = _PART.search(text)
        owner = text[: found.start()] if found else text
        scope = tuple(name for name in owner.split(".") if name and name not in WRAPPERS)
        layer = layers.setdefault((scope, found is None), Layer(scope, raw=found is None))
        part = _PARTS[found[1]] if found else "weight"
        layer.parts[part] = tensor
        layer.kernel |= found is not None and found[1] == "kernel"
        layer.adapted |= is_base or owner in adapted
    return list(layers.values())


def numbered_chains(layers: Iterable[Layer]) -> dict[tuple[str, ...], list[Layer]]:
    """The linear layers that are numbered in one module (``nn.Sequential``), by its scope."""
    chains: dict[tuple[str, ...], list[Layer]] = {}
    for layer in layers:
        if layer.name.isdecimal() and layer.weight is not None and layer.weight.is_float_matrix:
            chains.setdefault(layer.owner, []).append(layer)
    for chain in chains.values():
        chain.sort(key=lambda layer: int(layer.name))
    return chains
