"""How long a kind of panel takes on this machine, and whether it is as precise as it says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from time import process_time

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.products.panel import HostPanel, Operand
from collapse_audit.similarity.products.rows import UnitRows

_ROWS, _D = 1024, 256
# Columns whose scores are compared with float64.
_CHECKED = 256


@cache
def product_seconds(kind: type[HostPanel]) -> float:
    """Try products of 1,024 x 1,024 scores in 256 dimensions; once per process.

    Args:
        kind: What multiplies.

    Returns:
        The best of nine times, in CPU seconds: wall time would measure the neighbours on a busy
        machine. Infinite if a score breaks the panel's bound, or torch has no such product here.
    """
    try:
        return _product_seconds(kind)
    except RuntimeError:  # torch: not implemented for this processor
        return float("inf")


def _product_seconds(kind: type[HostPanel]) -> float:
    rows = Operand(np.arange(_ROWS))
    times = []
    for trial in _heads():
        panel = kind(UnitRows(trial))
        unit = trial.unit_rows()
        tile = panel.tile(rows, rows)[:, :_CHECKED]
        error = np.abs(panel.values(tile) - unit @ unit[:_CHECKED].T).max()
        if error > panel.error + panel.rounding:
            return float("inf")
        for _ in range(3):
            start = process_time()
            panel.tile(rows, rows)
            times.append(process_time() - start)
    return min(times)


def _heads() -> Iterator[Prototypes]:
    """Random directions; sums of one sign; and the largest numbers that an integer row can hold."""
    rng = np.random.default_rng(0)
    rows: npt.NDArray[np.float64] = rng.standard_normal((_ROWS, _D))
    for head in (rows, np.abs(rows) + 30.0, np.sign(rows)):
        yield Prototypes.from_weight(head.astype(np.float32))
