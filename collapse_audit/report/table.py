"""A report as a compact text table that says what its numbers mean."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from collapse_audit.report import words
from collapse_audit.report.mlcd_cells import MLCD_TITLES, mlcd_headline, mlcd_rows

#: Wider than this is hard to read and breaks in e-mails, issues and logs; narrower does not fit.
WIDEST: Final = 100
NARROWEST: Final = 72

_LABEL = 20
_BAR = "\N{FULL BLOCK}"


def to_table(report: dict[str, Any], *, width: int = WIDEST) -> str:
    """Write a report for a terminal: one block per head.

    Args:
        report: A report that obeys the schema.
        width: Columns to use, brought into [72, 100].

    Returns:
        Text of which no line is longer than ``width``. The bars of the histogram are the only
        characters outside ASCII.
    """
    width = min(max(width, NARROWEST), WIDEST)
    lines = [words.shorten(f"collapse-audit {report['tool']['version']}", width)]
    lines += _row("source", words.shorten(words.source_name(report), width - _LABEL), width)
    if report["source"]["sha256"]:
        lines += _row("sha256", report["source"]["sha256"], width)
    for head in report["heads"]:
        lines += ["", *_head(head, report["parameters"], width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(head: dict[str, Any], parameters: dict[str, Any], width: int) -> Iterator[str]:
    """The block of one head."""
    size = (
        f": K = {words.count(head['k'])} prototypes, D = {words.count(head['d'])}, "
        f"{words.printable(head['dtype'])}"
    )
    yield words.shorten(words.head_name(head), width - len(size)) + size
    yield "-" * width
    yield from textwrap.wrap(words.headline(head), width)
    yield ""
    yield from _counts(head, parameters, width)
    yield ""
    yield from _histogram(head, width)
    if head["sweep"]:
        yield ""
        yield from _sweep(head, parameters["epsilon"])
    if head["nearest_cosine"]:
        yield ""
        yield from _nearest(head)
    if head["mlcd"]:
        yield ""
        yield from _mlcd(head["mlcd"], width)


def _counts(head: dict[str, Any], parameters: dict[str, Any], width: int) -> Iterator[str]:
    """The numbers of one head, one per line, each with what it means."""
    unique, factors, epsilon = head["unique"], head["redundancy_factors"], parameters["epsilon"]
    certified = ", certified" if parameters["certified"] else ""
    rows = [
        (
            "unique, M",
            f"{words.count(unique['greedy'])} at cosine distance < {epsilon:g} "
            f"({words.degrees(epsilon)} degrees); rule: {parameters['rule']} cover{certified}",
        ),
        ("bracket of M", words.bracket(head)),
        *(("published", line) for line in words.published(head)),
        ("isolated", f"{words.plural(unique['isolated'], 'prototype')} without any neighbour"),
        (
            "redundancy factors",
            f"largest {words.count(factors['max'])}, mean {words.number(factors['mean'])} (K / M), "
            f"Gini {words.number(factors['gini'])} (0: all repeated equally)",
        ),
        (
            "effective number",
            f"{words.number(factors['effective_number'])} of {words.count(unique['greedy'])}: "
            "the M of equal redundancy factors with the same entropy",
        ),
        *_extras(head),
    ]
    for label, text in rows:
        yield from _row(label, text, width)


def _extras(head: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a report may hold beyond the counts."""
    if head.get("exact_duplicates") is not None:
        copies = words.plural(head["exact_duplicates"], "prototype")
        yield "exact duplicates", f"{copies} with exactly the direction of an earlier one"
    if norms := head.get("norms"):
        low, median, high = (words.number(norms[key]) for key in ("min", "median", "max"))
        yield (
            "norms",
            f"{low} to {high}, median {median}; in one group they differ by a factor of up to "
            f"{words.number(norms['max_spread_in_group'])}",
        )
    if "mean_direction_norm" in head:
        value = words.number(head["mean_direction_norm"])
        yield "mean direction", f"norm {value} (0: directions cancel out, 1: all the same)"
    if null := head.get("null"):
        pairs = words.number(null["expected_pairs"])
        yield "by chance", f"{pairs} pairs this close are expected among K random directions"


def _histogram(head: dict[str, Any], width: int) -> Iterator[str]:
    """Text histogram of the redundancy factors."""
    rows = words.octaves(head["redundancy_factors"]["histogram"])
    tallest = max((unique for _, unique, _ in rows), default=1)
    room = width - 58
    yield f"{'repeated r times':>19}  {'unique':>9}  {'prototypes':>10}  {'of K':>9}"
    for label, unique, prototypes in rows:
        # at least one block for what is there: a single huge group is the finding
        bar = _BAR * max(round(room * unique / tallest), 1) if unique else ""
        share = words.percent(prototypes / head["k"])
        yield (
            f"{label:>19}  {words.count(unique):>9}  {words.count(prototypes):>10}  {share:>9}  "
            f"{bar}"
        )


def _sweep(head: dict[str, Any], epsilon: float) -> Iterator[str]:
    """M over epsilon, one line each; the row of the report's own epsilon is marked."""
    yield (
        f"{'epsilon':>9}  {'degrees':>7}  {'unique':>9}  {'of K':>8}  {'components':>10}  "
        f"{'isolated':>9}"
    )
    for row in head["sweep"]:
        mark = "  <" if row["epsilon"] == epsilon else ""
        yield (
            f"{row['epsilon']:>9g}  {words.degrees(row['epsilon']):>7}  "
            f"{words.count(row['greedy']):>9}  {words.percent(row['greedy'] / head['k']):>8}  "
            f"{words.count(row['components']):>10}  {words.count(row['isolated']):>9}{mark}"
        )


def _nearest(head: dict[str, Any]) -> Iterator[str]:
    """Quantiles of the cosine to the nearest other prototype, beside those of chance."""
    yield f"{'nearest cosine':<16}" + "".join(f"{title:>8}" for title in words.QUANTILES.values())
    rows = {"  this head": head["nearest_cosine"]}
    if null := (head.get("null") or {}).get("nearest_cosine"):
        rows["  random"] = null
    for label, values in rows.items():
        yield f"{label:<14}" + "".join(
            f"{words.cosine(values.get(key)):>8}" for key in words.QUANTILES
        ).rjust(58)


def _mlcd(mlcd: dict[str, Any], width: int) -> Iterator[str]:
    """The class distribution over the prototypes, beside that over the unique ones."""
    for line in mlcd_headline(mlcd):
        yield from textwrap.wrap(line, width)
    yield ""
    for label, k, m in (MLCD_TITLES, *mlcd_rows(mlcd)):
        yield f"{label:<26}{k:>14}{m:>14}"


def _row(label: str, text: str, width: int) -> list[str]:
    """A label and its text, wrapped under itself."""
    return textwrap.wrap(
        words.printable(text),
        width,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )
