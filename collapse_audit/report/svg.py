"""Geometry of the two inline drawings of the HTML page; the template only writes it down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from collapse_audit.report import words
from collapse_audit.report.documents import HeadDocument

#: Size of the plotting area in SVG units; the template adds margins for the labels.
WIDTH: Final = 520
HEIGHT: Final = 180


@dataclass(frozen=True, slots=True)
class Bar:
    """One octave of the histogram."""

    x: float  # left edge, from 0 to :data:`WIDTH`
    width: float  # with a gap to the next bar
    height: float  # from 0 to :data:`HEIGHT`, proportional to the unique prototypes
    label: str  # range of the redundancy factor
    unique: int  # unique prototypes in the octave
    prototypes: int  # that they stand for


@dataclass(frozen=True, slots=True)
class SweepDrawing:
    """M over epsilon, on a logarithmic epsilon axis."""

    curves: dict[str, tuple[tuple[float, float], ...]]  # points by name of the count, y downwards
    ticks: tuple[tuple[float, str], ...]  # position and label of every epsilon
    mark: float | None  # position of the report's own epsilon; ``None`` outside the sweep


def draw_histogram(head: HeadDocument) -> tuple[Bar, ...]:
    """Bars of the redundancy factors by octave, one unit high at least where there is anything."""
    rows = words.octaves(head["redundancy_factors"]["histogram"])
    tallest = max((unique for _, unique, _ in rows), default=1)
    step = WIDTH / max(len(rows), 1)
    return tuple(
        Bar(
            x=round(index * step, 2),
            width=round(0.85 * step, 2),
            height=max(round(HEIGHT * unique / tallest, 2), 1.0) if unique else 0.0,
            label=label,
            unique=unique,
            prototypes=prototypes,
        )
        for index, (label, unique, prototypes) in enumerate(rows)
    )


def draw_sweep(head: HeadDocument, epsilon: float) -> SweepDrawing | None:
    """Curves of M, components and isolated prototypes; ``None`` for fewer than two epsilons."""
    rows = sorted(head["sweep"] or (), key=lambda row: row["epsilon"])
    if len(rows) < 2:
        return None
    low, high = (math.log(rows[index]["epsilon"]) for index in (0, -1))

    def across(value: float) -> float:
        return round(WIDTH * (math.log(value) - low) / (high - low), 2)

    curves = {
        name: tuple(
            (across(row["epsilon"]), round(HEIGHT * (1 - row[name] / head["k"]), 2)) for row in rows
        )
        for name in ("greedy", "components", "isolated")
    }
    ticks = tuple((across(row["epsilon"]), f"{row['epsilon']:g}") for row in rows)
    inside = rows[0]["epsilon"] <= epsilon <= rows[-1]["epsilon"]
    return SweepDrawing(curves, ticks, across(epsilon) if inside else None)
