"""Which product to start with on this machine: tried once per process, for speed and for error."""

from __future__ import annotations

import os
import sys
from functools import cache
from time import perf_counter
from typing import Literal, TypeAlias, get_args

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.comparison import PanelKind
from collapse_audit.similarity.panels import Float32Panel, Operand
from collapse_audit.similarity.row_sources import UnitRows

Arithmetic: TypeAlias = Literal["auto", "numpy", "float32", "bfloat16"]

# Importing torch costs seconds; below this many prototypes numpy is done before that.
_WORTH_IMPORTING_TORCH = 32768
_VARIABLE = "COLLAPSE_AUDIT_ARITHMETIC"


def panel_kind(prototypes: Prototypes, arithmetic: Arithmetic | None = None) -> PanelKind:
    """Kind of panel to compare these prototypes with.

    The choice changes the time an audit takes and nothing else: every panel has a proved bound,
    and what it leaves open is decided exactly.

    Args:
        prototypes: What will be compared.
        arithmetic: ``"numpy"`` (float32, no torch), ``"float32"`` or ``"bfloat16"`` (torch), or
            ``"auto"``; ``None`` reads the environment variable COLLAPSE_AUDIT_ARITHMETIC, and is
            ``"auto"`` without it.

    Returns:
        A panel class.

    Raises:
        ParameterError: If the name is unknown.
    """
    chosen = arithmetic or os.environ.get(_VARIABLE, "auto")
    if chosen not in get_args(Arithmetic):
        raise ParameterError(
            f"unknown arithmetic {chosen!r}.",
            hint=f"{_VARIABLE} may be one of {', '.join(get_args(Arithmetic))}.",
        )
    if chosen == "auto":
        if prototypes.k < _WORTH_IMPORTING_TORCH and "torch" not in sys.modules:
            return Float32Panel
        chosen = fastest()
    if chosen == "numpy":
        return Float32Panel
    from collapse_audit.similarity import torch_panel

    return torch_panel.BFloat16Panel if chosen == "bfloat16" else torch_panel.TorchFloat32Panel


@cache
def fastest() -> Arithmetic:
    """The fastest product here whose error stays within its proved bound on a trial.

    Returns:
        ``"numpy"``, ``"float32"`` or ``"bfloat16"``.
    """
    from collapse_audit.similarity.torch_panel import BFloat16Panel, TorchFloat32Panel

    kinds: dict[Arithmetic, PanelKind] = {
        "bfloat16": BFloat16Panel,
        "float32": TorchFloat32Panel,
        "numpy": Float32Panel,
    }
    rng = np.random.default_rng(0)
    trial = Prototypes.from_weight(rng.standard_normal((1024, 256)).astype(np.float32))
    times = {name: _time_product(kind, trial) for name, kind in kinds.items()}
    return min(times, key=lambda name: times[name])


def _time_product(kind: PanelKind, trial: Prototypes) -> float:
    """Best of three times of one tile, in seconds; infinite if a score breaks the bound."""
    panel = kind(UnitRows(trial))
    rows = Operand(np.arange(trial.k))
    unit = trial.unit_rows()
    # Scores come out rounded to bf16 at worst, which codes allow for and plain values do not.
    error = np.abs(panel.values(panel.tile(rows, rows)) - unit @ unit.T).max()
    if error > panel.error + 2.0**-8:
        return float("inf")
    times = []
    for _ in range(3):
        start = perf_counter()
        panel.tile(rows, rows)
        times.append(perf_counter() - start)
    return min(times)
