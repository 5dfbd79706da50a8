"""What the top of a head's section says at each epsilon: its words, its gauge, its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from collapse_audit.report import svg, words
from collapse_audit.report.documents import Counts, HeadDocument, Parameters


@dataclass(frozen=True, slots=True)
class Level:
    """One epsilon of the sweep, or that of the report."""

    own: bool  # the epsilon of the report
    show: dict[str, str]  # text by what it says
    gauge: dict[str, tuple[float, float]]  # left edge and width of each shape, in SVG units
    mark: float | None  # of the epsilon on the axis of the sweep, if that is drawn


def levels(head: HeadDocument, parameters: Parameters) -> tuple[Level, ...]:
    """The levels of the sweep and the report's own, in rising order of epsilon."""
    unique, own = head["unique"], parameters["epsilon"]
    rows: dict[float, Counts] = {row["epsilon"]: row for row in head["sweep"] or ()}
    rows[own] = unique
    across = svg.epsilon_axis(head)
    return tuple(
        Level(
            own=epsilon == own,
            show=_show(head["k"], epsilon, counts, bracket, own),
            gauge=svg.draw_gauge(head["k"], counts, bracket),
            mark=across and across(epsilon),
        )
        for epsilon, counts in sorted(rows.items())
        for bracket in [
            (epsilon == own and unique.get("bracket")) or [counts["components"], counts["greedy"]]
        ]
    )


def packed(found: Sequence[Level]) -> str:
    """All levels, as the script of the page reads them."""
    return json.dumps([asdict(level) for level in found], separators=(",", ":"))


def _show(
    k: int, epsilon: float, counts: Counts, bracket: Sequence[int], own: float
) -> dict[str, str]:
    low, high = map(words.count, bracket)
    whose = "that of this report" if epsilon == own else f"the report has {own:g}"
    return {
        "epsilon": f"{epsilon:g} ({words.degrees(epsilon)} degrees), {whose}",
        "unique": words.count(counts["greedy"]),
        "share": f"{words.percent(counts['greedy'] / k)} of {words.count(k)}",
        "bracket": low if low == high else f"{low} to {high}",
        "n_eff": words.n_eff(counts),
        "components": words.count(counts["components"]),
        "isolated": words.count(counts["isolated"]),
    }
