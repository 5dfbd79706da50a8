"""Geometry of the inline drawings of the HTML page; the template only writes it down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from collapse_audit.report import words
from collapse_audit.report.documents import Counts, HeadDocument, HeadHistoryDocument
from collapse_audit.report.gallery_documents import GalleryClassDocument

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
    """M over epsilon, on a logarithmic axis, or over the checkpoints of a run."""

    curves: dict[str, tuple[tuple[float, float], ...]]  # points by name of the count, y downwards
    ticks: tuple[tuple[float, str], ...]  # position and label, such as an epsilon
    mark: float | None  # of the report's own epsilon, or the onset; ``None`` outside


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


def draw_split(found: GalleryClassDocument) -> list[tuple[float, float, str]]:
    """Copies of a class, as wide as the samples they take: left edge, width and what it is."""
    parts, left = [], 0.0
    for copy in found["copies"]:
        width = WIDTH * copy["count"] / max(found["count"], 1)
        label = f"prototype {copy['prototype']}: {words.plural(copy['count'], 'sample')}"
        parts.append((round(left, 2), round(width, 2), label))
        left += width
    return parts


def draw_sweep(head: HeadDocument, own: float) -> SweepDrawing | None:
    """Curves of M, N_eff, components, isolated; ``None`` for fewer than two thresholds."""
    # own: the epsilon or the radius of the report
    if (across := threshold_axis(head)) is None:
        return None
    rows = sorted(head["sweep"], key=words.level)
    xs = [across(words.level(row)) for row in rows]
    ticks = tuple((x, f"{words.level(row):g}") for x, row in zip(xs, rows, strict=True))
    inside = words.level(rows[0]) <= own <= words.level(rows[-1])
    curves = _shares(xs, [(row, head["k"]) for row in rows])
    return SweepDrawing(curves, ticks, across(own) if inside else None)


def threshold_axis(head: HeadDocument) -> Callable[[float], float] | None:
    """Position of an epsilon or radius on the logarithmic axis; ``None`` for fewer than two."""
    found = [math.log(words.level(row)) for row in head["sweep"] or ()]
    if len(found) < 2:
        return None
    low, high = min(found), max(found)
    return lambda value: round(WIDTH * (math.log(value) - low) / (high - low), 2)


def draw_gauge(k: int, counts: Counts, bracket: Sequence[int]) -> dict[str, tuple[float, float]]:
    """Left edge and width of M, bracket and N_eff, each as its share of K."""
    low, high = bracket
    shares: dict[str, tuple[float, float]] = {
        "unique": (0, counts["greedy"]),
        "bracket": (low, high),
    }
    if "n_eff" in counts:
        shares["n_eff"] = (counts["n_eff"], counts["n_eff"])
    return {
        name: (round(WIDTH * left / k, 2), max(round(WIDTH * (right - left) / k, 2), 3.0))
        for name, (left, right) in shares.items()
    }


def draw_history(head: HeadHistoryDocument) -> SweepDrawing | None:
    """The same curves over the checkpoints of a run, evenly spaced, its onset marked."""
    points = head["points"]
    if len(points) < 2:
        return None
    xs = [round(WIDTH * at / (len(points) - 1), 2) for at in range(len(points))]
    curves = _shares(xs, [(point["head"]["unique"], point["head"]["k"]) for point in points])
    ticks = tuple(
        (x, str(at if point["number"] is None else point["number"]))
        for at, (x, point) in enumerate(zip(xs, points, strict=True))
        if at % -(-len(points) // 10) == 0
    )
    onset = [x for x, point in zip(xs, points, strict=True) if point["file"] == head["onset"]]
    return SweepDrawing(curves, ticks, onset[0] if onset else None)


def _shares(
    xs: list[float], rows: Sequence[tuple[Counts, int]]
) -> dict[str, tuple[tuple[float, float], ...]]:
    """Each count as a share of its K."""
    return {
        name: tuple(
            (x, round(HEIGHT * (1 - counts[name] / k), 2))
            for x, (counts, k) in zip(xs, rows, strict=True)
        )
        for name in ("greedy", "n_eff", "components", "isolated")
        if all(name in counts for counts, _ in rows)
    }
