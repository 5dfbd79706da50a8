"""What the method repositories call their prototype layers.

One pattern covers all of them; the tests hold an example of every layout. The names come from the
official repositories: facebookresearch/dino, bytedance/ibot, facebookresearch/swav (also
DeepCluster-v2 and SeLa-v2), microsoft/esvit, facebookresearch/msn, facebookresearch/dinov2 and
dinov3, facebookresearch/capi, sthalles/carp, sail-sg/mugs, valeoai/Franca,
facebookresearch/vissl, lightly-ai/lightly and vturrisi/solo-learn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.prototypes import Branch

# What DistributedDataParallel, torch.compile and FSDP put at the start of a key. (Not
# ``str.replace``: "submodule.x" must stay what it is.)
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module")
# Dictionaries and modules around a model that say nothing about the head in it.
_SURROUNDINGS = frozenset({
    *_WRAPPERS, "teacher", "student", "student_ema", "momentum_teacher", "model_ema", "ema",
    "state_dict", "model", "net", "network", "loss", "classy_state_dict", "base_model", "heads",
})  # fmt: skip

_LAYER = re.compile(
    r"""(?:(?P<owner>.+?)\.)??          # the module that owns the layer, if any
    (?P<layer>last_layer2?              # DINO and most others; iBOT's second is for patches
      |last_layers\.\d+                 # Franca: one per nesting level
      |prototypes\.heads\.\d+           # lightly's SwAV
      |(?:prototypes\.)?prototypes\d*   # SwAV; DeepCluster-v2 and VISSL number them
      |(?<=head\.)layer                 # CAPI's online clustering
    )\.(?P<part>weight_v|weight_g|weight|bias|parametrizations\.weight\.original[01])""",
    re.VERBOSE,
)
_RAW_PROTOTYPES = re.compile(r"(?:.+\.)?prototypes")  # MSN: a parameter, not a layer

_PARTS = {
    "weight": "weight",
    "weight_v": "direction",
    "weight_g": "scale",
    "parametrizations.weight.original1": "direction",
    "parametrizations.weight.original0": "scale",
    "bias": "bias",
}


@dataclass(frozen=True, slots=True)
class LayerKey:
    """One tensor key, understood.

    Attributes:
        module: Dotted path of the layer, with everything around it.
        name: Name of the head: the module that owns the layer, or the layer itself.
        part: ``"weight"`` or ``"direction"`` and ``"scale"`` (weight norm), or ``"bias"``.
        branch: The network it belongs to, if its key says so.
    """

    module: str
    name: str
    part: str
    branch: Branch | None


def parse_key(path: tuple[str, ...]) -> LayerKey | None:
    """Tell whether a tensor belongs to a prototype layer.

    Args:
        path: Dictionary keys that lead to the tensor.

    Returns:
        What the key says, or ``None`` for a tensor of some other layer.
    """
    dotted = ".".join(path)
    if match := _LAYER.fullmatch(dotted):
        owner, layer, part = match["owner"] or "", match["layer"], _PARTS[match["part"]]
    elif _RAW_PROTOTYPES.fullmatch(dotted):
        owner, layer, part = dotted.removesuffix("prototypes").rstrip("."), "prototypes", "weight"
    else:
        return None
    module = f"{owner}.{layer}" if owner else layer
    return LayerKey(module, _head_name(owner, layer), part, _branch_of(module))


def _head_name(owner: str, layer: str) -> str:
    """The name people use: ``head`` for ``head.last_layer``, ``prototypes0`` for SwAV's first."""
    parts = owner.split(".")
    while parts and (parts[0] in _SURROUNDINGS or parts[0].isdigit()):
        parts.pop(0)
    parts = [part for part in parts if part not in _WRAPPERS]
    module = parts[-1] if parts else ""
    if layer.startswith("prototypes"):
        if layer == "prototypes" and "head" in module:  # DINO before June 2021
            return module
        return re.sub(r"prototypes\.(?:prototypes|heads\.)", "prototypes", layer)
    if layer.startswith("last_layers."):
        return f"{module or 'last_layers'}.{layer.rpartition('.')[2]}"
    if layer == "last_layer2":
        return f"{module}.{layer}" if module else layer
    return module or layer


def _branch_of(module: str) -> Branch | None:
    for part in module.split("."):
        if part.startswith(("teacher", "momentum")) or part in {"model_ema", "ema"}:
            return "teacher"
        if part.startswith("student"):
            return "student"
    return None


def is_patch_level(name: str) -> bool:
    """Whether a head works on patches or regions, not on the image or class token."""
    return name.endswith((".last_layer2", "head_dense")) or "patch" in name or "ibot_head" in name


def guess_family(checkpoint: Checkpoint, names: Iterable[str]) -> str | None:
    """The method that wrote a file, where its layout tells.

    Args:
        checkpoint: The file.
        names: Names of the heads found in it.

    Returns:
        A family of the manifest, or ``None``. SeLa-v2 files look like those of DeepCluster-v2 or
        SwAV, and runs of DINO's code by others look like DINO.
    """
    heads, top = set(names), set(checkpoint.top_level)
    text = "\n" + "\n".join(checkpoint.tensors)
    for family, tells in (
        ("vissl_dino", "classy_state_dict" in top and "prototypes0.weight_v" in text),
        ("vissl_swav", "classy_state_dict" in top),
        (_lightly(text) or "", "pytorch-lightning_version" in top and _lightly(text) is not None),
        ("mugs", "group_head" in heads),
        ("ibot", "ibot_loss" in top or "last_layer2." in text),
        ("franca", "_head.last_layers." in text),
        ("dinov2", "dino_head" in heads and "dino_head.last_layer.weight_v" in text),
        ("dinov3", "dino_head" in heads and "dino_head.last_layer.weight\n" in text + "\n"),
        ("capi", "head.layer.weight" in text or "backbone.decoder." in text),
        ("msn", "prototypes" in checkpoint.tensors and "target_encoder" in top),
        ("deepclusterv2", "prototypes.prototypes0.weight" in text),
        ("swav", "prototypes" in heads and "projection_head.0.weight" in text),
        ("esvit", "head_dense" in heads or _has_bare_backbone(text)),
        ("carp", "ncrops" in checkpoint.options),
        ("dino", bool({"teacher", "student"} & top) and "head" in heads),
    ):
        if heads and tells:
            return family
    return None


def _lightly(text: str) -> str | None:
    """The family of a Lightning file of lightly, by the head that it holds."""
    for family, head in (
        ("dinov2", r"teacher_head\.dino_head\."),  # lightly-train
        ("lightly_ibot", r"teacher_(?:cls_|patch_)?head\."),
        ("lightly_dino", r"(?:student_)?projection_head\.last_layer\."),
        ("lightly_swav", r"prototypes\.(?:heads|layers)\."),
    ):
        if re.search(rf"/{head}", text):
            return family
    return None


def _has_bare_backbone(text: str) -> bool:
    """EsViT sets the head on the backbone itself: ``layers.*`` beside ``head.last_layer``."""
    return bool(
        re.search(r"\n(?:teacher|student)/(?:module\.)?(?:layers|patch_embed)\.", text)
        and re.search(r"\n(?:teacher|student)/(?:module\.)?head\.last_layer\.", text)
    )
