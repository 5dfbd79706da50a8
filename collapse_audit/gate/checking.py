"""Apply thresholds to a report."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from collapse_audit.errors import ParameterError
from collapse_audit.gate.pairing import Difference, pair_heads, refuse_other_mlcd
from collapse_audit.gate.subjects import Subject, document_of, open_subject
from collapse_audit.gate.thresholds import Change, Threshold, parse_threshold
from collapse_audit.gate.verdict import Check, Verdict
from collapse_audit.report.documents import HeadDocument

if TYPE_CHECKING:
    from collapse_audit.history import HeadHistory, RunHistory

#: Without thresholds of its own, a head must not be worse than its baseline at all.
DEFAULT_THRESHOLDS = ("unique.greedy:-0", "redundancy_factors.max:+0")


def check(
    report: Subject,
    baseline: Subject | None = None,
    thresholds: Iterable[str | Threshold] = (),
    *,
    allow: Collection[Difference] = (),
    skip_changes: bool = False,
    run: RunHistory | None = None,
) -> Verdict:
    """Compare a report with a baseline and with absolute limits.

    Args:
        report: What is checked: an audit, a report, or a source, as for :func:`compare`.
        baseline: What it is compared with; may be missing if all thresholds are gates.
        thresholds: In the grammar of :mod:`collapse_audit.gate.thresholds`; without any,
            M must not fall and the largest redundancy factor must not rise.
        allow: Differences between report and baseline that are no obstacle: ``"epsilon"``,
            ``"rule"``, ``"k"``, ``"branch"``, ``"mlcd"``, ``"schema"``.
        skip_changes: Without a baseline, skip the thresholds that need one.
        run: The run whose neighbouring checkpoints the thresholds with ``trend.`` compare.

    Returns:
        One check per head and threshold.

    Raises:
        ParameterError: If a threshold is malformed, names an unknown metric, or needs a baseline
            or a run that is missing, or there is nothing to check.
        ReportError: If the two cannot be compared, or lack a metric.

    Example:
        >>> from collapse_audit import audit
        >>> import numpy as np
        >>> before, after = audit(np.eye(4)), audit(np.eye(4)[[0, 1, 2, 2]])
        >>> print(check(after, before, ["unique_fraction:-5%"]))
        status  head        threshold            baseline  value  must be
        FAILED  prototypes  unique_fraction:-5%  1         0.75   >= 0.95
        <BLANKLINE>
        1 of 1 check failed
    """
    document = document_of(open_subject(report, allow))
    old = None if baseline is None else document_of(open_subject(baseline, allow))
    asked = [parse_threshold(t) if isinstance(t, str) else t for t in thresholds]
    if not asked and old is not None:
        asked = [parse_threshold(text) for text in DEFAULT_THRESHOLDS]
    trends = [t for t in asked if isinstance(t, Change) and t.trend]
    asked = [threshold for threshold in asked if threshold not in trends]
    if trends and run is None:
        raise ParameterError(
            f"{trends[0].text!r} compares neighbouring checkpoints, and there is no run.",
            hint="Give the folder of a run, or a glob.",
        )
    if old is None and not skip_changes and not (trends and not asked):
        require_gates(asked)
    pairs: Iterable[tuple[HeadDocument, HeadDocument | None]]
    pairs = [(head, None) for head in document["heads"]]
    if old is not None and any(isinstance(threshold, Change) for threshold in asked):
        pairs = pair_heads(document, old, allow)
    return Verdict(
        source=document["source"]["spec"],
        baseline=None if old is None else old["source"]["spec"],
        checks=(
            *(_apply(t, head, other, allow) for head, other in pairs for t in asked),
            *(_follow(t, head) for head in (run.heads if run else ()) for t in trends),
        ),
    )


def _apply(
    threshold: Threshold,
    head: HeadDocument,
    other: HeadDocument | None,
    allow: Collection[Difference],
) -> Check:
    """One threshold on one head."""
    value = threshold.metric.read(head, "the report")
    baseline, limit, failed = None, "", False
    if not isinstance(threshold, Change):
        limit, failed = threshold.limit, threshold.fails(value)
    elif other is not None:
        if threshold.metric.group == "mlcd":
            refuse_other_mlcd(head, other, allow)
        baseline = threshold.metric.read(other, "the baseline")
        limit, failed = threshold.limit(baseline), threshold.fails(value, baseline)
    return Check(
        head=head["name"],
        branch=head["branch"],
        threshold=threshold.text,
        metric=threshold.metric.path,
        value=value,
        baseline=baseline,
        limit=limit,
        status="failed" if failed else "passed" if limit else "skipped",
    )


def _follow(threshold: Change, head: HeadHistory) -> Check:
    """A threshold on the neighbours of equal K: the first that fail, or the last ones."""
    check = None
    for (_, old), (file, new) in pairwise(head.points):
        if old.report["k"] == new.report["k"] and (check is None or check.status != "failed"):
            check = _apply(threshold, new.report, old.report, ())
            check = replace(check, limit=f"{check.limit} at {file.label}")
    return check or _apply(threshold, head.points[-1][1].report, None, ())


def require_gates(thresholds: Collection[Threshold]) -> None:
    """Refuse thresholds that need a baseline, or none at all, with a ParameterError."""
    changes = [t.text for t in thresholds if isinstance(t, Change) and not t.trend]
    if changes or not thresholds:
        compares = f"{changes[0]!r} compares with a baseline, and there is none." if changes else ""
        raise ParameterError(
            compares or "there is nothing to check.",
            hint='Give `baseline=FILE`, or an absolute limit such as "unique_fraction<0.9".',
        )
