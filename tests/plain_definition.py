"""What the engine must find, by its definition."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.float64]


class Definition:
    """What the engine must find, in plain loops, float64 and fractions; it shares no code with it.

    Attributes:
        rows: The stored values (k x d), float64.
        epsilon: Cosine distance below which two rows are duplicates.
    """

    def __init__(self, weight: Any, epsilon: float) -> None:
        values = weight.double().numpy() if hasattr(weight, "double") else weight
        self.rows: Rows = np.asarray(values, dtype=np.float64)
        self.epsilon = epsilon
        self._decided: dict[tuple[bytes, bytes], bool] = {}
        self._elsewhere = {epsilon: self}

    def at(self, epsilon: float) -> Definition:
        """The same rows at another threshold."""
        if epsilon not in self._elsewhere:
            self._elsewhere[epsilon] = type(self)(self.rows, epsilon)
        return self._elsewhere[epsilon]

    @cached_property
    def unit(self) -> Rows:
        """Directions; the largest entry is brought to one first, so that no square overflows."""
        rows = self.rows / np.abs(self.rows).max(axis=1, keepdims=True)
        return np.asarray(rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)))

    @cached_property
    def duplicates(self) -> npt.NDArray[np.bool_]:
        """1 - cos < epsilon, strictly, for every pair (k x k); false on the diagonal."""
        cosine = self.unit @ self.unit.T
        close = np.asarray(cosine > 1 - self.epsilon)
        for i, j in np.argwhere(np.triu(np.abs(cosine - (1 - self.epsilon)) < 1e-11, 1)):
            close[i, j] = close[j, i] = self._exactly(i, j)
        np.fill_diagonal(close, val=False)
        return close

    def _exactly(self, i: int, j: int) -> bool:
        key = (self.rows[i].tobytes(), self.rows[j].tobytes())
        if key not in self._decided:
            x = [Fraction(float(v)) for v in self.rows[i]]
            y = [Fraction(float(v)) for v in self.rows[j]]
            dot = sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))
            squares = sum(a * a for a in x) * sum(b * b for b in y)
            limit = 1 - Fraction(Decimal(str(self.epsilon)))
            self._decided[key] = dot > 0 and dot**2 > limit**2 * squares
        return self._decided[key]

    def greedy(self, order: npt.NDArray[np.intp] | None = None) -> tuple[list[int], list[int]]:
        """Leaders in scan order, and each row's place among them (-1 if it was not scanned)."""
        leaders: list[int] = []
        group = [-1] * len(self.rows)
        for row in range(len(self.rows)) if order is None else order.tolist():
            for place, leader in enumerate(leaders):
                if self.duplicates[row, leader]:
                    group[row] = place
                    break
            else:
                group[row] = len(leaders)
                leaders.append(row)
        return leaders, group

    @cached_property
    def component(self) -> list[int]:
        """Connected component of each row, named by the smallest index in it."""
        name = [-1] * len(self.rows)
        for start in range(len(name)):
            if name[start] != -1:
                continue
            name[start], todo = start, [start]
            while todo:
                for other in np.flatnonzero(self.duplicates[todo.pop()]).tolist():
                    if name[other] == -1:
                        name[other] = start
                        todo.append(other)
        return name

    @property
    def components(self) -> int:
        """Number of connected components."""
        return len(set(self.component))

    @property
    def neighbours(self) -> list[int]:
        """Other rows within epsilon, for each row."""
        return [int(row.sum()) for row in self.duplicates]

    @property
    def isolated(self) -> int:
        """Rows with no other row within epsilon."""
        return self.neighbours.count(0)

    def cliques(self) -> list[bool]:
        """Whether all members of each group are within epsilon of each other."""
        leaders, group = self.greedy()
        members = [np.flatnonzero(np.array(group) == g) for g in range(len(leaders))]
        return [all(self.duplicates[i, j] for i in m for j in m if i != j) for m in members]

    def squared_chords(self, row: int) -> Rows:
        """|u_row - u_j|^2 for every other row j; infinite for the row itself."""
        squared = np.asarray(((self.unit - self.unit[row]) ** 2).sum(axis=1))
        squared[row] = np.inf
        return squared


class EuclideanDefinition(Definition):
    """The same for points at a radius, every pair in fractions."""

    @cached_property
    def duplicates(self) -> npt.NDArray[np.bool_]:
        """|x - y| < R, strictly, for every pair (k x k); false on the diagonal."""
        points = [[Fraction(value) for value in row] for row in self.rows.tolist()]
        limit = Fraction(Decimal(str(self.epsilon))) ** 2
        close = np.zeros((len(points), len(points)), dtype=np.bool_)
        for i, x in enumerate(points):
            for j, y in enumerate(points[:i]):
                squared = sum(((a - b) ** 2 for a, b in zip(x, y, strict=True)), Fraction(0))
                close[i, j] = close[j, i] = squared < limit
        return close

    def distances(self, row: int) -> Rows:
        """|x_row - x_j| for every other row j; infinite for the row itself."""
        largest = np.abs(self.rows).max() or 1.0
        distance = np.sqrt((((self.rows - self.rows[row]) / largest) ** 2).sum(axis=1)) * largest
        distance[row] = np.inf
        return np.asarray(distance)
