"""Tensors of an open checkpoint: by plain name, as torch, and those of the backbone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.keys import WRAPPERS
from collapse_audit.checkpoints.roles import branch_of, is_patch_level

if TYPE_CHECKING:
    from torch import Tensor

    from collapse_audit.checkpoints.locations import HeadLocation
    from collapse_audit.containers.tensors import Checkpoint, StoredTensor
    from collapse_audit.prototypes import Branch

State: TypeAlias = "dict[str, Tensor]"

_WRAPPED = re.compile(rf"^(?:(?:{'|'.join(WRAPPERS)})\.)+")
_HEAD_MODULES = re.compile(
    r"(?:student_|teacher_)?(?:head|head_dense|projection_head|prototypes\d*|fc|criterion"
    r"|instance_head|local_group_head|group_head|dino_head|ibot_head|cls_head|patch_head|mlp|last_layer2?|last_layers)\."
)


def plain_key(tensor: StoredTensor) -> str:
    """The dotted name of a tensor, without what training wraps around networks."""
    parts = ".".join(tensor.path).split(".")
    return ".".join(part for part in parts if part not in WRAPPERS)


def read_tensor(tensor: StoredTensor) -> Tensor:
    """The values of a tensor, half precision as float32."""
    import torch  # seconds: not for those who only count prototypes

    values = torch.from_numpy(np.require(tensor.read(), requirements="W"))
    return values.float() if values.is_floating_point() and values.itemsize < 4 else values


def backbone_state(checkpoint: Checkpoint, head: HeadLocation) -> State:
    """State of the backbone that feeds a head, by the backbone's own names; empty without one."""
    path = checkpoint.tensors[head.weight_key].path
    folder, key = path[:-1], _WRAPPED.sub("", path[-1])
    if "target_encoder" in checkpoint.top_level and not folder:  # MSN
        folder = ("target_encoder",)
    tensors = {
        _WRAPPED.sub("", tensor.path[-1]): tensor
        for tensor in checkpoint.tensors.values()
        if tensor.path[:-1] == folder
    }
    # safetensors has no nested dictionaries: there the branch is the first part of the key
    if branch := re.match(r"(?:teacher|student)\.", key):
        key, tensors = key.removeprefix(branch[0]), _under(tensors, branch[0])
    side = re.match(r"student_|teacher_", key)
    for prefix in (f"{side[0]}backbone." if side else "backbone.", "backbone."):
        inside = _under(tensors, prefix)
        for wrapper in ("backbone.", "model."):  # EsViT's ResNet, our own trainer's timm models
            while inside and all(name.startswith(wrapper) for name in inside):
                inside = _under(inside, wrapper)
        if inside:
            break
    else:
        inside = _without_heads(tensors)
    return {name: read_tensor(tensor) for name, tensor in inside.items()}


def lone_backbone_state(checkpoint: Checkpoint, branch: Branch, markers: Iterable[str]) -> State:
    """State of the backbone of a file without prototypes: where a tensor of these names lies."""
    tensors = {plain_key(tensor): tensor for tensor in checkpoint.tensors.values()}
    marker = re.compile(rf"(?:(?P<place>.*)\.)?(?:{'|'.join(map(re.escape, markers))})")
    places = [found["place"] or "" for key in tensors if (found := marker.fullmatch(key))]
    if not places:
        return {}

    def rank(place: str) -> tuple[bool, bool, int]:
        found = branch_of(place.split("."))
        return found != branch, found is not None, len(place)

    place = min(places, key=rank)  # of Swin's stages, which look like transformers, the whole
    inside = _under(tensors, f"{place}." if place else "")
    return {name: read_tensor(tensor) for name, tensor in _without_heads(inside).items()}


def _without_heads(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not _HEAD_MODULES.match(name) and name not in ("prototypes", "temperature")
    }


def _under(tensors: dict[str, StoredTensor], prefix: str) -> dict[str, StoredTensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def centre_of(checkpoint: Checkpoint, head: HeadLocation) -> npt.NDArray[np.float64] | None:
    """The moving average of the teacher's logits (k) of this head's level, if the file holds it."""
    if head.branch == "student":
        return None
    patches = is_patch_level(head.name)
    for tensor in checkpoint.tensors.values():
        *modules, name = plain_key(tensor).split(".")
        known = name in ("center", "center2", "center_grid")
        of_patches = name != "center" or any("patch" in module for module in modules)
        if known and tensor.size == head.k and of_patches == patches:
            return tensor.read().astype(np.float64).reshape(-1)
    return None
