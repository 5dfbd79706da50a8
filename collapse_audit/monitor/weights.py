"""Find the prototypes in a live head: which tensors to look at, every time anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from collapse_audit.checkpoints.keys import WRAPPERS
from collapse_audit.errors import CollapseAuditError, ParameterError
from collapse_audit.monitor.ranks import Mesh, all_ranks, attempt, mesh_of, result, whole

#: A head module, its last layer, the weight itself (k x d), or a function that returns the weight.
Head: TypeAlias = nn.Module | Tensor | Callable[[], Tensor]

#: Weight (k x d) and, of a weight-normed layer, the scale g (k x 1).
Stored: TypeAlias = tuple[Tensor, Tensor | None]

# What the released code of DINO, iBOT, DINOv2, EsViT, MSN; SwAV, lightly, CARP calls the layer.
_NAMES = ("last_layer", "prototypes")


class WatchedHead:
    """The prototypes of a head, whole however they are kept: here, or sharded over ranks."""

    def __init__(self, head: Head) -> None:
        self.is_function = not isinstance(head, nn.Module | Tensor)
        self.mesh: Mesh | None = None  # over which the weight is sharded, once that was seen
        self._read: Callable[[], Stored]
        if isinstance(head, Tensor):
            self._read = lambda: (head, None)
        elif isinstance(head, nn.Module):
            layer = _find_layer(head)
            self._read = lambda: _layer_weight(layer)
        elif callable(head):
            self._read = lambda: (head(), None)
        else:
            raise ParameterError(
                f"the monitor needs a module, a tensor or a function, got {type(head).__name__}."
            )
        self._is_kept = isinstance(head, Tensor)

    def find_mesh(self) -> Mesh | None:
        """The ranks that share the weight; ``None`` while each has the whole of it."""
        self.mesh = mesh_of(self._read()[0]) or self.mesh
        return self.mesh

    def gather(self) -> Stored:
        """The whole weight and scale, without a copy where they are whole already."""
        # With a mesh this is a collective that every rank reaches, or none: a rank that cannot
        # read its part says so before the others wait for it.
        read = attempt(self._read)
        if self.mesh and not all_ranks(self.mesh, not isinstance(read, Exception)):
            result(read)
            raise CollapseAuditError("the head cannot be read on another rank.")
        stored = result(read)
        self.mesh = mesh_of(stored[0]) or self.mesh
        weight, scale = stored
        return whole(weight.detach()), None if scale is None else whole(scale.detach())

    def shares_with(self, other: WatchedHead) -> bool:
        """Whether two heads are one storage; of what a function returns, nothing tells."""
        first, second = self._place(), other._place()
        return first is not None and first == second

    def _place(self) -> int | None:
        """Where a weight that stays in its place begins, or this rank's part of it."""
        weight: Any = None if self.is_function else self._read()[0]
        if not (self._is_kept or isinstance(weight, nn.Parameter)):
            return None
        weight = weight if mesh_of(weight) is None else weight.to_local()
        return int(weight.data_ptr()) if weight.numel() else None

    def has_fixed_scale(self) -> bool:
        """Whether g is frozen beside a v that is trained, as ``norm_last_layer`` has it."""
        if self.is_function:
            return False
        weight, scale = self._read()
        return scale is not None and weight.requires_grad and not scale.requires_grad


def unit_rows(stored: Stored, rows: slice) -> Tensor:
    """Unit rows of some prototypes, float32 on their device; a negative scale turns them round."""
    weight, scale = stored
    unit = nn.functional.normalize(weight[rows].float(), dim=1)
    if scale is not None:
        unit *= torch.sign(scale[rows].float().reshape(-1, 1))
    return unit


def _find_layer(module: nn.Module) -> nn.Module:
    """The layer, or the only one in the module, whatever DDP or torch.compile put around either."""
    found: dict[str, nn.Module] = {}
    for name, layer in module.named_modules():
        path = [part for part in name.split(".") if part and part not in WRAPPERS]
        if (not path or path[-1] in _NAMES) and _is_layer(layer):
            found[".".join(path)] = layer  # the innermost of a wrapped one, which comes last
    if "" in found:
        return found[""]
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
        return layer.weight_v, layer.weight_g
    originals: Any = getattr(getattr(layer, "parametrizations", None), "weight", None)
    if hasattr(originals, "original1"):  # torch.nn.utils.parametrizations.weight_norm
        return originals.original1, originals.original0
    return layer.weight, None
