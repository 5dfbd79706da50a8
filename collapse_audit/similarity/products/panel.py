"""Panels: rows in a fast arithmetic, and what tiles of their products prove."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.similarity.products.rows import Float32, Float64, Index, Mask, RowSource

if TYPE_CHECKING:
    import torch

# Scores of rows x columns as something ordered like them: float32, or the bits of positive bf16.
Tile: TypeAlias = npt.NDArray[Any]

PanelKind: TypeAlias = "Callable[[RowSource], Panel]"


class Operand:
    """Some prototypes, by their index, gathered once in each panel they are multiplied in."""

    __slots__ = ("_gathered", "index")

    def __init__(self, index: Index) -> None:
        self.index = index
        self._gathered: dict[Panel, Any] = {}

    def __len__(self) -> int:
        return len(self.index)

    def rows_of(self, panel: Panel) -> Any:
        """The rows of these prototypes in a panel."""
        if panel not in self._gathered:
            self._gathered[panel] = panel.gather(self.index)
        return self._gathered[panel]


class Panel(ABC):
    """Rows of unit norm in one arithmetic, and questions about tiles of their products.

    Every answer is on the safe side of a proved bound; none of them is a decision in doubt.
    """

    block_rows: int = 1024  # that a scan should compare with leaders at once
    scan_rows: int = 1024  # that it should compare with one another at once
    chunk_rows: int = 2048  # leaders that rows should be compared with at once
    tail_columns: int = 1  # over which folded rows should spread the length of their tail
    error: float  # proved bound on |score - inner product| for every pair of rows
    # Relative error of the values of a tile beyond that, where scores are stored in fewer bits than
    # they were summed in.
    rounding: float = 0.0

    @abstractmethod
    def __init__(self, source: RowSource) -> None:
        """Take the rows of a source."""

    @abstractmethod
    def gather(self, index: Index) -> Any:
        """Some rows, contiguous."""

    @abstractmethod
    def candidates(self, rows: Operand, columns: Operand, cosine: float) -> Index:
        """Flat places of the pairs whose cosine is not certainly at most a value."""

    @abstractmethod
    def screen(self, rows: Operand, columns: Operand, cosine: float) -> tuple[Mask, Index] | None:
        """Pairs whose cosine is certainly above a value, and flat places of the doubtful ones.

        ``None`` stands for a tile without either.
        """

    @abstractmethod
    def first_certain(
        self, rows: Operand, columns: Operand, cosine: float
    ) -> tuple[Index, Index] | None:
        """First certain column of each row, and flat places of the doubtful pairs before it.

        Rows without a certain column have the number of columns; ``None`` is as for ``screen``.
        """

    @abstractmethod
    def may_reach(self, rows: Operand, columns: Operand, cosines: Float64) -> tuple[Index, Index]:
        """Pairs whose cosine may reach the row's value: a superset, no pair of which is missed."""

    @abstractmethod
    def maxima(self, rows: Operand, columns: Operand, width: int) -> tuple[Float32, Float32]:
        """Largest scores in stretches of ``width``, at least 0, without equal prototypes.

        Of each row in each stretch of columns (rows x stretches), and of each column in each
        stretch of rows (stretches x columns).
        """

    def reached(self, best: Float32) -> Float64:
        """A cosine that some pair behind a best score certainly reaches; -1 where it is 0."""
        value = best.astype(np.float64)
        return np.where(value > 0, value * (1 - self.rounding) - self.error, -1.0)

    def score_of(self, cosines: Float64) -> Float32 | Float64:
        """A score that every pair of such a cosine certainly reaches."""
        error, rounding = self.error, self.rounding
        floors = cosines - error * (1 + rounding) - rounding * np.abs(cosines)
        return np.nextafter(floors.astype(np.float32), np.float32(-np.inf))


class Panels(Protocol):
    """The panels of one head."""

    first: Panel  # decides the clear pairs
    recheck: Panel  # finer, for what the first leaves open

    @property
    def coarse(self) -> Panel:
        """The cheapest one, for questions that only ask for candidates."""

    def folded(self, apart: Index, cosine: float) -> Panel | None:
        """One of folded rows that settles almost all pairs of ``apart``, if any."""


class HostPanel(Panel):
    """A panel whose tiles are numpy arrays."""

    lowest: Any = -np.inf  # a code below all others

    @abstractmethod
    def tile(self, rows: Operand, columns: Operand) -> Tile:
        """Scores of all pairs (rows x columns) as codes; valid until the next call."""

    @abstractmethod
    def codes(self, low: float, high: float) -> tuple[Any, Any]:
        """A code at most ``low`` and one at least ``high``, as they stand in a tile."""

    def values(self, tile: Tile) -> Float32:
        """The scores that codes stand for."""
        return tile

    def row_maxima(self, tile: Tile, width: int) -> Tile:
        """Largest codes of each row in stretches of columns (rows x stretches)."""
        starts = np.arange(0, tile.shape[1], width)
        return np.asarray(np.maximum.reduceat(tile, starts, axis=1))

    def candidates(self, rows: Operand, columns: Operand, cosine: float) -> Index:
        """Flat places of the pairs whose cosine is not certainly at most a value."""
        tile = self._tile_of_pairs(rows, columns)
        low, _ = self.codes(cosine - self.error, 1.0)
        hit = np.flatnonzero(self.row_maxima(tile, len(columns))[:, 0] >= low)
        r, c = np.divmod(np.flatnonzero(tile[hit] >= low), len(columns))
        return np.asarray(hit[r] * len(columns) + c)

    def screen(self, rows: Operand, columns: Operand, cosine: float) -> tuple[Mask, Index] | None:
        """Pairs certainly above a cosine, and places of the doubtful ones."""
        tile = self._tile_of_pairs(rows, columns)
        low, high = self.codes(cosine - self.error, cosine + self.error)
        near = np.asarray(tile >= low)
        if not near.any():
            return None
        certain = np.asarray(tile > high)
        return certain, np.flatnonzero(near != certain)

    def first_certain(
        self, rows: Operand, columns: Operand, cosine: float
    ) -> tuple[Index, Index] | None:
        """First certain column of each row, and places of the doubtful pairs before it."""
        screened = self.screen(rows, columns, cosine)
        if screened is None:
            return None
        certain, doubtful = screened
        first = certain.argmax(axis=1)
        first[~certain[np.arange(len(rows)), first]] = len(columns)
        r, c = np.divmod(doubtful, len(columns))
        return first, doubtful[c < first[r]]

    def may_reach(self, rows: Operand, columns: Operand, cosines: Float64) -> tuple[Index, Index]:
        """Pairs whose cosine may reach the row's value."""
        tile = self.tile(rows, columns)
        floors = self.score_of(cosines)
        r, c = np.divmod(
            np.flatnonzero(tile >= self.codes(float(floors.min()), 1.0)[0]), len(columns)
        )
        kept = self.values(tile[r, c]) >= floors[r]
        return r[kept], c[kept]

    def maxima(self, rows: Operand, columns: Operand, width: int) -> tuple[Float32, Float32]:
        """Largest scores of rows and columns in stretches of each other."""
        tile = self.tile(rows, columns)
        r, c = shared_places(rows.index, columns.index)
        tile[r, c] = self.lowest
        by_row = self.row_maxima(tile, width)
        by_column = np.stack([tile[s : s + width].max(axis=0) for s in range(0, len(tile), width)])
        return np.maximum(self.values(by_row), 0), np.maximum(self.values(by_column), 0)

    def _tile_of_pairs(self, rows: Operand, columns: Operand) -> Tile:
        """A tile that need not be looked at only because a prototype is close to itself."""
        tile = self.tile(rows, columns)
        if rows is columns:
            np.fill_diagonal(tile, self.lowest)
        return tile


class TorchPanel(HostPanel):
    """A panel whose tiles torch makes in the processor's memory."""

    few_shapes: bool = False  # whether gathered rows are filled up to one of few lengths
    _rows: torch.Tensor
    _buffer: torch.Tensor

    def gather(self, index: Index) -> torch.Tensor:
        """Some rows, and any others behind them where they are filled up."""
        import torch

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
        """Largest codes of each row in stretches of columns (rows x stretches)."""
        found = torch_row_maxima(tile, width)
        return super().row_maxima(tile, width) if found is None else found


def torch_row_maxima(tile: Tile, width: int) -> Tile | None:
    """Row maxima in stretches of equal width on all threads; ``None`` if the last is shorter."""
    import torch

    if tile.shape[1] % width:
        return None
    return np.asarray(torch.from_numpy(tile).view(len(tile), -1, width).amax(2).numpy())


def as_slice(index: Index) -> Index | slice:
    """The same places as a slice where they are consecutive, which spares a copy."""
    if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def shared_places(rows: Index, columns: Index) -> tuple[Index, Index]:
    """Where a tile compares a prototype with itself; rows and columns are sorted."""
    if rows[-1] < columns[0] or columns[-1] < rows[0]:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    place = np.minimum(np.searchsorted(columns, rows), len(columns) - 1)
    same = np.flatnonzero(columns[place] == rows)
    return same, place[same]


def bfloat16_bits_below(value: float) -> int:
    """Bits of the largest bf16 at most ``value``, which must not be negative."""
    nearest = np.float32(value)
    if nearest > value:
        nearest = np.nextafter(nearest, np.float32(0))
    return int(nearest.view(np.int32)) >> 16


def _round_up(count: int) -> int:
    """The next multiple of 16 or, for more rows, of an eighth of the power of two above."""
    step = max(16, 1 << max(0, (count - 1).bit_length() - 3))
    return -(-count // step) * step
