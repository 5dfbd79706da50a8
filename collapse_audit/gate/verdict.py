"""What a check found, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from collapse_audit.version import __version__

VERDICT_SCHEMA = "collapse-audit/verdict"
VERDICT_SCHEMA_VERSION = "1.0"

Status: TypeAlias = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold applied to one head.

    Attributes:
        head: Name of the head.
        branch: Its branch, if it has one.
        threshold: As written.
        metric: Path of the metric.
        value: The metric of the head.
        baseline: The same of the baseline; ``None`` for a gate, or without a baseline.
        limit: The condition under which it passes, such as ``>= 0.9``; empty if skipped.
        status: ``"skipped"`` if it needs a baseline and there is none.
    """

    head: str
    branch: str | None
    threshold: str
    metric: str
    value: int | float
    baseline: int | float | None
    limit: str
    status: Status

    @property
    def title(self) -> str:
        """Head and threshold, such as ``head (teacher) unique_fraction:-5%``."""
        return f"{self.head}{f' ({self.branch})' if self.branch else ''} {self.threshold}"

    def __str__(self) -> str:
        old = "" if self.baseline is None else f" (baseline {self.baseline})"
        return f"{self.title}: {self.value}{old}, must be {self.limit}"

    def to_dict(self) -> dict[str, Any]:
        """The entry of this check in a verdict."""
        return {
            "head": self.head,
            "branch": self.branch,
            "threshold": self.threshold,
            "metric": self.metric,
            "value": self.value,
            "baseline": self.baseline,
            "limit": self.limit,
            "status": self.status,
        }


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

    def to_dict(self) -> dict[str, Any]:
        """The verdict as ``--format json`` prints it."""
        return {
            "schema": VERDICT_SCHEMA,
            "schema_version": VERDICT_SCHEMA_VERSION,
            "tool": {"name": "collapse-audit", "version": __version__},
            "source": self.source,
            "baseline": self.baseline,
            "passed": self.passed,
            "checks": [check.to_dict() for check in self.checks],
        }

    def __str__(self) -> str:
        if self.passed:
            return f"all {len(self.checks)} checks passed"
        return "\n".join(map(str, self.failed))
