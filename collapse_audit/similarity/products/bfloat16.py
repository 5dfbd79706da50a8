"""Rows in bf16, multiplied by torch: the fast first pass where the processor has bf16."""

from __future__ import annotations

import numpy as np
import torch

from collapse_audit.similarity.products.bounds import measured_bound
from collapse_audit.similarity.products.panel import (
    Operand,
    Tile,
    TorchPanel,
    bfloat16_bits_below,
)
from collapse_audit.similarity.products.rows import Float32, RowSource, bfloat16_rows

_LOWEST = np.int16(-32768)


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
        self._rows, residual = bfloat16_rows(source)
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
        below = np.int16(bfloat16_bits_below(low)) if low > 0 else _LOWEST
        return below, np.int16(bfloat16_bits_below(max(high, 0.0)) + 1)

    def values(self, tile: Tile) -> Float32:
        """The scores that a tile of bits stands for."""
        return (tile.astype(np.int32) << 16).view(np.float32)
