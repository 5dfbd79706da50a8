"""Rows in bf16 on an accelerator: tiles are made and read there, and only answers come back."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from collapse_audit.errors import DeviceError
from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.products.bounds import measured_bound
from collapse_audit.similarity.products.panel import (
    Operand,
    Panel,
    bfloat16_bits_below,
    shared_places,
)
from collapse_audit.similarity.products.rows import (
    Float32,
    Float64,
    Index,
    Mask,
    RowSource,
    UnitRows,
    bfloat16_rows,
)
from collapse_audit.words import printable


class DevicePanel(Panel):
    """Rows in bf16 on any torch device; ``"cpu"`` is for tests of the same code on CPU tensors.

    Products of bf16 numbers are exact in float32; sums may be truncated by the hardware, which the
    bound allows for and :func:`self_test` tries out. Scores are rounded to bf16, half the traffic,
    and compared with thresholds rounded outwards. Tiles are large, because a device is idle while
    the host waits for an answer.
    """

    block_rows = 16384
    scan_rows = 2048
    chunk_rows = 16384
    rounding = 2.0**-8

    def __init__(self, source: RowSource, device: str = "cuda") -> None:
        self._device = torch.device(device)
        rows, residual = bfloat16_rows(source)
        self._rows = rows.to(self._device)
        self.error = measured_bound(source.shape[1], residual=residual, truncating=True)

    def gather(self, index: Index) -> torch.Tensor:
        """Some rows on the device."""
        return self._rows.index_select(0, torch.from_numpy(index).to(self._device))

    def tile(self, rows: Operand, columns: Operand) -> torch.Tensor:
        """Scores of all pairs, bf16, on the device."""
        return torch.mm(rows.rows_of(self), columns.rows_of(self).T)

    def candidates(self, rows: Operand, columns: Operand, cosine: float) -> Index:
        """Flat places of the pairs whose cosine is not certainly at most a value."""
        tile, low = self._tile_of_pairs(rows, columns), _below(cosine - self.error)
        hit = (tile.amax(dim=1) >= low).nonzero().flatten()
        if not hit.numel():
            return np.empty(0, dtype=np.intp)
        r, c = (tile[hit] >= low).nonzero().unbind(1)
        return np.asarray((hit[r] * len(columns) + c).cpu().numpy())

    def screen(self, rows: Operand, columns: Operand, cosine: float) -> tuple[Mask, Index] | None:
        """Pairs certainly above a cosine, and places of the doubtful ones."""
        tile = self._tile_of_pairs(rows, columns)
        candidates = tile >= _below(cosine - self.error)
        if not candidates.any():
            return None
        certain = tile > _above(cosine + self.error)
        doubtful = (candidates & ~certain).flatten().nonzero().flatten()
        return certain.cpu().numpy(), doubtful.cpu().numpy()

    def first_certain(
        self, rows: Operand, columns: Operand, cosine: float
    ) -> tuple[Index, Index] | None:
        """First certain column of each row, and places of the doubtful pairs before it."""
        tile = self._tile_of_pairs(rows, columns)
        candidates = tile >= _below(cosine - self.error)
        if not candidates.any():
            return None
        certain = tile > _above(cosine + self.error)
        first = certain.to(torch.uint8).argmax(dim=1)
        first[~certain.any(dim=1)] = len(columns)
        earlier = torch.arange(len(columns), device=self._device) < first[:, None]
        doubtful = (candidates & ~certain & earlier).flatten().nonzero().flatten()
        return first.cpu().numpy(), doubtful.cpu().numpy()

    def may_reach(self, rows: Operand, columns: Operand, cosines: Float64) -> tuple[Index, Index]:
        """Pairs whose cosine may reach the row's value."""
        floor = self.score_of(cosines)
        tile = self.tile(rows, columns).float()
        hits = (tile >= torch.from_numpy(floor).to(self._device)[:, None]).nonzero().cpu().numpy()
        return hits[:, 0], hits[:, 1]

    def maxima(self, rows: Operand, columns: Operand, width: int) -> tuple[Float32, Float32]:
        """Largest scores of rows and columns in stretches of each other."""
        tile = self.tile(rows, columns)
        r, c = (torch.from_numpy(p) for p in shared_places(rows.index, columns.index))
        tile[r.to(self._device), c.to(self._device)] = -1.0
        down, right = (range(0, length, width) for length in tile.shape)
        by_row = torch.stack([tile[:, s : s + width].amax(1) for s in right], dim=1)
        by_column = torch.stack([tile[s : s + width].amax(0) for s in down])
        return _to_host(by_row), _to_host(by_column)

    def _tile_of_pairs(self, rows: Operand, columns: Operand) -> torch.Tensor:
        """A tile that need not be looked at only because a prototype is close to itself."""
        tile = self.tile(rows, columns)
        return tile.fill_diagonal_(-2.0) if rows is columns else tile


def _to_host(maxima: torch.Tensor) -> Float32:
    return np.asarray(maxima.float().clamp(min=0).cpu().numpy())


def _below(value: float) -> float:
    """The largest bf16 at most ``value``, or a value below all scores."""
    return _from_bits(bfloat16_bits_below(value)) if value > 0 else -2.0


def _above(value: float) -> float:
    """A bf16 at least ``value`` and positive."""
    return _from_bits(bfloat16_bits_below(max(value, 0.0)) + 1)


def _from_bits(bits: int) -> float:
    return float(np.int32(bits << 16).view(np.float32))


@cache
def self_test(device: str) -> None:
    """Try the products of a device against float64, on random and on adversarial rows."""
    # The panel's bound rests on a model of the hardware's sums, not on a documented one: no count
    # could be certified where a score breaks it.
    rng = np.random.default_rng(0)
    for d in (64, 256, 1024):
        rows = rng.standard_normal((512, d))
        rows[:256] = np.abs(rows[:256])  # sums of one sign gather the largest truncation error
        rows[::7] += 30.0  # almost one direction: scores close to one
        source = UnitRows(Prototypes.from_weight(rows.astype(np.float32)))
        everything = Operand(np.arange(len(rows)))
        try:
            panel = DevicePanel(source, device)
            scores = panel.tile(everything, everything).float().cpu().numpy()
        except RuntimeError as error:  # out of memory, a driver that does not fit, a broken card
            reason = printable(str(error).partition("\n")[0])
            raise DeviceError(
                f"device {device!r} is there but fails: {reason}.",
                hint="Use `device=cpu`; the result is the same.",
            ) from error
        unit = source.block(slice(None)).astype(np.float64)
        excess = np.abs(scores - unit @ unit.T) - panel.rounding * np.abs(scores)
        if not excess.max() <= panel.error:  # also NaN
            raise DeviceError(
                f"products on {device} break their error bound ({excess.max():.2g} > "
                f"{panel.error:.2g}), so counts cannot be certified there.",
                hint="Use `device=cpu`, and report the device.",
            )
