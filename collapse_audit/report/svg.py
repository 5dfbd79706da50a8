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
    """One octave of the histogram.

    Attributes:
        x: Left edge, from 0 to :data:`WIDTH`.
        width: Width, with a gap to the next bar.
        height: From 0 to :data:`HEIGHT`, proportional to the unique prototypes.
        label: Range of the redundancy factor.
        unique: Unique prototypes in the octave.
        prototypes: Prototypes that they stand for.
    """

    x: float
    width: float
    height: float
    label: str
    unique: int
    prototypes: int


@dataclass(frozen=True, slots=True)
class SweepDrawing:
    """M over epsilon, on a logarithmic epsilon axis.

    Attributes:
        curves: The points of each count by its name, y downwards.
        ticks: Position and label of every epsilon.
        mark: Position of the report's own epsilon, or ``None`` if it is outside the sweep.
    """

    curves: dict[str, tuple[tuple[float, float], ...]]
    ticks: tuple[tuple[float, str], ...]
    mark: float | None


def draw_histogram(head: HeadDocument) -> tuple[Bar, ...]:
    """Bars of the redundancy factors by octave.

    Args:
        head: One entry of the report's ``heads``.

    Returns:
        One bar per octave; one unit high at least where there is anything.
    """
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
    """Curves of M, components and isolated prototypes over epsilon.

    Args:
        head: One entry of the report's ``heads``.
        epsilon: The threshold of the report, to be marked.

    Returns:
        The drawing, or ``None`` if the report holds fewer than two points of a sweep.
    """
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
