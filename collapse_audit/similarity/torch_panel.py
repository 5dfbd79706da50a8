"""Rows in bf16, multiplied by torch: the fast first pass where the processor has bf16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.similarity.error_bounds import gamma, measured_bound
from collapse_audit.similarity.panels import (
    ROWS_AT_ONCE,
    Float32Panel,
    HostPanel,
    Index,
    Operand,
    Tile,
    as_slice,
)
from collapse_audit.similarity.row_sources import RowSource

_LOWEST = np.int16(-32768)


class BFloat16Panel(HostPanel):
    """Rows in bf16; scores in bf16 too, which costs nothing: codes are rounded outwards.

    A tile holds the bits of the scores as int16. They are ordered like the scores where the scores
    are positive, and below every positive code elsewhere: thresholds are clipped at zero.
    """

    block_rows = 2048
    rounding = 2.0**-8
    lowest = _LOWEST

    def __init__(self, source: RowSource) -> None:
        self._rows, residual = rounded_rows(source)
        self._buffer = torch.empty(0, dtype=torch.bfloat16)
        self.error = measured_bound(source.shape[1], residual=residual)

    def gather(self, index: Index) -> torch.Tensor:
        """Some rows, bf16."""
        places = as_slice(index)
        if isinstance(places, slice):
            return self._rows[places]
        return self._rows.index_select(0, torch.from_numpy(places))

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Bits of the scores of all pairs, int16."""
        size = len(rows) * len(columns)
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=torch.bfloat16)
        out = self._buffer[:size].view(len(rows), len(columns))
        torch.mm(rows.rows_of(self), columns.rows_of(self).T, out=out)
        return out.view(torch.int16).numpy()

    def codes(self, low: float, high: float) -> tuple[np.int16, np.int16]:
        """Thresholds rounded outwards to bf16: rounding is monotone, so scores need no margin."""
        below = np.int16(bits_below(low)) if low > 0 else _LOWEST
        return below, np.int16(bits_below(max(high, 0.0)) + 1)

    def values(self, tile: Tile) -> npt.NDArray[np.float32]:
        """The scores that a tile of bits stands for."""
        return (tile.astype(np.int32) << 16).view(np.float32)


class TorchFloat32Panel(Float32Panel):
    """Rows in float32, multiplied by torch where its product is faster than numpy's."""

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float32."""
        out = self._out(len(rows), len(columns))
        left, right = (torch.from_numpy(side.rows_of(self)) for side in (rows, columns))
        torch.mm(left, right.T, out=torch.from_numpy(out))
        return out


def rounded_rows(source: RowSource) -> tuple[torch.Tensor, float]:
    """Rows in bf16, and a bound on how far any of them is from its real row."""
    rounded = torch.empty(source.shape, dtype=torch.bfloat16)
    largest = 0.0
    for start in range(0, len(rounded), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        rows = source.block(part)
        tensor = torch.from_numpy(rows)
        rounded[part] = tensor
        tensor -= rounded[part]  # exact: a float32 minus its rounding to fewer bits
        largest = max(largest, float(np.einsum("kd,kd->k", rows, rows).max()))
    allowance = 1.0 + gamma(source.shape[1] + 2, 2.0**-24)
    return rounded, largest**0.5 * allowance + source.residual


def bits_below(value: float) -> int:
    """Bits of the largest bf16 at most ``value``, which must not be negative."""
    nearest = np.float32(value)
    if nearest > value:
        nearest = np.nextafter(nearest, np.float32(0))
    return int(nearest.view(np.int32)) >> 16
