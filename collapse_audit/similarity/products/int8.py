"""Rows in whole numbers, multiplied by torch: the cheapest product where only candidates matter."""

from __future__ import annotations

from math import ceil, floor, isqrt

import numpy as np
import torch

from collapse_audit.similarity.products.bounds import measured_bound
from collapse_audit.similarity.products.panel import Operand, Tile, TorchPanel
from collapse_audit.similarity.products.rows import Float32, RowSource, blocks, largest_norm

_LARGEST = 127
_INT32 = np.iinfo(np.int32)


class Int8Panel(TorchPanel):
    """Rows as one step times whole numbers from -127 to 127; their products are summed exactly.

    Processors with integer dot products (AVX-512 VNNI, AVX-VNNI) do them at twice the rate of bf16.
    The rounding of the rows is five times as coarse, so that too much is left open near a
    threshold; as a screen that no pair slips through it is as sound as any other.
    """

    block_rows = 1024  # tiles of 8 MB: larger ones leave the processor's cache
    tail_columns = 4
    rounding = 2.0**-23  # of a score as float32; the sums themselves have none
    lowest = _INT32.min

    def __init__(self, source: RowSource) -> None:
        k, d = source.shape
        largest = max(float(np.abs(rows).max()) for _, rows in blocks(source))
        whole_numbers = min(_LARGEST, isqrt(_INT32.max // d))  # d products fit into an int32
        step = np.float32(largest / whole_numbers)
        self._rows = torch.empty((k, d), dtype=torch.int8)
        norm = residual = 0.0
        for part, rows in blocks(source):
            whole = np.rint(rows / step).clip(-whole_numbers, whole_numbers)
            head, tail = np.split(rows, [d - source.tail_columns], axis=1)
            if source.tail_columns:
                whole[:, head.shape[1] :] = _rounded_up(tail / step, whole_numbers)
            self._rows[part] = torch.from_numpy(whole.astype(np.int8))
            norm = max(norm, largest_norm(head))
            head -= whole[:, : head.shape[1]] * step
            residual = max(residual, largest_norm(head))
        self._scale = float(step) ** 2
        self._buffer = torch.empty(0, dtype=torch.int32)
        # Rows, their differences and quotients are float32: off by a relative 2^-22 at most.
        rounding = 3.0 * (source.residual + 2.0**-22)
        self.error = measured_bound(d, residual=residual, norm=norm) + rounding

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Sums of all pairs, int32."""
        out = self.room(len(rows), len(columns))
        torch._int_mm(rows.rows_of(self), columns.rows_of(self).T, out=out)
        return np.asarray(out.numpy())

    def codes(self, low: float, high: float) -> tuple[np.int32, np.int32]:
        """Thresholds in steps, rounded outwards."""
        below, above = floor(low / self._scale) - 1, ceil(high / self._scale) + 1
        return np.int32(max(below, _INT32.min)), np.int32(min(above, _INT32.max))

    def values(self, tile: Tile) -> Float32:
        """The scores that sums stand for."""
        return np.asarray(tile * self._scale, dtype=np.float32)


def _rounded_up(tail: Float32, most: int) -> Float32:
    """Whole numbers whose products over the columns are at least those of equal real entries."""
    # Both k x columns, the real ones at most ``most`` but for their last bits. The sum of a row's
    # entries is rounded up and handed out over the columns as evenly as whole numbers can be,
    # larger ones last. Rows ordered alike multiply to at least the product of their sums over the
    # number of columns (Chebyshev's sum inequality): only the rounding of the sum is lost, and
    # upwards.
    columns = tail.shape[1]
    total = np.ceil(tail[:, :1] * columns).clip(0, columns * most)
    return np.asarray(np.floor((total + np.arange(columns)) / columns), dtype=np.float32)
