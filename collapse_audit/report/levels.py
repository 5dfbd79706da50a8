"""What the top of a head's section says at each threshold: its words, its gauge, its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from collapse_audit.report import svg, words
from collapse_audit.report.documents import Counts, HeadDocument, Parameters


@dataclass(frozen=True, slots=True)
class Level:
    """One epsilon, or radius, of the sweep, or that of the report."""

    own: bool  # the epsilon or radius of the report
    show: dict[str, str]  # text by what it says
    gauge: dict[str, tuple[float, float]]  # left edge and width of each shape, in SVG units
    mark: float | None  # of the threshold on the axis of the sweep, if that is drawn


def levels(head: HeadDocument, parameters: Parameters) -> tuple[Level, ...]:
    """The levels of the sweep and the report's own, by rising threshold."""
    unique = head["unique"]
    own = head["radius"] if (epsilon := parameters["epsilon"]) is None else epsilon
    rows: dict[float, Counts] = {words.level(row): row for row in head["sweep"] or ()}
    rows[own] = unique
    across = svg.threshold_axis(head)
    found = []
    for at, counts in sorted(rows.items()):
        bracket = [counts["components"], counts["greedy"]]
        if at == own:
            bracket = unique.get("bracket", bracket)
        told = (
            f"radius {at:g}" if epsilon is None else f"epsilon {at:g} ({words.degrees(at)} degrees)"
        )
        whose = "that of this report" if at == own else f"the report has {own:g}"
        found.append(
            Level(
                own=at == own,
                show={"threshold": f"{told}, {whose}"} | _show(head["k"], counts, bracket),
                gauge=svg.draw_gauge(head["k"], counts, bracket),
                mark=across and across(at),
            )
        )
    return tuple(found)


def packed(found: Sequence[Level]) -> str:
    """All levels, as the script of the page reads them."""
    return json.dumps([asdict(level) for level in found], separators=(",", ":"))


def _show(k: int, counts: Counts, bracket: Sequence[int]) -> dict[str, str]:
    low, high = map(words.count, bracket)
    return {
        "unique": words.count(counts["greedy"]),
        "share": f"{words.percent(counts['greedy'] / k)} of {words.count(k)}",
        "bracket": low if low == high else f"{low} to {high}",
        "n_eff": words.n_eff(counts),
        "components": words.count(counts["components"]),
        "isolated": words.count(counts["isolated"]),
    }
