"""Which product to start with on this machine: tried once per process, for speed and for error."""

from __future__ import annotations

import os
import sys
from functools import cache, partial
from typing import Literal, TypeAlias, get_args

from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.products.panel import Float32Panel, PanelKind
from collapse_audit.similarity.trial import product_seconds

Arithmetic: TypeAlias = Literal["auto", "numpy", "float32", "bfloat16"]

# Importing torch costs seconds; below this many prototypes numpy is done before that.
_WORTH_IMPORTING_TORCH = 32768
_VARIABLE = "COLLAPSE_AUDIT_ARITHMETIC"


def panel_kind(
    prototypes: Prototypes, *, device: str = "auto", arithmetic: Arithmetic | None = None
) -> PanelKind:
    """Kind of panel to compare these prototypes with.

    The choice changes the time an audit takes and nothing else: every panel has a proved bound,
    and what it leaves open is decided exactly.

    Args:
        prototypes: What will be compared.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a CUDA device where there is one
            and the head is large enough to gain from it.
        arithmetic: Of the processor: ``"numpy"`` (float32, no torch), ``"float32"`` or
            ``"bfloat16"`` (torch), or ``"auto"``, the fastest in a trial. ``None`` reads the
            environment variable COLLAPSE_AUDIT_ARITHMETIC, and is ``"auto"`` without it.

    Returns:
        What makes a panel from rows.

    Raises:
        ParameterError: If a name is unknown, or there is no such device.
    """
    chosen = arithmetic or os.environ.get(_VARIABLE, "auto")
    if chosen not in get_args(Arithmetic):
        raise ParameterError(
            f"unknown arithmetic {chosen!r}.",
            hint=f"{_VARIABLE} may be one of {', '.join(get_args(Arithmetic))}.",
        )
    if device.startswith("cuda"):
        return _on_device(device)
    if device not in ("auto", "cpu"):
        raise ParameterError(f"unknown device {device!r}.", hint="Use auto, cpu, cuda or cuda:N.")
    large = prototypes.k >= _WORTH_IMPORTING_TORCH
    if chosen == "auto" and not large and "torch" not in sys.modules:
        return Float32Panel
    if chosen == "numpy":
        return Float32Panel
    import torch

    if device == "auto" and large and torch.cuda.is_available():
        return _on_device("cuda")
    return _on_processor(fastest() if chosen == "auto" else chosen)


def _on_device(device: str) -> PanelKind:
    """Tiles on a CUDA device, once it has passed its self-test."""
    import torch

    from collapse_audit.similarity.products.cuda import DevicePanel, self_test

    number = device.removeprefix("cuda").removeprefix(":") or "0"
    if not number.isdecimal() or int(number) >= torch.cuda.device_count():
        raise ParameterError(
            f"device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices.",
            hint="Use auto or cpu; the result is the same.",
        )
    self_test(device)
    return partial(DevicePanel, device=device)


def _on_processor(chosen: str) -> PanelKind:
    """The panel class of an arithmetic."""
    from collapse_audit.similarity.products.bfloat16 import BFloat16Panel, TorchFloat32Panel

    kinds: dict[str, PanelKind] = {
        "numpy": Float32Panel,
        "float32": TorchFloat32Panel,
        "bfloat16": BFloat16Panel,
    }
    return kinds[chosen]


@cache
def fastest() -> Arithmetic:
    """The fastest product here whose error stays within its proved bound on a trial.

    Returns:
        ``"numpy"``, ``"float32"`` or ``"bfloat16"``.
    """
    from collapse_audit.similarity.products.bfloat16 import BFloat16Panel, TorchFloat32Panel

    kinds: dict[Arithmetic, type[BFloat16Panel | Float32Panel]] = {
        "bfloat16": BFloat16Panel,
        "float32": TorchFloat32Panel,
        "numpy": Float32Panel,
    }
    return min(kinds, key=lambda name: product_seconds(kinds[name]))
