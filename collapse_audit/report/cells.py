"""The cells of the tables in every format: plain text, escaped by whoever writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from collapse_audit.report import words
from collapse_audit.report.documents import HeadDocument, Parameters, ReportDocument

HISTOGRAM_TITLES: Final = ("repeated r times", "unique", "prototypes", "of K")


def nearest_titles(head: HeadDocument) -> tuple[str, ...]:
    """Titles of :func:`nearest_rows`."""
    what = "nearest distance" if "radius" in head else "nearest cosine"
    return what, *words.QUANTILES.values()


def sweep_titles(head: HeadDocument) -> tuple[str, ...]:
    """Titles of :func:`sweep_rows`."""
    level = ("radius", "times") if "radius" in head else ("epsilon", "degrees")
    return *level, "unique", "of K", "N_eff", "components", "isolated"


def measures(head: HeadDocument, parameters: Parameters) -> Iterator[tuple[str, str]]:
    """Name (at most 18 characters) and value of every scalar of one head, with what it means."""
    unique, factors, epsilon = head["unique"], head["redundancy_factors"], parameters["epsilon"]
    if epsilon is None:
        at = f"at Euclidean distance < {head['radius']:g}"
    else:
        at = f"at cosine distance < {epsilon:g} ({words.degrees(epsilon)} degrees)"
    certified = ", certified" if parameters["certified"] else ""
    yield (
        "unique, M",
        f"{words.count(unique['greedy'])} {at}; rule: {parameters['rule']} cover{certified}",
    )
    if dead := head.get("dead"):
        live = dead["live"]
        yield (
            "dead rows",
            f"{words.count(dead['count'])}, of norms up to {words.number(dead['largest_norm'])}; "
            f"M of the {words.count(live['k'])} live rows alone: {words.count(live['unique'])} "
            f"({words.percent(live['unique_fraction'])})",
        )
    yield "bracket of M", words.bracket(head)
    if (effective := words.n_eff(unique)) != "-":
        yield "effective, N_eff", f"{effective}: the sum of 1 / n_i, with n_i prototypes this close"
    for line in words.published(head):
        yield "published", line
    yield "isolated", f"{words.plural(unique['isolated'], 'prototype')} without a duplicate"
    yield (
        "redundancy factors",
        f"largest {words.count(factors['max'])}, mean {words.number(factors['mean'])} (K / M), "
        f"Gini {words.number(factors['gini'])} (0: all repeated equally often)",
    )
    yield (
        "effective groups",
        f"{words.number(factors['effective_number'])} of {words.count(unique['greedy'])}: "
        "the number of equally large groups that would be as diverse",
    )
    if (copies := head.get("exact_duplicates")) is not None:
        same = "that equal" if epsilon is None else "with exactly the direction of"
        text = f"{words.plural(copies, 'prototype')} {same} an earlier one"
        yield "exact duplicates", text
    if norms := head.get("norms"):
        low, median, high = (words.number(norms[key]) for key in ("min", "median", "max"))
        yield (
            "norms",
            f"{low} to {high}, median {median}; within a group they differ by a factor of up to "
            f"{words.number(norms['max_spread_in_group'])}",
        )
    yield from _stored_usage(head)
    if "mean_direction_norm" in head:
        value = words.number(head["mean_direction_norm"])
        yield "mean direction", f"norm {value} (0: directions cancel out, 1: all the same)"
    if null := head.get("null"):
        pairs = words.number(null["expected_pairs"])
        yield "by chance", f"{pairs} pairs this close are expected among K random directions"


def _stored_usage(head: HeadDocument) -> Iterator[tuple[str, str]]:
    if (usage := head.get("stored_usage")) is None:
        return
    k, m = usage["k"], usage["m"]
    of_mean = f"below {words.percent(usage['dead_below'])} of the mean usage"
    yield (
        "usage in the file",
        f"perplexity {words.number(k['perplexity'])} of {words.count(head['k'])}; "
        f"{words.count(int(k['used']))} used, {words.count(int(k['dead']))} dead ({of_mean})",
    )
    yield (
        "usage of unique",
        f"perplexity {words.number(m['perplexity'])} of {words.count(head['unique']['greedy'])}; "
        f"{words.count(int(m['used']))} used, {words.count(int(m['dead']))} dead",
    )


def heads_titles(report: ReportDocument) -> tuple[str, ...]:
    """What is over :func:`heads_rows`."""
    summary = report.get("summary")
    titles = ("head", "K", "unique", "of K", "perplexity", "dead")
    return titles if summary and summary["stored_usage"] else titles[:4]


def heads_rows(report: ReportDocument, longest: int = 60) -> Iterator[tuple[str, ...]]:
    """One row for each of several heads, names of at most so many characters, and one for all."""
    if (summary := report.get("summary")) is None:
        return
    columns = len(heads_titles(report))
    for head in report["heads"]:
        usage = head.get("stored_usage")
        row = (
            words.shorten(words.head_name(head["name"], head["branch"]), longest),
            words.count(head["k"]),
            words.count(head["unique"]["greedy"]),
            words.percent(head["unique_fraction"]),
            words.number(usage["k"]["perplexity"]) if usage else "-",
            words.count(int(usage["k"]["dead"])) if usage else "-",
        )
        yield row[:columns]
    total = summary["stored_usage"]
    row = (
        f"all {words.count(summary['heads'])}",
        words.count(summary["k"]),
        words.count(summary["m"]),
        words.percent(summary["unique_fraction"]),
        "",
        words.count(total["dead"]) if total else "",
    )
    yield row[:columns]


def stored(head: HeadDocument) -> Iterator[tuple[str, str]]:
    """Name and value of how one head is stored, where no line above the table tells it."""
    yield "prototypes, K x D", f"{words.count(head['k'])} x {words.count(head['d'])}"
    keys = ", ".join(words.shorten(key, 300) for key in head["tensor_keys"][:9]) or "no key"
    yield "stored as", f"{words.shorten(head['dtype'], 40)}, {keys}"


def provenance(report: ReportDocument) -> Iterator[tuple[str, str]]:
    """What somebody needs who wants to measure the same again."""
    source, parameters = report["source"], report["parameters"]
    yield "source", words.shorten(source["spec"], 300)
    for name in ("id", "family", "sha256"):
        if value := source[name]:
            yield name, words.shorten(value, 300)
    for head in report["heads"]:
        for key, digest in (head.get("tensor_sha256") or {}).items():
            yield f"sha256 of {words.shorten(key, 100)}", words.shorten(digest, 100)
    yield "threshold", words.threshold(parameters)
    certified = ", certified" if parameters["certified"] else ""
    yield "rule", f"{parameters['rule']} cover{certified}"
    yield "collapse-audit", words.shorten(report["tool"]["version"], 100)


def histogram_rows(head: HeadDocument) -> Iterator[tuple[str, ...]]:
    """Redundancy factors by octave, under :data:`HISTOGRAM_TITLES`."""
    for label, unique, prototypes in words.octaves(head["redundancy_factors"]["histogram"]):
        share = words.percent(prototypes / head["k"])
        yield label, words.count(unique), words.count(prototypes), share


def sweep_rows(head: HeadDocument) -> Iterator[tuple[str, ...]]:
    """Cells of the sweep, one row per threshold, under :func:`sweep_titles`."""
    for row in head["sweep"]:
        level = words.level(row)
        yield (
            f"{level:g}",
            f"{level / head['radius']:g}" if "radius" in head else words.degrees(level),
            words.count(row["greedy"]),
            words.percent(row["greedy"] / head["k"]),
            words.n_eff(row),
            words.count(row["components"]),
            words.count(row["isolated"]),
        )


def nearest_rows(head: HeadDocument) -> Iterator[tuple[str, ...]]:
    """Cells under :func:`nearest_titles`; random directions too where the report has them."""
    if distances := head.get("nearest_distance"):
        yield "this head", *(words.number(distances[key]) for key in words.QUANTILES)
    null = head.get("null")
    rows: dict[str, Mapping[str, Any] | None] = {
        "this head": head["nearest_cosine"],
        "random directions": null and null.get("nearest_cosine"),
    }
    for label, values in rows.items():
        if values:
            yield (label, *(words.cosine(values.get(key)) for key in words.QUANTILES))
