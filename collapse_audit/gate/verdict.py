"""What a check found, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal, TypeAlias, cast

from collapse_audit.report.documents import (
    SCHEMA_VERSION,
    TOOL,
    VERDICT_SCHEMA,
    CheckDocument,
    VerdictDocument,
)
from collapse_audit.report.verdict_text import verdict_to_table

Status: TypeAlias = Literal["passed", "failed", "accepted", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold applied to one head."""

    head: str
    branch: str | None  # if the head has one
    threshold: str  # as written
    metric: str  # path of the metric
    value: int | float  # the metric of the head
    baseline: int | float | None  # the same of the baseline; ``None`` for a gate, or without one
    limit: str  # the condition under which it passes, such as ``>= 0.9``; empty if skipped
    # ``"skipped"`` if it needs a baseline and there is none, ``"accepted"`` if it would have failed
    # and the head becomes the baseline all the same
    status: Status


@dataclass(frozen=True, slots=True)
class Verdict:
    """All thresholds applied to all heads.

    Attributes:
        source: What was checked.
        baseline: What it was compared with, if anything.
        checks: In the order of the heads, then of the thresholds.
    """

    source: str
    baseline: str | None
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def exit_code(self) -> int:
        """0 if all passed, 1 if one failed."""
        return 0 if self.passed else 1

    def accepted(self) -> Verdict:
        """The same, with the changes from the baseline that failed accepted; gates still fail."""
        checks = (
            replace(c, status="accepted") if c.status == "failed" and c.baseline is not None else c
            for c in self.checks
        )
        return replace(self, checks=tuple(checks))

    def to_dict(self) -> VerdictDocument:
        """The verdict as ``--format json`` prints it."""
        return {
            "schema": VERDICT_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tool": TOOL.copy(),
            "source": self.source,
            "baseline": self.baseline,
            "passed": self.passed,
            "checks": [cast("CheckDocument", asdict(check)) for check in self.checks],
        }

    def __repr__(self) -> str:
        return f"Verdict({self.source!r:.80}, passed={self.passed}, {len(self.checks)} checks)"

    def __str__(self) -> str:
        return verdict_to_table(self.to_dict()).rstrip()
