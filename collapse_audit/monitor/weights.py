"""Find the prototypes in a live head: which tensors to look at, every time anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from collapse_audit.errors import ParameterError

#: A head module, its last layer, the weight itself (k x d), or a function that returns the weight.
Head: TypeAlias = nn.Module | Tensor | Callable[[], Tensor]

#: Weight (k x d) and, of a weight-normed layer, the scale g (k x 1).
Stored: TypeAlias = tuple[Tensor, Tensor | None]

# What the released code of DINO, iBOT, DINOv2, EsViT, MSN; SwAV, lightly, CARP calls the layer.
_NAMES = ("last_layer", "prototypes")


def stored_weight(head: Head) -> Callable[[], Stored]:
    """A function that returns the current weight and scale of a head, without a copy."""
    if isinstance(head, Tensor):
        return lambda: (head.detach(), None)
    if isinstance(head, nn.Module):
        layer = _find_layer(head)
        return lambda: _layer_weight(layer)
    if not callable(head):
        raise ParameterError(
            f"the monitor needs a module, a tensor or a function, got {type(head).__name__}."
        )
    return lambda: (head().detach(), None)


def unit_rows(stored: Stored, rows: slice) -> Tensor:
    """Unit rows of some prototypes, float32 on their device; a negative scale turns them round."""
    weight, scale = stored
    unit = nn.functional.normalize(weight[rows].float(), dim=1)
    if scale is not None:
        unit *= torch.sign(scale[rows].float().reshape(-1, 1))
    return unit


def _find_layer(module: nn.Module) -> nn.Module:
    if _is_layer(module):
        return module
    found: dict[str, nn.Module] = {
        name: layer
        for name, layer in module.named_modules()
        if name.rpartition(".")[2] in _NAMES and _is_layer(layer)
    }
    if len(found) == 1:
        return next(iter(found.values()))
    seen = ", ".join(found) if found else "none"
    raise ParameterError(
        f"the monitor needs one layer named {' or '.join(_NAMES)}, and the module has {seen}.",
        hint="Pass the layer itself, or its weight.",
    )


def _is_layer(module: nn.Module) -> bool:
    if hasattr(module, "weight_v"):
        return True
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2


def _layer_weight(layer: Any) -> Stored:
    """From g and v where there are any: a cached weight is stale after an optimiser step."""
    if hasattr(layer, "weight_v"):  # torch.nn.utils.weight_norm
        return layer.weight_v.detach(), layer.weight_g.detach()
    originals: Any = getattr(getattr(layer, "parametrizations", None), "weight", None)
    if hasattr(originals, "original1"):  # torch.nn.utils.parametrizations.weight_norm
        return originals.original1.detach(), originals.original0.detach()
    return layer.weight.detach(), None
