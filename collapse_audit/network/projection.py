"""The network around the prototypes: projection head, backbone weights, centre, temperatures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.discovery import HeadLocation
from collapse_audit.checkpoints.tensors import Checkpoint, StoredTensor
from collapse_audit.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from collapse_audit.manifest import CheckpointEntry
    from collapse_audit.prototypes import Branch


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the official code of a family does between image and logits, beyond its tensors.

    Attributes:
        activation: Between the linear layers of the projection head.
        normalize_features: Whether features are scaled to unit norm before the prototypes.
        use_norms: Whether logits carry the norms of the prototypes.
        teacher_temperature: Of the teacher, or the single network, at the end of training.
        student_temperature: Of the student.
        preprocessing: Name of the evaluation profile.
        centring: Whether the teacher's logits are centred, so that a centre missing from the
            file should be estimated.
    """

    activation: Literal["gelu", "relu"] = "gelu"
    normalize_features: bool = True
    use_norms: bool = True
    teacher_temperature: float = 0.07
    student_temperature: float = 0.1
    preprocessing: str = "in1k_bicubic"
    centring: bool = False

    def temperature(self, branch: Branch | None) -> float:
        """Temperature of a branch; a single network has the teacher's."""
        return self.student_temperature if branch == "student" else self.teacher_temperature


# SwAV scales its rows to unit norm before every step, MSN compares by cosine: no norms for them.
_SWAV = Recipe(
    "relu", use_norms=False, teacher_temperature=0.1, preprocessing="in1k_bilinear_std228"
)
_RECIPES: dict[str, Recipe] = {
    "swav": _SWAV,
    "deepclusterv2": _SWAV,
    "selav2": _SWAV,
    "msn": Recipe(use_norms=False, teacher_temperature=0.025, preprocessing="in1k_bilinear"),
    "carp": Recipe(normalize_features=False, teacher_temperature=1.0, student_temperature=1.0),
    "capi": Recipe(teacher_temperature=0.06, student_temperature=0.12),
    "franca": Recipe(normalize_features=False),
    "lightly": Recipe(teacher_temperature=0.04, preprocessing="in1k_bilinear", centring=True),
    **dict.fromkeys(("dino", "ibot", "esvit", "mugs", "vissl_dino"), Recipe(centring=True)),
}


# Field of a recipe to the field of a manifest row that says the same of one checkpoint.
_FIELDS = {
    "activation": "activation",
    "normalize_features": "l2_before_prototypes",
    "teacher_temperature": "teacher_temperature",
    "student_temperature": "student_temperature",
    "preprocessing": "preprocessing",
}


def recipe_for(family: str | None, entry: CheckpointEntry | None = None) -> Recipe:
    """Recipe of a family, or of one checkpoint.

    Args:
        family: Name in the manifest; ``None`` or an unknown one gets the defaults.
        entry: Row of the manifest, whose facts come before those of the family.

    Returns:
        Its recipe.
    """
    facts = {field: getattr(entry, name, None) for field, name in _FIELDS.items()}
    known: dict[str, Any] = {field: fact for field, fact in facts.items() if fact is not None}
    return replace(_RECIPES.get(family or "", Recipe()), **known)


_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|_fsdp_wrapped_module)\.)+")
_LAYER = re.compile(r"(?:^|\.)(?:last_layers?2?|prototypes\d*|layer)(?:\.\d+|\..*)?$")
_HEAD_MODULES = re.compile(
    r"(?:student_|teacher_)?(?:head|head_dense|projection_head|prototypes\d*|fc|criterion"
    r"|instance_head|local_group_head|group_head|dino_head|ibot_head|cls_head|patch_head|mlp|last_layer2?|last_layers)\."
)
_MSN_NAMES = {"fc1": "0", "bn1": "1", "fc2": "3", "bn2": "4", "fc3": "6"}


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The tensors of one branch of a checkpoint, by key without wrappers; nothing is read yet."""

    tensors: Mapping[str, StoredTensor]
    owner: str

    @classmethod
    def around(cls, checkpoint: Checkpoint, head: HeadLocation) -> Network:
        """The network that a head belongs to.

        Args:
            checkpoint: The file.
            head: One of its heads.

        Returns:
            All tensors that are stored beside the prototypes.
        """
        path = checkpoint.tensors[head.weight_key].path
        folder, key = path[:-1], _WRAPPERS.sub("", path[-1])
        if "target_encoder" in checkpoint.top_level and not folder:  # MSN
            folder = ("target_encoder",)
        tensors = {
            _WRAPPERS.sub("", tensor.path[-1]): tensor
            for tensor in checkpoint.tensors.values()
            if tensor.path[:-1] == folder
        }
        # safetensors has no nested dictionaries: there the branch is the first part of the key
        if side := re.match(r"(?:teacher|student)\.", key):
            key = key.removeprefix(side[0])
            tensors = {
                name.removeprefix(side[0]): tensor
                for name, tensor in tensors.items()
                if name.startswith(side[0])
            }
        return cls(tensors, _LAYER.sub("", key.rpartition(".")[0] or key))

    def projection_state(self) -> dict[str, Tensor]:
        """State of the projection head, keyed ``0.weight`` and so on; empty without one."""
        if any(key.startswith("fc.fc1.") for key in self.tensors):  # MSN
            return {
                f"{_MSN_NAMES.get(name, name)}.{part}": tensor
                for key, tensor in self._under("fc.").items()
                for name, _, part in [key.partition(".")]
            }
        for name in ("mlp", "projection_head", "projector", "layers", ""):
            prefix = ".".join(part for part in (self.owner, name) if part)
            if prefix and f"{prefix}.0.weight" in self.tensors:
                return self._under(f"{prefix}.")
        # SwAV: a layer beside its prototypes, not around them
        return self._under("projection_head.") if not self.owner else {}

    def backbone_state(self) -> dict[str, Tensor]:
        """State of the backbone that feeds this head; empty if the file holds none."""
        side = re.match(r"student_|teacher_", self.owner)
        for prefix in (f"{side[0]}backbone." if side else "backbone.", "backbone."):
            state = self._under(prefix)
            while state and all(key.startswith("backbone.") for key in state):  # EsViT's ResNet
                state = {key.removeprefix("backbone."): value for key, value in state.items()}
            if state:
                return state
        return {
            key: _read(tensor)
            for key, tensor in self.tensors.items()
            if not _HEAD_MODULES.match(key) and key not in ("prototypes", "temperature")
        }

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): _read(tensor)
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
            and not _LAYER.search(key.removeprefix(prefix).rpartition(".")[0])
        }


def _read(tensor: StoredTensor) -> Tensor:
    import torch  # seconds: not for those who only count prototypes

    values = torch.as_tensor(tensor.read())
    return values.float() if values.is_floating_point() and values.itemsize < 4 else values


def build_projection(
    state: Mapping[str, Tensor], *, activation: Literal["gelu", "relu"]
) -> nn.Sequential:
    """Rebuild a projection head from its tensors, up to the bottleneck, in evaluation mode.

    Linear layers stand where their indices say; an index in between is a BatchNorm if it has
    tensors. An activation follows each linear layer (after its BatchNorm) but the last. Unit
    norm and prototypes are not part of it.

    Args:
        state: Tensors by ``index.part``, such as ``0.weight``; none for the identity.
        activation: Which one.

    Returns:
        The layers, with the weights in them.

    Raises:
        CheckpointError: If a tensor belongs to no linear or BatchNorm layer.
    """
    import torch
    from torch import nn

    parts: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        index, _, part = key.partition(".")
        if not index.isdigit():
            raise CheckpointError(
                f"the projection head has a layer {index!r} that this family's head lacks.",
                hint="Give features at the bottleneck with --data FILE.npz instead.",
            )
        parts.setdefault(int(index), {})[part] = tensor
    modules: list[nn.Module] = []
    for place in sorted(parts):
        module = _layer(place, parts[place])
        if isinstance(module, nn.Linear) and modules:
            modules.append(nn.GELU() if activation == "gelu" else nn.ReLU())
        modules.append(module)
    dtypes = {t.dtype for t in state.values() if t.is_floating_point()}
    head = nn.Sequential(*modules).eval().requires_grad_(requires_grad=False)
    return head.to(torch.float64) if torch.float64 in dtypes else head


def _layer(index: int, tensors: dict[str, Tensor]) -> nn.Module:
    from torch import nn

    weight = tensors["weight"] if "weight" in tensors else next(iter(tensors.values()))
    module: nn.Module
    if "running_mean" in tensors:
        module = nn.BatchNorm1d(len(tensors["running_mean"]), affine="weight" in tensors)
    elif weight.ndim == 2 and "weight" in tensors:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in tensors)
    elif weight.ndim == 1 and set(tensors) == {"weight", "bias"}:
        module = nn.LayerNorm(len(weight))
    else:
        raise CheckpointError(
            f"layer {index} of the projection head has tensors {', '.join(sorted(tensors))}, "
            "which fit no linear or normalisation layer.",
            hint="Give features at the bottleneck with --data FILE.npz instead.",
        )
    loaded = module.load_state_dict(tensors, strict=False)
    missing = [key for key in loaded.missing_keys if key != "num_batches_tracked"]
    if missing or loaded.unexpected_keys:
        raise CheckpointError(
            f"layer {index} of the projection head: missing {missing}, "
            f"left over {loaded.unexpected_keys}."
        )
    return module


def input_width(projection: nn.Module) -> int | None:
    """Width of the features that a projection head takes; ``None`` for the identity."""
    from torch import nn

    first = next((m for m in projection.modules() if isinstance(m, nn.Linear)), None)
    return None if first is None else first.in_features


def find_centre(checkpoint: Checkpoint, head: HeadLocation) -> npt.NDArray[np.float64] | None:
    """The moving average of the teacher's logits, where the file holds it.

    Args:
        checkpoint: The file.
        head: A head; the centre belongs to the teacher and to this head's level.

    Returns:
        One value per prototype, or ``None``: published DINO files hold none, iBOT's do.
    """
    if head.branch == "student":
        return None
    dense = head.name.endswith(("head_dense", ".last_layer2"))
    wanted = ("center_grid", "center2") if dense else ("center",)
    for tensor in checkpoint.tensors.values():
        name = re.split(r"[./]", tensor.key)[-1]
        if name in wanted and tensor.size == head.k:
            return np.asarray(_read(tensor).double().numpy()).reshape(-1)
    return None
