"""A run over time: cells for every format, the table with its sparkline, and CSV."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from collapse_audit.report import words
from collapse_audit.report.columns import text_columns
from collapse_audit.report.csv_text import flat_row, rows_to_csv
from collapse_audit.report.documents import (
    REPORT_SCHEMA,
    HeadHistoryDocument,
    HistoryDocument,
    ReportDocument,
)
from collapse_audit.report.table import WIDEST

POINT_TITLES: Final = ("checkpoint", "K", "M", "of K", "any scan order", "N_eff",
                       "components", "largest r", "nearest cosine", "")  # fmt: skip
MERGE_TITLES: Final = ("between", "and", "merges", "prototypes", "largest: size, parts, indices")
_LAYOUT: Final = "> > > > > > > > > <"
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_SHOWN: Final = 4  # parts and indices of a merge


def history_to_table(history: HistoryDocument, *, width: int = WIDEST) -> str:
    """Write a history for a terminal: of each head its course, its points and what merged."""
    lines = [f"{words.shorten(history['source'], width - 20)}: {counts(history)}"]
    for head in history["heads"]:
        lines += ["", words.head_name(head["name"], head["branch"]), "-" * width]
        lines += [f"M / K  {sparkline(fractions(head), width - 8)}", ""]
        lines += textwrap.wrap(course(history, head), width)
        lines += [line for note in head["notes"] for line in textwrap.wrap(f"Note: {note}.", width)]
        lines += ["", *text_columns(POINT_TITLES, point_rows(head), _LAYOUT)]
        if rows := list(merge_rows(head)):
            rows = [(*row[:4], words.shorten(row[4], 60)) for row in rows]
            lines += ["", *text_columns(MERGE_TITLES, rows, "> > > > <")]
    for problem in history["problems"]:
        text = f"skipped: {problem['message']}"
        lines += ["", *textwrap.wrap(text, width, subsequent_indent="    ")]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def history_to_csv(history: HistoryDocument) -> str:
    """One row for each head of each checkpoint, in full precision."""
    base: ReportDocument = {
        "schema": REPORT_SCHEMA,
        "schema_version": history["schema_version"],
        "tool": history["tool"],
        "source": {"spec": history["source"], "id": None, "family": None, "sha256": None},
        "parameters": history["parameters"],
        "heads": [],
    }
    rows = [
        {"file": point["file"], "number": point["number"], "unit": point["unit"]}
        | flat_row(base, point["head"])
        for head in history["heads"]
        for point in head["points"]
    ]
    return rows_to_csv(rows) if rows else ""


def course(history: HistoryDocument, head: HeadHistoryDocument) -> str:
    """How M went, and where the collapse began, with the rule."""
    first, last = (head["points"][at]["head"] for at in (0, -1))
    text = " to ".join(
        f"{words.count(h['unique']['greedy'])} of {words.count(h['k'])} "
        f"({words.percent(h['unique_fraction'])})"
        for h in (first, last)
    )
    low = f"{history['onset_share']:g} times its largest"
    if head["onset"] is not None:
        label = next(point["label"] for point in head["points"] if point["file"] == head["onset"])
        label = words.shorten(label, 60)
        end = f"The collapse began at {label}: M / K falls below {low} so far and stays there."
    else:
        end = f"No onset: M / K does not end below {low}."
        if first["unique_fraction"] < history["onset_share"]:
            end += " But it is low from the first checkpoint on."
    return f"M: {text}. {end}"


def sparkline(fractions: list[float], width: int) -> str:
    """Numbers from 0 to 1 as a line of blocks; of more than ``width`` evenly chosen ones."""
    step = max(1, -(-len(fractions) // width))
    return "".join(_SPARKS[min(7, int(8 * value))] for value in fractions[::-1][::step][::-1])


def point_rows(head: HeadHistoryDocument) -> Iterator[tuple[str, ...]]:
    """One row of cells for each checkpoint, under :data:`POINT_TITLES`; the onset is marked."""
    places = _places(head)
    for point in head["points"]:
        found = point["head"]
        unique, nearest = found["unique"], found["nearest_cosine"] or {}
        yield (
            places[point["file"]],
            words.count(found["k"]),
            words.count(unique["greedy"]),
            words.percent(found["unique_fraction"]),
            " to ".join(map(words.count, dict.fromkeys(unique.get("bracket", ())))),
            words.n_eff(unique),
            words.count(unique["components"]),
            words.count(found["redundancy_factors"]["max"]),
            words.cosine(nearest.get("median")),
            "onset" if point["file"] == head["onset"] else "",
        )


def merge_rows(head: HeadHistoryDocument) -> Iterator[tuple[str, ...]]:
    """One row of cells for neighbours between which prototypes merged; the largest merge."""
    places = _places(head)
    for found in head["merges"]:
        largest = found["largest"][0]
        parts, indices = (
            ", ".join(map(str, values[:_SHOWN])) + (", ..." if number > _SHOWN else "")
            for values, number in (
                (largest["parts"], largest["groups"]),
                (largest["prototypes"], largest["size"]),
            )
        )
        yield (
            places[found["before"]],
            places[found["after"]],
            words.count(found["merges"]),
            words.count(found["prototypes"]),
            f"{words.count(largest['size'])} from {words.count(largest['groups'])} groups "
            f"({parts}): {indices}",
        )


def counts(history: HistoryDocument) -> str:
    """How much was audited, such as ``40 checkpoints, epsilon 0.025``."""
    skipped = f", {len(history['problems'])} skipped" if history["problems"] else ""
    number = words.plural(history["checkpoints"], "checkpoint")
    return f"{number}{skipped}, {words.threshold(history['parameters'])}"


def fractions(head: HeadHistoryDocument) -> list[float]:
    """M / K at each checkpoint."""
    return [point["head"]["unique_fraction"] for point in head["points"]]


def _places(head: HeadHistoryDocument) -> dict[str, str]:
    """The number of each checkpoint by its file, or what stands for it."""
    return {
        point["file"]: words.shorten(
            point["file"] if point["number"] is None else point["number"], 24
        )
        for point in head["points"]
    }
