"""Which network a layer belongs to, and what people call its head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from collapse_audit.prototypes import Branch

_TEACHER = re.compile(
    r"""_?(?:teacher|momentum|target|ema)(?:_\w+)? | t_model
      | \w+_(?:teacher|momentum|ema|target) | encoder_k | averaged_model | model_ema | ema_\w+
      | state_dict_ema""",
    re.VERBOSE,
)
_STUDENT = re.compile(
    r"""_?student(?:_\w+)? | \w+_student | s_model | online(?:_\w+)? | encoder_q | base_encoder
      | context_encoder | current_model_state""",
    re.VERBOSE,
)
# A running average beside a teacher is a copy of it, and of whatever else the file holds.
_COPY = re.compile(r"(?:\w+_)?ema(?:_\w+)?|averaged_model")
# Dictionaries and modules around a model that say nothing about the head in it.
_SURROUNDINGS = frozenset({
    "teacher", "student", "t_model", "s_model", "student_ema", "momentum_teacher", "state_dict",
    "model", "net", "network", "loss", "classy_state_dict", "base_model", "heads", "criterion",
    "agent",
})  # fmt: skip


def branch_of(scope: Iterable[str], *, swapped: bool = False) -> Branch | None:
    """The network that the path of a layer names; ``None`` if it names neither."""
    # swapped: the hook of mmengine keeps the average in state_dict, the trained in ema_state_dict
    for part in scope:
        if swapped and part == "ema_state_dict":
            return "student"
        if _STUDENT.fullmatch(part):
            return "student"
        if _TEACHER.fullmatch(part):
            return "teacher"
    return None


def is_copy(scope: Iterable[str]) -> bool:
    """Whether a layer is in a running average such as ``model_ema``, and not in a teacher."""
    return any(_COPY.fullmatch(part) for part in scope)


def head_name(scope: tuple[str, ...]) -> str:
    """The name people use, not always unique: ``head`` for ``head.last_layer``, ``prototypes0``."""
    *before, layer = scope or ("",)
    owner = [part for part in before if part not in _SURROUNDINGS]
    while owner and owner[0].isdecimal():
        owner.pop(0)
    numbered = bool(owner) and owner[-1].isdecimal()
    module = ".".join(owner[-2:] if numbered else owner[-1:])
    if layer.isdecimal():  # one of several in a list: prototypes.0, last_layers.3, projector.6
        listed = module.removesuffix(".heads").removesuffix(".layers")
        if listed == "last_layers":
            return f"{owner[-2] if len(owner) > 1 else listed}.{layer}"
        return f"{listed}{layer}" if listed.startswith("prototypes") else module or layer
    if layer in {"layers", "prototypes"} and module.startswith("prototypes"):
        return module
    is_second = layer == "last_layer2" or layer.startswith("aux_")
    if is_second and module:
        return f"{module}.{layer}"
    is_word = layer.lstrip("_").startswith("prototypes") or layer == "group_features"
    is_own = is_word and (layer[-1].isdecimal() or "head" not in module)
    return layer if is_own or not module else module


def short_names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Ends of paths that tell all of them apart, as long as one another and none too short."""
    names: list[str] = []
    for parts in range(1, max(map(len, paths), default=0) + 1):
        # the number of a layer is no name without the list that it is in
        names = [_end(path, parts) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def _end(path: tuple[str, ...], parts: int) -> str:
    while parts < len(path) and path[-parts].isdecimal():
        parts += 1
    return ".".join(path[-parts:])


def is_patch_level(name: str) -> bool:
    """Whether a head of this name works on patches or regions, not on the image or class token."""
    # such as iBOT's second layer and EsViT's ``head_dense``
    return name.endswith((".last_layer2", "head_dense")) or "patch" in name or "ibot_head" in name
