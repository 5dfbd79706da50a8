"""Heads side by side, metric by metric."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from collapse_audit.errors import ParameterError, ReportError
from collapse_audit.gate.metrics import METRICS, Metric
from collapse_audit.gate.pairing import Difference, no_head, pair_heads, refuse_other_mlcd
from collapse_audit.gate.regrouping import Groups, Regrouping, compare_groups
from collapse_audit.gate.subjects import Subject, open_subject
from collapse_audit.report.comparison_text import comparison_to_table
from collapse_audit.report.documents import (
    COMPARISON_SCHEMA,
    SCHEMA_VERSION,
    TOOL,
    ComparisonDocument,
    HeadDocument,
    ReportDocument,
)
from collapse_audit.report.html import comparison_to_html

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.matching import Matching, Method
    from collapse_audit.similarity import Progress

Judgement: TypeAlias = Literal["better", "worse", "same", "changed"]
Among: TypeAlias = Literal["all", "unique"]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of all compared heads."""

    metric: Metric
    values: tuple[int | float | None, ...]  # of A, B, C, ...; ``None`` where it was not measured

    @property
    def deltas(self) -> tuple[int | float | None, ...]:
        """B - A, C - A, ..."""
        first, *others = self.values
        return tuple(None if first is None or value is None else value - first for value in others)

    @property
    def judgements(self) -> tuple[Judgement | None, ...]:
        """Whether B, C, ... are better or worse than A."""
        return tuple(map(self._judge, self.values[1:]))

    def _judge(self, value: int | float | None) -> Judgement | None:
        first, metric = self.values[0], self.metric
        if first is None or value is None:
            return None
        change = Fraction(value) - Fraction(first)
        if abs(change) <= Fraction(metric.tolerance) * max(Fraction(1), abs(Fraction(first))):
            return "same"
        if metric.worse is None:
            return "changed"
        return "worse" if (change > 0) == (metric.worse == "up") else "better"


@dataclass(frozen=True, slots=True)
class HeadComparison:
    """One head in all sources."""

    name: str  # in A
    branch: str | None  # in A
    partners: tuple[str, ...]  # its name in B, C, ...
    rows: tuple[MetricRow, ...]  # the metrics that at least one source measured
    # What became of the groups of A in B, C, ...; ``None`` where K differs or the source is a saved
    # report, which does not hold the groups.
    regroupings: tuple[Regrouping | None, ...]
    # The prototypes of A matched with those of B, C, ...; empty if it was not asked for.
    matchings: tuple[Matching, ...] = ()


@dataclass(frozen=True, slots=True)
class HeadsSideBySide:
    """Result of :func:`compare`.

    Attributes:
        sources: What was compared, A first.
        heads: One entry per head of A.
        among: Which prototypes were matched; ``None`` if none were.
    """

    sources: tuple[str, ...]
    heads: tuple[HeadComparison, ...]
    among: Among | None = None

    def to_dict(self) -> ComparisonDocument:
        """The comparison as ``--format json`` prints it."""
        document: ComparisonDocument = {
            "schema": COMPARISON_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tool": TOOL.copy(),
            "sources": list(self.sources),
            "heads": [
                {
                    "name": head.name,
                    "branch": head.branch,
                    "partners": list(head.partners),
                    "metrics": [
                        {
                            "metric": row.metric.path,
                            "values": list(row.values),
                            "deltas": list(row.deltas),
                            "judgements": list(row.judgements),
                        }
                        for row in head.rows
                    ],
                    "regroupings": [
                        None if found is None else found.to_dict() for found in head.regroupings
                    ],
                }
                for head in self.heads
            ],
        }
        if self.among is not None:
            document["among"] = self.among
            for entry, head in zip(document["heads"], self.heads, strict=True):
                entry["matchings"] = [found.to_dict() for found in head.matchings]
        return document

    def to_html(self) -> str:
        """The comparison as one self-contained HTML page."""
        return comparison_to_html(self.to_dict())

    def __repr__(self) -> str:
        return f"HeadsSideBySide({len(self.sources)} sources, {len(self.heads)} heads)"

    def __str__(self) -> str:
        return comparison_to_table(self.to_dict())


def compare(
    a: Subject,
    b: Subject,
    *more: Subject,
    allow: Collection[Difference] = (),
    pair: Mapping[str, str] | None = None,
    matching: Method | None = None,
    among: Among = "all",
    progress: Progress | None = None,
) -> HeadsSideBySide:
    """Put heads side by side, metric by metric, with the changes from the first.

    Args:
        a: What the others are compared with: a source, a saved report (``.json``), the dictionary
            of one, an audit, or the audits of all heads of one source.
        b: Another.
        *more: Further ones.
        allow: ``"epsilon"``, ``"rule"``, ``"schema"`` or ``"mlcd"``: differences in how the
            reports were made that are no obstacle. K and branch may always differ.
        pair: For names of heads of A the names in the others, where those differ; only these heads
            are compared then. By default heads of equal names are, and the rest in their order.
        matching: ``"optimal"`` or ``"greedy"``: match the prototypes of A with those of the others,
            as :func:`match_prototypes` does. A saved report does not hold them. By default none
            are matched.
        among: What is matched: ``"all"`` prototypes, or the ``"unique"`` ones, one for each group
            of duplicates, which have the numbers of the groups.
        progress: Called with (stage, done, total) while it matches.

    Returns:
        One entry per compared head of A. Where both sides are audits and K is equal, also which
        groups of duplicates of A were split or merged.

    Raises:
        ReportError: If the reports were made in different ways or do not hold the same heads, or
            a name in ``pair`` is of none.
        ParameterError: If prototypes that are to be matched are not at hand, or cannot be.

    Example:
        >>> from collapse_audit import audit
        >>> import numpy as np
        >>> compare(audit(np.eye(4)[[0, 0, 1, 2]]), audit(np.eye(4))).heads[0].regroupings[0].splits
        ((0, (1, 1)),)
    """  # noqa: DOC501  (no_head makes one)
    sides = [_side(side, allow) for side in (a, b, *more)]
    first, others = sides[0], sides[1:]
    held = {head["name"]: "" for other in others for head in other.report["heads"]}
    if mistyped := [partner for partner in (pair or {}).values() if partner not in held]:
        where = ", ".join(other.report["source"]["spec"] for other in others)
        raise no_head(mistyped[0], where, held)
    allowed = ("k", "branch", *allow)
    paired = [pair_heads(first.report, other.report, allowed, pair or {}) for other in others]
    heads = []
    for pairs in zip(*paired, strict=True):
        head, partners = pairs[0][0], [other for _, other in pairs]
        row = [head, *partners]
        for other in partners:
            if head.get("mlcd") and other.get("mlcd"):
                refuse_other_mlcd(head, other, allowed)
        audits = [side.audits.get(_key(entry)) for side, entry in zip(sides, row, strict=True)]
        groups = [None if audit is None else audit.groups for audit in audits]
        heads.append(
            HeadComparison(
                name=head["name"],
                branch=head["branch"],
                partners=tuple(other["name"] for other in partners),
                rows=tuple(_rows(row)),
                regroupings=tuple(_regroup(groups[0], other) for other in groups[1:]),
                matchings=() if matching is None else _matchings(audits, matching, among, progress),
            )
        )
    sources = tuple(side.report["source"]["spec"] for side in sides)
    return HeadsSideBySide(sources, tuple(heads), None if matching is None else among)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """A report, and the audits of its heads where they are at hand."""

    report: ReportDocument
    audits: Mapping[tuple[str, str | None], CollapseAudit]


def _side(given: Subject, allow: Collection[Difference]) -> _Side:
    audits = open_subject(given, allow)
    if isinstance(audits, dict):
        return _Side(audits, {})
    from collapse_audit.head_audit import build_report

    report = build_report(audits)
    heads = zip(report["heads"], audits, strict=True)
    return _Side(report, {_key(head): audit for head, audit in heads})


def _key(head: HeadDocument) -> tuple[str, str | None]:
    return head["name"], head["branch"]


def _rows(heads: Sequence[HeadDocument]) -> Iterator[MetricRow]:
    """Every metric that some head has."""
    for metric in METRICS.values():
        values = tuple(_value(metric, head) for head in heads)
        if any(value is not None for value in values):
            yield MetricRow(metric, values)


def _value(metric: Metric, head: HeadDocument) -> int | float | None:
    try:
        return metric.read(head, "the report")
    except ReportError:
        return None


def _matchings(
    audits: Sequence[CollapseAudit | None],
    matching: Method,
    among: Among,
    progress: Progress | None,
) -> tuple[Matching, ...]:
    """The prototypes of the first audit matched with those of each of the others."""
    from collapse_audit.matching import match_prototypes
    from collapse_audit.similarity import silent

    if among not in get_args(Among):
        raise ParameterError(f"among must be all or unique, got {among!r}.")
    sets = []
    for audit in audits:
        if audit is None:
            raise ParameterError(
                "a saved report does not hold the prototypes, so they cannot be matched.",
                hint="Give the checkpoint it was made of.",
            )
        sets.append(audit.prototypes if among == "all" else audit.unique_prototypes)
    return tuple(
        match_prototypes(sets[0], other, matching=matching, progress=progress or silent)
        for other in sets[1:]
    )


def _regroup(a: Groups | None, b: Groups | None) -> Regrouping | None:
    if a is None or b is None or len(a) != len(b):
        return None
    return compare_groups(a, b)
