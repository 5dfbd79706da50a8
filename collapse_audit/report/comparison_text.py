"""Heads side by side as a table, as Markdown and as CSV."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from collapse_audit.report.columns import escape, pipe_table, text_columns
from collapse_audit.report.csv_text import rows_to_csv
from collapse_audit.report.documents import ComparedHead, ComparisonDocument, MatchingDocument
from collapse_audit.report.table import WIDEST
from collapse_audit.report.verdict_text import figure
from collapse_audit.report.words import cosine, count, head_name, percent, plural, shorten
from collapse_audit.words import printable

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def comparison_to_table(comparison: ComparisonDocument, *, width: int = WIDEST) -> str:
    """Write a comparison for a terminal: side by side as many sources as its width holds."""
    lines = [
        f"{letter}  {shorten(name, width - 5)}" for letter, name in labelled_sources(comparison)
    ]
    for head in comparison["heads"]:
        lines += ["", shorten(head_title(head), width)]
        for number, part in enumerate(
            _parts([metric_titles(comparison), *metric_rows(head)], width)
        ):
            lines += [*([""] if number else []), *part]
        for text in remarks(head, comparison):
            lines += textwrap.wrap(text, width, subsequent_indent="    ")
    return "\n".join(lines) + "\n"


def _parts(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The table in parts within a width; each repeats the metric and the first source."""
    others = (len(rows[0]) - 2) // 3
    for number in range(others, 0, -1):
        ranges = [slice(2 + 3 * at, 2 + 3 * (at + number)) for at in range(0, others, number)]
        parts = [text_columns((), [[*row[:2], *row[chosen]] for row in rows]) for chosen in ranges]
        if max(len(line) for part in parts for line in part) <= width:
            break
    return parts


def comparison_to_markdown(comparison: ComparisonDocument) -> str:
    """Write a comparison as GitHub-flavoured Markdown, one section per head."""
    lines = ["# Heads side by side", ""]
    lines += [f"- {letter}: {escape(source)}" for letter, source in labelled_sources(comparison)]
    for head in comparison["heads"]:
        lines += ["", f"## {escape(head_title(head))}", ""]
        lines += pipe_table(metric_titles(comparison), metric_rows(head))
        lines += [line for text in remarks(head, comparison) for line in ("", escape(text))]
    return "\n".join(lines) + "\n"


def comparison_to_csv(comparison: ComparisonDocument) -> str:
    """Write a comparison as CSV: one row per head, metric and source, in full precision."""
    # the first source has neither delta nor judgement
    columns = ("head", "branch", "metric", "source", "value", "delta", "judgement")
    rows = []
    for head in comparison["heads"]:
        for row in head["metrics"]:
            name = (head["name"], head["branch"], row["metric"])
            deltas, judgements = [None, *row["deltas"]], [None, *row["judgements"]]
            cells = zip(comparison["sources"], row["values"], deltas, judgements, strict=True)
            rows += [dict(zip(columns, (*name, *cell), strict=True)) for cell in cells]
        matchings = head.get("matchings", [])
        for source, found in zip(comparison["sources"][1:], matchings, strict=bool(matchings)):
            from_a, to_a = found["mean_max_cosine"]
            numbers = {"from_a": from_a, "to_a": to_a, "pw_mcc": found["pw_mcc"]}
            for metric, value in numbers.items():
                matched = (head["name"], head["branch"], f"matching.{metric}", source, value)
                rows.append(dict(zip(columns, (*matched, None, None), strict=True)))
    return rows_to_csv(rows)


def _labels(number: int) -> list[str]:
    """A, B, C, ..., Z, #27, #28, ..."""
    return [_LETTERS[i] if i < len(_LETTERS) else f"#{i + 1}" for i in range(number)]


def labelled_sources(comparison: ComparisonDocument) -> Iterator[tuple[str, str]]:
    """A, B, ... and the source that each stands for."""
    sources = [shorten(source, 300) for source in comparison["sources"]]
    return zip(_labels(len(sources)), sources, strict=True)


def head_title(head: ComparedHead) -> str:
    """Its name, and the names in the others where one differs, such as ``head (B: proj)``."""
    named = zip(_labels(1 + len(head["partners"]))[1:], head["partners"], strict=True)
    others = ", ".join(f"{letter}: {printable(name, None)}" for letter, name in named)
    own = head_name(head["name"], head["branch"])
    return own if {*head["partners"]} == {head["name"]} else f"{own} ({others})"


def metric_titles(comparison: ComparisonDocument) -> tuple[str, ...]:
    """What is over :func:`metric_rows`."""
    first, *others = _labels(len(comparison["sources"]))
    return ("metric", first, *(title for x in others for title in (x, f"{x} - {first}", "")))


def metric_rows(head: ComparedHead) -> Iterator[tuple[str, ...]]:
    """One row for each metric: of A, and of each other its value, change and judgement."""
    for row in head["metrics"]:
        first, *others = row["values"]
        cells = [row["metric"], figure(first)]
        for value, delta, verdict in zip(others, row["deltas"], row["judgements"], strict=True):
            sign = "+" if delta is not None and delta > 0 else ""
            cells += [figure(value), sign + figure(delta), verdict or ""]
        yield tuple(cells)


def unique_shares(head: ComparedHead) -> list[tuple[str, float, str]]:
    """Letter, M / K and judgement (empty for the first) of every source; empty if none has it."""
    for row in head["metrics"]:
        if row["metric"] == "unique_fraction":
            found = zip(_labels(len(row["values"])), row["values"], [None, *row["judgements"]],
                        strict=True)  # fmt: skip
            return [(name, share, said or "") for name, share, said in found if share is not None]
    return []


def course(shares: Sequence[tuple[str, float, str]]) -> str:
    """What to remember of such shares, in a sentence."""
    told = (
        f"{percent(share)} in {name}{f' ({said})' if said else ''}" for name, share, said in shares
    )
    return f"Unique prototypes: {', '.join(told)}."


def remarks(head: ComparedHead, comparison: ComparisonDocument) -> Iterator[str]:
    """What is said below the table of a head."""
    yield from _regroupings(head)
    what = "Unique prototypes" if comparison.get("among") == "unique" else "Prototypes"
    matchings = head.get("matchings", [])
    for letter, found in zip(_labels(1 + len(matchings))[1:], matchings, strict=True):
        yield f"{what} of {_matching(letter, found)}"


def _matching(letter: str, found: MatchingDocument) -> str:
    """How the prototypes of A match those of another."""
    k, nearest, random = found["k"], found["mean_max_cosine"], found["random_max_cosine"]
    text = (
        f"A ({count(k[0])}) and {letter} ({count(k[1])}): mean cosine to the nearest in {letter} "
        f"{cosine(nearest[0])}, in A {cosine(nearest[1])}; of random directions "
        f"{cosine(random[0])} and {cosine(random[1])}."
    )
    pairs = found["pair_cosine"]
    if pairs is None:
        return text
    return (
        f"{text} PW-MCC {cosine(found['pw_mcc'])} over {plural(min(k), 'pair')} "
        f"(cosines {cosine(pairs['min'])} to {cosine(pairs['max'])}, median "
        f"{cosine(pairs['median'])}); without a partner: {count(k[0] - min(k))} of A, "
        f"{count(k[1] - min(k))} of {letter}."
    )


def _regroupings(head: ComparedHead) -> Iterator[str]:
    others = _labels(1 + len(head["regroupings"]))[1:]
    for letter, found in zip(others, head["regroupings"], strict=True):
        if found is None:
            continue
        yield (
            f"Groups of A in {letter}: {count(found['unchanged'])} unchanged, "
            f"{count(found['split'])} split, {count(found['merged'])} groups of "
            f"{letter} merged from several; {plural(found['pairs']['kept'], 'pair')} of "
            f"duplicates kept, {count(found['pairs']['parted'])} parted, "
            f"{count(found['pairs']['joined'])} joined."
        )
        for verb, groups in (("split", found["splits"]), ("merged", found["merges"])):
            for change in groups[:3]:
                owner = "A" if verb == "split" else letter
                parts = ", ".join(map(count, change["parts"][:8]))
                more = ", ..." if len(change["parts"]) > 8 else ""
                side = "into" if verb == "split" else "from"
                yield f"  group {change['group']} of {owner}: {verb} {side} {parts}{more}"
