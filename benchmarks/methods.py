"""What a measured method is, and what it answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.inputs import Rows

# The questions that methods answer. Only methods with the same one are compared.
Task: TypeAlias = Literal["audit", "sweep", "nearest", "whole"]
_WARM_UP_ROWS = 2048

Run: TypeAlias = Callable[..., Any]
Read: TypeAlias = "Callable[[Any, Rows], Answer]"


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a method found.

    Attributes:
        counts: Those of :class:`benchmarks.inputs.Counts` that the method finds, and no others, or
            ``communities`` for a rule of another kind.
        distance: Cosine distance of each row to the neighbour found, in float64 (k), or ``None``.
        faults: What is wrong with the answer by itself, in words; empty if nothing is.
        note: What the reader of the table should know, such as the library that was used.
        share: Part of the work that was done; times are divided by it.
    """

    counts: dict[str, int] = field(default_factory=dict)
    distance: npt.NDArray[np.float64] | None = None
    faults: tuple[str, ...] = ()
    note: str = ""
    share: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """Something that is measured.

    Attributes:
        name: Short and unique; the name in result files.
        label: What the table calls it.
        task: The question it answers.
        run: The work that is timed, on unit rows (k x d).
        read: Makes an answer of what ``run`` returned; not timed.
        start: Called once before anything is timed: imports, thread pools, trials of arithmetic.
        package: Module that must be installed.
        most: Largest K at which it is run.
        certified: Whether its counts must equal the reference exactly, also at the threshold.
    """

    name: str
    label: str
    task: Task
    run: Run
    read: Read
    start: Callable[[Rows], object] | None = None
    package: str = "numpy"
    most: int = 65536
    certified: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package can be imported."""
        return importlib.util.find_spec(self.package) is not None

    def warm_up(self, rows: Rows) -> None:
        """Do what only the first call in a process has to do."""
        if self.start is not None:
            self.start(rows)
        self.run(rows[:_WARM_UP_ROWS])


def chords(rows: Rows, other: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Cosine distance of each row to another one, from differences in float64 (k)."""
    out = np.empty(len(rows))
    for first in range(0, len(rows), 4096):
        part = slice(first, first + 4096)
        out[part] = _half_squares(unit(rows[part]) - unit(rows[other[part]]))
    return out


def nearest_distances(rows: Rows, some: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Cosine distance of some rows to the nearest other row, by comparison with all of them."""
    out = np.full(len(some), np.inf)
    for first in range(0, len(rows), 4096):
        block = unit(rows[first : first + 4096])
        for place, row in enumerate(some):
            distance = _half_squares(block - unit(rows[row : row + 1]))
            if first <= row < first + 4096:
                distance[row - first] = np.inf
            out[place] = min(out[place], float(distance.min()))
    return out


def unit(rows: Rows) -> npt.NDArray[np.float64]:
    """The rows in float64 with norm one."""
    wide = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def _half_squares(difference: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.einsum("kd,kd->k", difference, difference) / 2.0)
