"""The cells of the tables in Markdown and HTML: plain text, escaped by whoever writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from collapse_audit.report import words
from collapse_audit.report.documents import HeadDocument

NEAREST_TITLES: Final = ("nearest cosine", *words.QUANTILES.values())
HISTOGRAM_TITLES: Final = ("repeated r times", "unique", "prototypes", "of K")
SWEEP_TITLES: Final = ("epsilon", "degrees", "unique", "of K", "components", "isolated")


def measures(head: HeadDocument, epsilon: float) -> Iterator[tuple[str, str]]:
    """Name and value of every scalar of one head.

    Args:
        head: One entry of the report's ``heads``.
        epsilon: The threshold of the report.

    Yields:
        Pairs of text.
    """
    unique, factors = head["unique"], head["redundancy_factors"]
    yield "prototypes, K x D", f"{words.count(head['k'])} x {words.count(head['d'])}"
    yield "stored as", f"{head['dtype']}, {', '.join(head['tensor_keys']) or 'no key'}"
    yield (
        f"unique, M (cosine distance < {epsilon:g}, {words.degrees(epsilon)} degrees)",
        f"{words.count(unique['greedy'])} ({words.percent(head['unique_fraction'])})",
    )
    yield "bracket of M", words.bracket(head)
    for line in words.published(head):
        yield "published", line
    yield "isolated (no neighbour at all)", words.count(unique["isolated"])
    yield "largest redundancy factor", words.count(factors["max"])
    yield "mean redundancy factor, K / M", words.number(factors["mean"])
    yield "Gini of the redundancy factors", words.number(factors["gini"])
    yield "effective number", words.number(factors["effective_number"])
    if (copies := head.get("exact_duplicates")) is not None:
        yield "exact duplicates", words.count(copies)
    if norms := head.get("norms"):
        low, median, high = (words.number(norms[key]) for key in ("min", "median", "max"))
        yield "norms, min / median / max", f"{low} / {median} / {high}"
        yield (
            "largest factor between norms of one group",
            words.number(norms["max_spread_in_group"]),
        )
    if "mean_direction_norm" in head:
        yield "norm of the mean direction", words.number(head["mean_direction_norm"])
    if null := head.get("null"):
        yield "pairs this close by chance", words.number(null["expected_pairs"])


def histogram_rows(head: HeadDocument) -> Iterator[tuple[str, ...]]:
    """Redundancy factors by octave, under :data:`HISTOGRAM_TITLES`."""
    for label, unique, prototypes in words.octaves(head["redundancy_factors"]["histogram"]):
        share = words.percent(prototypes / head["k"])
        yield label, words.count(unique), words.count(prototypes), share


def sweep_rows(head: HeadDocument) -> Iterator[tuple[str, ...]]:
    """Cells of the sweep, one row per epsilon, under :data:`SWEEP_TITLES`."""
    for row in head["sweep"]:
        yield (
            f"{row['epsilon']:g}",
            words.degrees(row["epsilon"]),
            words.count(row["greedy"]),
            words.percent(row["greedy"] / head["k"]),
            words.count(row["components"]),
            words.count(row["isolated"]),
        )


def nearest_rows(head: HeadDocument) -> Iterator[tuple[str, ...]]:
    """Cells under :data:`NEAREST_TITLES`; random directions too where the report has them."""
    null = head.get("null")
    rows: dict[str, Mapping[str, Any] | None] = {
        "this head": head["nearest_cosine"],
        "random directions": null and null.get("nearest_cosine"),
    }
    for label, values in rows.items():
        if values:
            yield (label, *(words.cosine(values.get(key)) for key in words.QUANTILES))
