"""Rows in bf16, multiplied by torch: the fast first pass where the processor has bf16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.similarity.products.bounds import gamma, measured_bound
from collapse_audit.similarity.products.panel import (
    ROWS_AT_ONCE,
    Float32Panel,
    HostPanel,
    Index,
    Operand,
    Panel,
    Tile,
    as_slice,
)
from collapse_audit.similarity.products.rows import RowSource
from collapse_audit.similarity.trial import product_seconds

_LOWEST = np.int16(-32768)


class TorchPanel(HostPanel):
    """A panel whose tiles torch makes in the processor's memory.

    Attributes:
        few_shapes: Whether gathered rows are filled up to one of few lengths.
    """

    few_shapes: bool = False
    _rows: torch.Tensor
    _buffer: torch.Tensor

    def gather(self, index: Index) -> torch.Tensor:
        """Some rows, and any others behind them where they are filled up."""
        places = as_slice(index)
        wanted = _round_up(len(index)) if self.few_shapes else len(index)
        if isinstance(places, slice) and places.start + wanted <= len(self._rows):
            return self._rows[places.start : places.start + wanted]
        filled = np.pad(index, (0, wanted - len(index)), mode="edge")
        return self._rows.index_select(0, torch.from_numpy(filled))

    def room(self, rows: int, columns: int) -> torch.Tensor:
        """A tile to write to, the same memory each time."""
        if self._buffer.numel() < rows * columns:
            self._buffer = self._buffer.new_empty(rows * columns)
        return self._buffer[: rows * columns].view(rows, columns)

    def row_maxima(self, tile: Tile, width: int) -> Tile:
        """Largest codes of each row in stretches of columns; torch uses all threads for it."""
        if tile.shape[1] % width:
            return super().row_maxima(tile, width)
        return np.asarray(torch.from_numpy(tile).view(len(tile), -1, width).amax(2).numpy())


class BFloat16Panel(TorchPanel):
    """Rows in bf16; scores in bf16 too, which costs nothing: codes are rounded outwards.

    A tile holds the bits of the scores as int16. They are ordered like the scores where the scores
    are positive, and below every positive code elsewhere: thresholds are clipped at zero.
    """

    block_rows = 2048
    few_shapes = True  # oneDNN keeps code for every shape it meets, 200 MB for a thousand of them
    rounding = 2.0**-8
    lowest = _LOWEST

    def __init__(self, source: RowSource) -> None:
        self._rows, residual = rounded_rows(source)
        self._buffer = torch.empty(0, dtype=torch.bfloat16)
        self.error = measured_bound(source.shape[1], residual=residual)

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Bits of the scores of all pairs, int16."""
        left, right = rows.rows_of(self), columns.rows_of(self)
        out = self.room(len(left), len(right))
        torch.mm(left, right.T, out=out)
        return out.view(torch.int16).numpy()[: len(rows), : len(columns)]

    def codes(self, low: float, high: float) -> tuple[np.int16, np.int16]:
        """Thresholds rounded outwards to bf16: rounding is monotone, so scores need no margin."""
        below = np.int16(bits_below(low)) if low > 0 else _LOWEST
        return below, np.int16(bits_below(max(high, 0.0)) + 1)

    def values(self, tile: Tile) -> npt.NDArray[np.float32]:
        """The scores that a tile of bits stands for."""
        return (tile.astype(np.int32) << 16).view(np.float32)

    def coarser(self) -> type[Panel] | None:
        """Whole numbers, where this processor multiplies them faster."""
        from collapse_audit.similarity.products.int8 import Int8Panel

        if not hasattr(torch, "_int_mm"):  # not public, so it may go
            return None
        faster = product_seconds(Int8Panel) < product_seconds(BFloat16Panel)
        return Int8Panel if faster else None


class TorchFloat32Panel(Float32Panel):
    """Rows in float32, multiplied by torch where its product is faster than numpy's."""

    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs, float32."""
        out = self._out(len(rows), len(columns))
        left, right = (torch.from_numpy(side.rows_of(self)) for side in (rows, columns))
        torch.mm(left, right.T, out=torch.from_numpy(out))
        return out


def _round_up(count: int) -> int:
    """The next multiple of 16 or, for more rows, of an eighth of the power of two above."""
    step = max(16, 1 << max(0, (count - 1).bit_length() - 3))
    return -(-count // step) * step


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
        largest = max(largest, largest_norm(rows))
    return rounded, largest + source.residual


def largest_norm(rows: npt.NDArray[np.float32]) -> float:
    """A bound on the norms of some float32 rows, for all that their float32 sums may lose."""
    squared = float(np.einsum("kd,kd->k", rows, rows).max())
    return float(squared**0.5 * (1.0 + gamma(rows.shape[1] + 2, 2.0**-24)))


def bits_below(value: float) -> int:
    """Bits of the largest bf16 at most ``value``, which must not be negative."""
    nearest = np.float32(value)
    if nearest > value:
        nearest = np.nextafter(nearest, np.float32(0))
    return int(nearest.view(np.int32)) >> 16
