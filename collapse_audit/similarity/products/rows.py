"""What panels are filled with: unit rows, or unit rows folded into fewer dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.products.bounds import float64_bound, gamma

if TYPE_CHECKING:
    import torch

# Distance of a float32 row from the real one: two roundings of a relative 2^-24, and room.
FLOAT32_RESIDUAL = 2.0**-22
# Lengths whose reciprocals and scaled rows stay well inside float32.
_SAFE_LENGTHS = (1e-15, 1e15)
_SAMPLE = 4096
_ROWS_AT_ONCE = 2048

Index: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = npt.NDArray[np.bool_]
Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]


class Rows(Protocol):
    """Rows that are compared by the chords between them, none longer than one."""

    @property
    def k(self) -> int:
        """Number of rows."""

    @property
    def d(self) -> int:
        """Their dimension."""

    def unit_rows(self, index: slice | Index = ...) -> Float64:
        """Some or all of them."""


class RowSource(Protocol):
    """Rows of unit norm, handed out in float32 a block at a time."""

    # How many of the last columns are equal, not negative, and may be rounded up: those that stand
    # for the tail of folded rows.
    tail_columns: int

    @property
    def residual(self) -> float:
        """Proved bound on the distance of each row handed out from the real one."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and their dimension."""

    def block(self, part: slice) -> Float32:
        """Some rows; the caller may change them."""


class UnitRows:
    """The directions of the prototypes."""

    residual = FLOAT32_RESIDUAL
    tail_columns = 0

    def __init__(self, prototypes: Prototypes) -> None:
        self._prototypes = prototypes

    @property
    def shape(self) -> tuple[int, int]:
        """k, d."""
        return self._prototypes.k, self._prototypes.d

    def block(self, part: slice) -> Float32:
        """Some unit rows."""
        rows, lengths = self._prototypes.rows[part], self._prototypes.lengths[part]
        low, high = _SAFE_LENGTHS
        if rows.dtype == np.float32 and lengths.min() > low and lengths.max() < high:
            return np.multiply(rows, (1.0 / lengths).astype(np.float32)[:, None])
        return self._prototypes.unit_rows(part).astype(np.float32)


class FoldedRows:
    r"""Tail folding: a few leading directions, and the length of what is left as one more entry.

    With orthonormal columns R, :math:`f_i = (R^\top u_i, \lVert u_i - R R^\top u_i \rVert)` is a
    unit vector, and by Cauchy-Schwarz on the folded tails

    .. math:: \langle f_i, f_j \rangle \ge \langle u_i, u_j \rangle .

    So a folded score below a threshold proves that the cosine is too: its misses are sure, its
    hits are not. Random directions stay far below any useful threshold in 64 dimensions already.
    ``directions`` is R (d x any number), as of :func:`leading_directions`.
    """

    def __init__(
        self, prototypes: Prototypes, directions: Float64, *, tail_columns: int = 1
    ) -> None:
        self._prototypes = prototypes
        # The length of the rest is spread over so many equal entries, which changes no product; one
        # large entry would make whole numbers coarse.
        self.tail_columns = tail_columns
        # Turned at random inside their span: where all rows lean one way, one entry would be far
        # larger than the others, and whole numbers are as coarse as the largest.
        count = directions.shape[1]
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((count, count)))[0]
        self._directions = directions @ turn
        # The squared tail is off by that of a float64 product, its root by the root of that.
        self.residual = FLOAT32_RESIDUAL + float64_bound(prototypes.d) ** 0.5

    @property
    def shape(self) -> tuple[int, int]:
        """k, number of leading directions and of columns of the tail."""
        return self._prototypes.k, self._directions.shape[1] + self.tail_columns

    def block(self, part: slice | Index) -> Float32:
        """Some folded rows."""
        head = self._prototypes.unit_rows(part) @ self._directions
        squared = np.clip(1.0 - np.einsum("kd,kd->k", head, head), 0.0, None)
        tail = np.sqrt(squared / self.tail_columns)
        return np.column_stack([head, *[tail] * self.tail_columns]).astype(np.float32)


class SomeRows:
    """Some rows of a source, in a given order."""

    def __init__(self, source: FoldedRows, index: Index) -> None:
        self._source = source
        self._index = index
        self.residual = source.residual
        self.tail_columns = source.tail_columns

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows taken and their dimension."""
        return len(self._index), self._source.shape[1]

    def block(self, part: slice) -> Float32:
        """Some of them."""
        return self._source.block(self._index[part])


def leading_directions(prototypes: Prototypes, count: int) -> Float64:
    """Orthonormal directions (d x count, falling) in which a sample of the rows is largest."""
    # One step of the randomised range finder (Halko, Martinsson and Tropp 2011, algorithm 4.3):
    # good directions make the screen sharper, any orthonormal ones leave it sound.
    sample = prototypes.unit_rows(slice(None, None, max(1, prototypes.k // _SAMPLE)))
    start = np.random.default_rng(0).standard_normal((prototypes.d, count))
    span = np.linalg.qr(sample.T @ (sample @ start))[0]
    inside = sample @ span
    return np.asarray(span @ np.linalg.eigh(inside.T @ inside)[1][:, ::-1])


def parts(count: int, size: int, *, start: int = 0) -> Iterator[slice]:
    """Slices of ``size`` that cover ``start`` to ``count``."""
    return (slice(first, min(first + size, count)) for first in range(start, count, size))


def blocks(source: RowSource) -> Iterator[tuple[slice, Float32]]:
    """All rows of a source, some at a time."""
    return ((part, source.block(part)) for part in parts(source.shape[0], _ROWS_AT_ONCE))


def bfloat16_rows(source: RowSource) -> tuple[torch.Tensor, float]:
    """Rows in bf16, and a bound on how far any of them is from its real row."""
    import torch  # seconds

    rounded = torch.empty(source.shape, dtype=torch.bfloat16)
    largest = 0.0
    for part, rows in blocks(source):
        tensor = torch.from_numpy(rows)
        rounded[part] = tensor
        tensor -= rounded[part]  # exact: a float32 minus its rounding to fewer bits
        largest = max(largest, largest_norm(rows))
    return rounded, largest + source.residual


def largest_norm(rows: Float32) -> float:
    """A bound on the norms of some float32 rows, for all that their float32 sums may lose."""
    squared = float(np.einsum("kd,kd->k", rows, rows).max())
    return float(squared**0.5 * (1.0 + gamma(rows.shape[1] + 2, 2.0**-24)))
