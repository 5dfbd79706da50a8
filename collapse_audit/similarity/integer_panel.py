"""Rows in whole numbers, multiplied by torch: the cheapest product where only candidates matter."""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.similarity.error_bounds import gamma, measured_bound
from collapse_audit.similarity.panels import ROWS_AT_ONCE, Operand, Tile
from collapse_audit.similarity.row_sources import RowSource
from collapse_audit.similarity.torch_panel import TorchPanel

_LARGEST = 127
_INT32 = np.iinfo(np.int32)


class Int8Panel(TorchPanel):
    """Rows as one step times whole numbers from -127 to 127; their products are summed exactly.

    Processors with integer dot products (AVX-512 VNNI, AVX-VNNI) do them at twice the rate of bf16.
    The rounding of the rows is five times as coarse, so that too much is left open near a
    threshold; as a screen that no pair slips through it is as sound as any other.
    """

    block_rows = 2048
    tail_columns = 8
    rounding = 2.0**-23  # of a score as float32; the sums themselves have none
    lowest = _INT32.min

    def __init__(self, source: RowSource) -> None:
        k, d = source.shape
        blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, k, ROWS_AT_ONCE)]
        largest = max(float(np.abs(source.block(part)).max()) for part in blocks)
        whole_numbers = min(_LARGEST, isqrt(_INT32.max // d))  # d products fit into an int32
        step = np.float32(largest / whole_numbers)
        self._rows = torch.empty((k, d), dtype=torch.int8)
        squared = 0.0
        for part in blocks:
            rows = source.block(part)
            whole = np.rint(rows / step).clip(-whole_numbers, whole_numbers)
            self._rows[part] = torch.from_numpy(whole.astype(np.int8))
            rows -= whole * step
            squared = max(squared, float(np.einsum("kd,kd->k", rows, rows).max()))
        self._scale = float(step) ** 2
        self._buffer = torch.empty(0, dtype=torch.int32)
        # The residual is a float32 sum of squares of differences, each off by a relative 2^-23.
        residual = squared**0.5 * (1.0 + gamma(d + 2, 2.0**-24)) + 2.0**-22 + source.residual
        self.error = measured_bound(d, residual=residual)

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Sums of all pairs, int32."""
        out = self.room(len(rows), len(columns))
        torch._int_mm(rows.rows_of(self), columns.rows_of(self).T, out=out)
        return np.asarray(out.numpy())

    def codes(self, low: float, high: float) -> tuple[np.int32, np.int32]:
        """Thresholds in steps, rounded outwards."""
        outwards = np.floor(low / self._scale) - 1.0, np.ceil(high / self._scale) + 1.0
        below, above = np.clip(outwards, _INT32.min, _INT32.max)
        return np.int32(below), np.int32(above)

    def values(self, tile: Tile) -> npt.NDArray[np.float32]:
        """The scores that sums stand for."""
        return np.asarray(tile * self._scale, dtype=np.float32)
