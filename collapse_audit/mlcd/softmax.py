"""Streaming softmax over K prototypes: one matrix product per sample, no n x k array."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from collapse_audit.errors import ParameterError

if TYPE_CHECKING:
    from torch import Tensor

    from collapse_audit.prototypes import Prototypes

# Columns per tile: small enough that the exponentials of a tile are still in cache when they are
# summed, large enough that the matrix product runs at full speed.
_COLUMNS = 2048
# Rows whose group masses are summed at once on a CPU: few enough that the masses stay in cache,
# where the columns of a tile are added in any order (K = M = 65536: 4 MB, five times as fast).
_ROWS_SUMMED = 16

# Largest span of the scaled logits for which one fixed shift is safe. The shift is the middle of
# the span, so the exponentials, the squares of the normalised ones, and sums of a million of
# them stay inside the normal numbers of the type.
_SAFE_SPAN = {torch.float32: 56.0, torch.float64: 500.0}


@dataclass(slots=True, eq=False)
class Batch:
    """Rows that the scorer understands: bottleneck features, or ready-made logits."""

    rows: Tensor
    is_logits: bool


class Scorer:
    """Scaled logits of one head, tile by tile: (<x, w_k> + b_k) / temperature + offset_k."""

    def __init__(
        self,
        prototypes: Prototypes,
        *,
        temperature: float,
        normalize_features: bool,
        use_norms: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.k, self.d = prototypes.k, prototypes.d
        self.temperature = temperature
        self.dtype, self.device = dtype, device
        self.normalize = normalize_features
        scale = prototypes.norms if use_norms else np.ones(prototypes.k)
        self.scale = scale / temperature
        self.weight = torch.empty(self.k, self.d, dtype=dtype, device=device)
        for start in range(0, self.k, 8192):  # bounded float64 copies
            part = slice(start, start + 8192)
            rows = prototypes.unit_rows(part) * (scale[part, None] / temperature)
            self.weight[part] = torch.from_numpy(rows).to(device, dtype)
        bias = np.zeros(self.k) if prototypes.bias is None else prototypes.bias / temperature
        self.bias = torch.from_numpy(np.ascontiguousarray(bias)).to(device)

    def batch(self, x: object, *, is_logits: bool) -> Batch:
        """Check rows and bring them to the scorer's type, device and norm."""
        rows = torch.as_tensor(x).detach()
        width, what = (self.k, "logits") if is_logits else (self.d, "features")
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ParameterError(
                f"{what} must be n x {width} for this head, got shape {tuple(rows.shape)}.",
                hint="Features are those at the bottleneck, just before the prototypes.",
            )
        rows = rows.to(self.device, self.dtype)
        finite = torch.isfinite(rows).all(dim=1)
        if not finite.all():
            first = int((~finite).nonzero()[0, 0])
            raise ParameterError(
                f"{what} hold NaN or infinite values (first in row {first} of a batch).",
                hint="Run the backbone in float32 and look at that image.",
            )
        if self.normalize and not is_logits:
            rows = torch.nn.functional.normalize(rows, dim=1, eps=1e-12)
        return Batch(rows, is_logits)

    def fill(self, batch: Batch, columns: slice, offset: Tensor, out: Tensor) -> Tensor:
        """Write the scaled logits of some columns to ``out`` (batch x columns)."""
        if batch.is_logits:
            torch.add(offset[columns], batch.rows[:, columns], alpha=1 / self.temperature, out=out)
            return out
        torch.addmm(offset[columns], batch.rows, self.weight[columns].T, out=out)
        return out

    def offsets(self, extra: Tensor, *, is_logits: bool) -> Tensor:
        """What is added to every scaled logit; ready-made logits hold their bias already."""
        return extra if is_logits else self.bias + extra

    def safe_shift(self, offset: Tensor, *, is_logits: bool) -> float | None:
        """The shift that suits every sample; ``None`` if only one per sample is safe."""
        # Features of unit norm bound every scaled logit by norm / temperature, so the span is known
        # before the first product. Nothing bounds the others.
        if is_logits or not self.normalize:
            return None
        reach = torch.from_numpy(self.scale).to(offset.device)
        high, low = float((offset + reach).max()), float((offset - reach).min())
        return (high + low) / 2 if high - low <= _SAFE_SPAN[self.dtype] else None


@dataclass(slots=True, eq=False)
class Sums:
    """Sufficient statistics of the MLCD, in float64; those of two halves add up to the whole."""

    p: Tensor
    p_squared: Tensor
    n: int = 0
    entropy: float = 0.0
    entropy_squared: float = 0.0
    max_probability: float = 0.0
    # of every sample; those of groups, if they are known
    winners: list[Tensor] = field(default_factory=list)
    winner_probabilities: list[Tensor] = field(default_factory=list)
    unique_winners: list[Tensor] = field(default_factory=list)
    unique_winner_probabilities: list[Tensor] = field(default_factory=list)
    copy_winners: list[Tensor] = field(default_factory=list)

    @classmethod
    def zeros(cls, k: int, device: torch.device) -> Sums:
        """Sums over no samples."""
        return cls(
            p=torch.zeros(k, dtype=torch.float64, device=device),
            p_squared=torch.zeros(k, dtype=torch.float64, device=device),
        )

    def add(self, other: Sums) -> None:
        """Add the sums over other samples."""
        self.p += other.p.to(self.p.device)
        self.p_squared += other.p_squared.to(self.p.device)
        self.n += other.n
        self.entropy += other.entropy
        self.entropy_squared += other.entropy_squared
        self.max_probability += other.max_probability
        self.winners += other.winners
        self.winner_probabilities += other.winner_probabilities
        self.unique_winners += other.unique_winners
        self.unique_winner_probabilities += other.unique_winner_probabilities
        self.copy_winners += other.copy_winners


class SoftmaxPass:
    """Adds batches to the sums, holding about ``tile`` numbers at once.

    The products of a block of rows with all tiles of prototypes are kept until the normaliser of
    these rows is known, so each product is computed once. A block has tile / k rows; the masses
    of the groups, of up to 16 rows at once on a CPU, are held beside it.
    """

    def __init__(
        self, scorer: Scorer, *, extra: Tensor, tile: int, groups: Tensor | None = None
    ) -> None:
        self._scorer = scorer
        self._groups = groups
        self._unique = 0 if groups is None else int(groups.max()) + 1
        self._rows = max(1, tile // scorer.k)
        self._columns = [
            slice(start, min(start + _COLUMNS, scorer.k)) for start in range(0, scorer.k, _COLUMNS)
        ]
        self._buffers: list[Tensor] = []
        self._shifts: dict[bool, float | None] = {}
        self._offsets: dict[bool, Tensor] = {}
        for is_logits in (False, True):
            offset = scorer.offsets(extra, is_logits=is_logits)
            shift = scorer.safe_shift(offset, is_logits=is_logits)
            self._shifts[is_logits] = shift
            self._offsets[is_logits] = (offset - (shift or 0.0)).to(scorer.dtype)

    def add(self, batch: Batch, sums: Sums) -> None:
        """Add every row of a batch to the sums."""
        for start in range(0, len(batch.rows), self._rows):
            block = Batch(batch.rows[start : start + self._rows], batch.is_logits)
            self._add_block(block, sums)

    def _add_block(self, block: Batch, sums: Sums) -> None:
        rows = len(block.rows)
        best = torch.full((rows,), -torch.inf, dtype=self._scorer.dtype, device=block.rows.device)
        winner = torch.zeros(rows, dtype=torch.int64, device=best.device)
        fixed = self._shifts[block.is_logits] is not None
        if not fixed:
            for index in range(len(self._columns)):
                self._fill(index, block, best, winner)
        z = torch.zeros(rows, dtype=torch.float64, device=best.device)
        weighted = torch.zeros_like(z)
        exponentials = []
        for index in range(len(self._columns)):
            if fixed:
                tile = self._fill(index, block, best, winner)
            else:
                tile = self._view(index + 1, index, rows).sub_(best[:, None])
            # tile i lies in buffer i + 1, and buffer i, whose tile is used up, takes its exp
            powers = torch.exp(tile, out=self._view(index, index, rows))
            z += powers.sum(dim=1)
            weighted += tile.mul_(powers).sum(dim=1)
            exponentials.append(powers)
        if self._groups is not None:
            masses, groups, copies = self._winning_groups(exponentials, self._groups)
            sums.unique_winners.append(groups.cpu())
            sums.copy_winners.append(copies.cpu())
            sums.unique_winner_probabilities.append((masses / z).float().cpu())
        self._add_columns(exponentials, (1 / z).to(self._scorer.dtype), sums)
        entropies = z.log() - weighted / z
        sums.n += rows
        sums.entropy += float(entropies.sum())
        sums.entropy_squared += float(entropies.square().sum())
        highest = (best.double().exp() if fixed else 1.0) / z
        sums.max_probability += float(highest.sum())
        sums.winners.append(winner.cpu())
        sums.winner_probabilities.append(highest.float().cpu())

    def _fill(self, index: int, block: Batch, best: Tensor, winner: Tensor) -> Tensor:
        """Logits of one tile; updates the best value and class of every row in place."""
        columns = self._columns[index]
        out = self._view(index + 1, index, len(block.rows))
        tile = self._scorer.fill(block, columns, self._offsets[block.is_logits], out)
        _keep_larger(tile, columns.start, best, winner)
        return tile

    def _winning_groups(
        self, exponentials: list[Tensor], groups: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of every row the largest mass of a group, the group, and its likeliest prototype."""
        # of equal ones the first
        rows = len(exponentials[0])
        step = rows if groups.is_cuda else _ROWS_SUMMED
        winners = []
        for start in range(0, rows, step):
            part = slice(start, start + step)
            masses = exponentials[0].new_zeros(len(exponentials[0][part]), self._unique)
            for columns, powers in zip(self._columns, exponentials, strict=True):
                masses.index_add_(1, groups[columns], powers[part])
            winners.append(masses.max(dim=1))
        highest, numbers = map(torch.cat, zip(*winners, strict=True))
        best, copies = torch.full_like(highest, -1.0), torch.zeros_like(numbers)
        group, narrow = numbers.int()[:, None], groups.int()  # compared in half the time
        for columns, powers in zip(self._columns, exponentials, strict=True):
            held = powers.where(narrow[columns] == group, -1.0)
            _keep_larger(held, columns.start, best, copies)
        return highest, numbers, copies

    def _add_columns(self, exponentials: list[Tensor], weights: Tensor, sums: Sums) -> None:
        """Add p(k|x) and its square, summed over the rows of a block."""
        squared_weights = weights.square()
        for columns, powers in zip(self._columns, exponentials, strict=True):
            sums.p[columns] += torch.mv(powers.T, weights)
            sums.p_squared[columns] += torch.mv(powers.square_().T, squared_weights)

    def _view(self, buffer: int, index: int, rows: int) -> Tensor:
        """A rows x columns array for tile ``index`` in a reused buffer."""
        while len(self._buffers) <= buffer:
            size = self._rows * min(_COLUMNS, self._scorer.k)
            scorer = self._scorer
            self._buffers.append(torch.empty(size, dtype=scorer.dtype, device=scorer.device))
        columns = self._columns[index]
        width = columns.stop - columns.start
        return self._buffers[buffer][: rows * width].view(rows, width)


def _keep_larger(tile: Tensor, start: int, best: Tensor, place: Tensor) -> None:
    """Update the best value of every row and its column by those of a tile, in place."""
    values, columns = tile.max(dim=1)
    better = values > best  # strict: a tie stays with the lower index
    torch.where(better, values, best, out=best)
    torch.where(better, columns + start, place, out=place)
