"""Numbers and names as a reader wants them, shared by every format."""

from __future__ import annotations

import math
from typing import Final

from collapse_audit.report.documents import (
    FeaturesReport,
    HeadDocument,
    Level,
    NEffDocument,
    Parameters,
    ReportDocument,
)
from collapse_audit.report.gallery_documents import GalleryDocument
from collapse_audit.words import printable

_LONGEST: Final = 300  # characters of a name; its key in the JSON is whole
#: Quantiles of the nearest cosine: key in the report, column title.
QUANTILES: Final = {
    "min": "min",
    "q01": "1 %",
    "q05": "5 %",
    "median": "median",
    "q95": "95 %",
    "q99": "99 %",
    "max": "max",
}


def count(value: int) -> str:
    """Integer with thousands separated, such as ``65,536``."""
    return f"{value:,}"


def number(value: float | None) -> str:
    """Real number to three significant digits; a dash where there is none."""
    if value is None:
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = 3 - 1 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:,.{min(max(digits, 0), 6)}f}"
    return f"{value:.2e}"


def n_eff(counts: NEffDocument) -> str:
    """Effective number, such as ``91.4``, or ``~91.4`` where it was estimated; a dash if absent."""
    if "n_eff" not in counts:
        return "-"
    return ("~" if counts.get("n_eff_interval") else "") + number(counts["n_eff"])


def cosine(value: float | None) -> str:
    """Cosine to four decimals, and never ``1.0000`` where it is not exactly one."""
    # A prototype at 0.99999 is a near copy, one at 1 is a copy: rounding must not blur the two.
    if value is None:
        return "-"
    text = f"{value:.4f}"
    return "<1.0000" if text == "1.0000" and value < 1 else text


def plural(value: int, noun: str) -> str:
    """Count and noun, such as ``1 prototype`` or ``61 prototypes``."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def percent(fraction: float) -> str:
    """Share (0 to 1) in per cent, one decimal, that never rounds to nothing or to everything."""
    if 0 < fraction < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= fraction < 1:
        return "> 99.9 %"
    return f"{100 * fraction:.1f} %"


def degrees(epsilon: float) -> str:
    """Angle at which a cosine distance of epsilon is reached, in degrees."""
    return f"{math.degrees(math.acos(1 - epsilon)):.1f}"


def threshold(parameters: Parameters) -> str:
    """What the counts were made with, such as ``epsilon 0.025``."""
    if (epsilon := parameters["epsilon"]) is not None:
        return f"epsilon {epsilon:g}"
    radius = parameters.get("radius")
    return "a radius for each head" if radius is None else f"radius {radius:g}"


def level(row: Level) -> float:
    """The epsilon or the radius of one level of a sweep."""
    return row["radius"] if "radius" in row else row["epsilon"]


def shorten(text: object, width: int) -> str:
    """At most `width` characters, the middle left out: both ends of a path or key tell most."""
    line = printable(text, None)
    if len(line) <= width:
        return line
    tail = (width - 3) // 2
    return f"{line[: width - 3 - tail]}...{line[-tail:] if tail else ''}"


def source_name(report: ReportDocument | FeaturesReport | GalleryDocument) -> str:
    """What was audited: the source as typed, and its manifest id and family where known."""
    source = report["source"]
    typed = source["spec"]
    known = [name for name in (source["id"], source["family"]) if name not in (None, typed)]
    return shorten(f"{typed} ({', '.join(map(str, known))})" if known else typed, _LONGEST)


def head_name(name: str, branch: str | None) -> str:
    """Name of a head and its branch, such as ``head, teacher``."""
    return shorten(", ".join(filter(None, (name, branch))), _LONGEST)


def notes(head: HeadDocument) -> str:
    """What a reader should know of how the head was read; empty if there is nothing."""
    return printable(" ".join(f"{note.rstrip('.')}." for note in head.get("notes", ())), 10_000)


def summary(report: ReportDocument) -> str:
    """What several heads come to, under the table of all of them; empty for a single one."""
    if (found := report.get("summary")) is None:
        return ""
    least, median = percent(found["unique_fraction_min"]), percent(found["unique_fraction_median"])
    name = shorten(found["least_unique"], 60)
    text = f"Unique prototypes: {least} in the worst head ({name}), {median} in the median head."
    if usage := found["stored_usage"]:
        least, median = number(usage["perplexity_min"]), number(usage["perplexity_median"])
        text += (
            f" Perplexity of the usage in the file: {least} in the worst, {median} in the median;"
        )
        text += f" {number(usage['bits'])} of {number(usage['bits_of_k'])} bits in all."
    return text


def headline(head: HeadDocument) -> str:
    """The one sentence to remember of a head."""
    m, k = head["unique"]["greedy"], head["k"]
    if m == k:
        return f"All {count(k)} prototypes are unique."
    what = "different point" if "radius" in head else "different direction"
    return (
        f"{percent(head['unique_fraction'])} of the prototypes are unique: "
        f"{count(k)} prototypes, {plural(m, what)}."
    )


def bracket(head: HeadDocument) -> str:
    """How far M depends on the scan order and the counting rule."""
    unique = head["unique"]
    if unique.get("definition_independent"):
        return f"M = {count(unique['greedy'])} under every counting rule and in every order"
    components, greedy = count(unique["components"]), count(unique["greedy"])
    if "bracket" not in unique:  # a report of an earlier version
        return f"{components} (components) <= smallest cover <= {greedy} (greedy cover)"
    low, high = (count(bound) for bound in unique["bracket"])
    text = f"M = {low} in every scan order" if low == high else f"{low} to {high} in any scan order"
    if order := unique.get("order_range"):
        text += f", {count(order[0])} to {count(order[1])} in those tried"
    return f"{text}; {components} components (single linkage)"


def published(head: HeadDocument) -> list[str]:
    """Published counts, each with its source and how far ours is from it."""
    first = head["published"]
    if first is None:
        return []
    m = head["unique"]["greedy"]
    lines = []
    for value in (first, *first.get("others", ())):
        gap = m - value["unique"]
        ours = "the same as ours" if gap == 0 else f"ours is {gap:+,}"
        source = shorten(value["source"] or "source unknown", _LONGEST)
        lines.append(f"{count(value['unique'])} ({ours}), {source}")
    return lines


def octaves(histogram: list[list[int]]) -> list[tuple[str, int, int]]:
    """Histogram of [r, unique prototypes] over 1, 2-3, 4-7, ...: (range, unique, prototypes)."""
    # octaves in between that hold nothing are kept, because a gap is information
    unique: dict[int, int] = {}
    total: dict[int, int] = {}
    for factor, how_many in histogram:
        octave = factor.bit_length() - 1
        unique[octave] = unique.get(octave, 0) + how_many
        total[octave] = total.get(octave, 0) + factor * how_many
    rows = []
    for octave in range(max(unique, default=-1) + 1):
        low, high = 1 << octave, (2 << octave) - 1
        label = count(low) if low == high else f"{count(low)}-{count(high)}"
        rows.append((label, unique.get(octave, 0), total.get(octave, 0)))
    return rows
