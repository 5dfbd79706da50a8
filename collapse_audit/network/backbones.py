"""Backbones: the matching timm model with the checkpoint's own weights."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from collapse_audit.errors import CheckpointError, CollapseAuditWarning, ParameterError
from collapse_audit.words import did_you_mean, printable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from collapse_audit.network.tensors import State

_SHOWN = 6
# Buffers that a model computes for itself, counters, and tensors that only training uses.
_EXPENDABLE = re.compile(
    r"(?:.*\.)?(?:relative_position_index|attn_mask|num_batches_tracked|mask_token|masked_embed)"
)
# How timm and torch refuse arguments; a RuntimeError may also be a machine that fails.
_REFUSALS = (
    TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError,
)  # fmt: skip
_FAULT = re.compile(r"CUDA|out of memory|allocate memory")
_CHUNKED = "blocks.0.0.attn.qkv.weight"
_FEATURES = "Compute the features with the official code and give them with `data=FILE.npz`."
_ANOTHER = f"Try `backbone=TIMM_NAME`, and arguments for it. {_FEATURES}"


def build_backbone(
    state: Mapping[str, Tensor],
    *,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the timm twin of a backbone, from images to features, with the file's own weights."""
    # ViT (DINO, iBOT, MSN, DINOv2 without registers), ResNet (DINO, SwAV, CARP, lightly), Swin
    # (EsViT) and XCiT (DINO) are recognised by their keys, and sized by their tensors; arguments
    # such as num_heads add what no tensor tells. So is the small MLP over pixels of this package's
    # own trainer, which needs no timm. The name is of a timm model to use instead. CheckpointError
    # is for the file (no twin, a weight without a place), ParameterError for name and arguments.
    if not state:
        raise CheckpointError("the file holds no backbone, only a head.", hint=_FEATURES)
    options = dict(arguments or {})
    kind = next((kind for kind, (marker, _, _) in _KINDS.items() if marker in state), None)
    if kind is None and _CHUNKED in state:  # DINOv2 stores blocks in chunks
        state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", k): v for k, v in state.items()}
        kind = "ViT"
    if kind is None and name is None:
        raise CheckpointError(
            f"no timm twin is known for this backbone (keys {', '.join(list(state)[:3])}, ...).",
            hint=_FEATURES,
        )
    _, build, rename = _KINDS[kind or "ResNet"]
    renamed = rename(dict(state)) if kind else dict(state)
    make = partial(_create, name, state) if name else partial(build, dict(state))
    try:
        model = make(options)
    except _REFUSALS as error:
        if _FAULT.search(str(error)):
            raise
        reason = printable(str(error).partition("\n")[0]) or type(error).__name__
        message = f"timm cannot build {name or kind} with {options}: {reason}"
        if name or options:
            raise ParameterError(message, hint="Check its name and arguments.") from error
        raise CheckpointError(message, hint=_ANOTHER) from error
    _load(model, renamed)
    return model.eval().requires_grad_(requires_grad=False)


def input_size(model: nn.Module) -> int | None:
    """Side of the square images that a model takes; ``None`` if it takes any size."""
    embedding: Any = getattr(model, "patch_embed", None)  # XCiT's is not strict, and takes any
    return int(embedding.img_size[0]) if hasattr(embedding, "strict_img_size") else None


def _create(name: str, state: Mapping[str, Tensor], options: dict[str, Any]) -> nn.Module:
    import timm  # seconds

    if not timm.is_model(name):  # it would look for hf-hub:... in the network
        raise ValueError(f"it has no such model. {did_you_mean(name, timm.list_models())}".strip())
    model: Any = timm.create_model(name, pretrained=False, num_classes=0, **options)
    stored, own = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if stored is not None and own is not None and hasattr(model, "set_input_size"):
        patches = stored.shape[1] - own.shape[1] + model.patch_embed.num_patches
        side = math.isqrt(max(0, patches)) * model.patch_embed.patch_size[0]
        if patches != model.patch_embed.num_patches and "img_size" not in options and side:
            model.set_input_size(img_size=side)
            warnings.warn(
                f"{name} is built for images of {side} x {side} pixels, the size of the file's "
                "position embedding.",
                CollapseAuditWarning,
                stacklevel=2,
            )
    built: nn.Module = model
    return built


def _load(model: nn.Module, state: State) -> None:
    expected = model.state_dict()
    unplaced = [
        key
        for key, value in state.items()
        if not _EXPENDABLE.fullmatch(key)
        and (key not in expected or expected[key].shape != value.shape)
    ]
    missing = [key for key in expected if key not in state and not _EXPENDABLE.fullmatch(key)]
    if unplaced or missing:
        wrong = [
            f"{what} {', '.join(keys[:_SHOWN])}" + (", ..." if len(keys) > _SHOWN else "")
            for what, keys in (("left over:", unplaced), ("missing:", missing))
            if keys
        ]
        raise CheckpointError(
            f"{len(unplaced)} of {len(state)} backbone tensors fit no place in timm's "
            f"{type(model).__name__}, {len(missing)} of its own are missing; {'; '.join(wrong)}.",
            hint=_ANOTHER,
        )
    model.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False)


def _count(state: State, pattern: str) -> int:
    """Number of different indices that a pattern with one group finds in the keys."""
    return len({found[1] for key in state if (found := re.match(pattern, key))})


def _heads(width: int, options: dict[str, Any]) -> int:
    if "num_heads" in options:
        return int(options["num_heads"])
    if width % 64:
        raise CheckpointError(
            f"the number of attention heads is not stored, and a width of {width} is not a "
            "multiple of the usual 64.",
            hint="Give num_heads=N to the backbone.",
        )
    return width // 64


def _vit(state: State, options: dict[str, Any]) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5) * patch
    found = {
        "img_size": side,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": _count(state, r"blocks\.(\d+)\."),
        "num_heads": _heads(width, options),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in state else None,
        "num_classes": 0,
    }
    model: nn.Module = VisionTransformer(**(found | options))
    return model


def _resnet(state: State, options: dict[str, Any]) -> nn.Module:
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    stages = range(1, 1 + _count(state, r"layer(\d)\."))
    found = {
        "block": Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock,
        "layers": tuple(_count(state, rf"layer{stage}\.(\d+)\.") for stage in stages),
        "channels": tuple(state[f"layer{stage}.0.conv1.weight"].shape[0] for stage in stages),
        "in_chans": state["conv1.weight"].shape[1],
        "num_classes": 0,
    }
    model = ResNet(**(found | options))
    if state["conv1.weight"].shape[0] != 64:
        _set_stem(model, state["conv1.weight"].shape[0])
    twin: nn.Module = model
    return twin


def _set_stem(model: Any, width: int) -> None:
    """SwAV's wide ResNets widen the stem as well; timm's is always 64 wide."""
    from torch import nn

    model.conv1 = nn.Conv2d(model.conv1.in_channels, width, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(width)
    first = model.layer1[0]
    for parent, name in ((first, "conv1"), (first.downsample, "0")):
        if parent is not None:
            old = getattr(parent, name)
            setattr(parent, name, nn.Conv2d(
                width, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False
            ))  # fmt: skip


def _swin(state: State, options: dict[str, Any]) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    tables = [
        state[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"]
        for stage in range(_count(state, r"layers\.(\d+)\.blocks\."))
    ]
    found = {
        "img_size": 224,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depths": tuple(
            _count(state, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in range(len(tables))
        ),
        "num_heads": tuple(table.shape[1] for table in tables),
        "window_size": (round(tables[0].shape[0] ** 0.5) + 1) // 2,
        "mlp_ratio": state["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_classes": 0,
    }
    model: nn.Module = SwinTransformer(**(found | options))
    return model


def _xcit(state: State, options: dict[str, Any]) -> nn.Module:
    from timm.models.xcit import Xcit

    width = state["cls_token"].shape[-1]
    # one 3x3 convolution of stride 2 per halving: four for patches of 16, three for 8
    halvings = _count(state, r"patch_embed\.proj\.(\d+)\.0\.weight")
    found = {
        "img_size": 224,
        "patch_size": 2**halvings,
        "embed_dim": width,
        "depth": _count(state, r"blocks\.(\d+)\."),
        "num_heads": state["blocks.0.attn.temperature"].shape[0],
        "cls_attn_layers": _count(state, r"cls_attn_blocks\.(\d+)\."),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "tokens_norm": True,
        "num_classes": 0,
    }
    model: nn.Module = Xcit(**(found | options))
    return model


def _mlp(state: State, _options: dict[str, Any]) -> nn.Module:
    """The small backbone of ``collapse-audit train``: no tensor, no layer but a GELU."""
    from torch import nn

    weights = {
        int(found[1]): value
        for key, value in state.items()
        if (found := re.fullmatch(r"layers\.(\d+)\.weight", key))
    }
    modules: list[nn.Module] = []
    for index in range(max(weights) + 2):  # a GELU ends it
        weight = weights.get(index)
        if weight is None:
            modules.append(nn.GELU())
        elif weight.ndim == 2:
            modules.append(nn.Linear(weight.shape[1], weight.shape[0]))
        else:
            modules.append(nn.LayerNorm(len(weight)))
    return nn.Sequential(*modules)


def _rename_mlp(state: State) -> State:
    return {key.removeprefix("layers."): value for key, value in state.items()}


def _same(state: State) -> State:
    return state


def _rename_swin(state: State) -> State:
    """The original merges patches at the end of a stage, timm at the start of the next."""
    return {
        re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", key): v
        for key, v in state.items()
    }


def _rename_xcit(state: State) -> State:
    """The original computes queries of all tokens at once with keys and values."""
    renamed: State = {}
    for key, value in state.items():
        if found := re.fullmatch(r"(cls_attn_blocks\.\d+\.attn\.)qkv(\..*)", key):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{found[1]}{letter}{found[2]}"] = part
        else:
            renamed[key.replace("pos_embeder.", "pos_embed.")] = value
    return renamed


_Build: TypeAlias = "Callable[[State, dict[str, Any]], nn.Module]"
_KINDS: dict[str, tuple[str, _Build, Callable[[State], State]]] = {
    "XCiT": ("cls_attn_blocks.0.norm1.weight", _xcit, _rename_xcit),
    "Swin": ("layers.0.blocks.0.attn.relative_position_bias_table", _swin, _rename_swin),
    "ResNet": ("layer1.0.conv1.weight", _resnet, _same),
    "ViT": ("blocks.0.attn.qkv.weight", _vit, _same),
    "MLP": ("layers.0.weight", _mlp, _rename_mlp),
}
#: Names of the tensors by which a backbone without a head is found; an MLP's are anybody's.
MARKERS: Final = (*(marker for kind, (marker, *_) in _KINDS.items() if kind != "MLP"), _CHUNKED)
