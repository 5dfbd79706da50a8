"""pytest plugin: gate a head in a test suite.

Installed with the package and found by pytest itself::

    def test_the_released_head_has_not_collapsed(collapse_audit):
        collapse_audit.assert_no_collapse("head.safetensors", min_unique_fraction=0.95)

Nothing heavy is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from collapse_audit.audit import CollapseAudit
    from collapse_audit.prototypes import Branch, Prototypes

Head: TypeAlias = "str | Path | npt.ArrayLike | torch.Tensor | Prototypes | CollapseAudit"


def audit_head(head: Head, *, epsilon: float = 0.025, branch: Branch = "teacher") -> CollapseAudit:
    """Audit whatever a test has at hand.

    Args:
        head: A checkpoint file with one head, a weight matrix (k x d, numpy or torch), prototypes,
            or an audit that is already there.
        epsilon: Cosine distance below which two prototypes are duplicates.
        branch: Which network of a file.

    Returns:
        The audit.
    """
    from collapse_audit.audit import CollapseAudit, audit_prototypes
    from collapse_audit.prototypes import Prototypes

    if isinstance(head, CollapseAudit):
        return head
    if isinstance(head, str | Path):
        from collapse_audit.sources import load_prototypes

        head = load_prototypes(head, branch=branch)
    elif not isinstance(head, Prototypes):
        head = Prototypes.from_weight(head)
    return audit_prototypes(head, epsilon=epsilon, sweep=False)


def assert_no_collapse(
    head: Head,
    *,
    min_unique_fraction: float = 0.9,
    epsilon: float = 0.025,
    branch: Branch = "teacher",
    fail_on: Iterable[str] = (),
    baseline: str | Path | None = None,
) -> CollapseAudit:
    """Fail the test if too many prototypes of a head repeat each other.

    Args:
        head: As for :func:`audit_head`.
        min_unique_fraction: Smallest M / K that passes; 0.9 is where the training monitor raises
            its first alarm.
        epsilon: Cosine distance below which two prototypes are duplicates.
        branch: Which network of a file.
        fail_on: Further thresholds, such as ``"redundancy_factors.max:+0"``.
        baseline: A saved report to compare with, for the thresholds that need one.

    Returns:
        The audit, if nothing failed.
    """
    __tracebackhide__ = True
    from collapse_audit.gate import check, read_report

    audit = audit_head(head, epsilon=epsilon, branch=branch)
    verdict = check(
        audit,
        None if baseline is None else read_report(Path(baseline)),
        [f"unique_fraction<{min_unique_fraction}", *fail_on],
    )
    if not verdict.passed:
        pytest.fail(_explain(audit, str(verdict)), pytrace=False)
    return audit


@pytest.fixture
def collapse_audit() -> Any:
    """``collapse_audit.assert_no_collapse(head, ...)`` and ``collapse_audit.audit_head(head)``."""
    return SimpleNamespace(assert_no_collapse=assert_no_collapse, audit_head=audit_head)


def _explain(audit: CollapseAudit, failures: str) -> str:
    """What a reader of the test log wants to know first."""
    p, largest = audit.prototypes, audit.redundancy_factors[:5].tolist()
    return (
        f"{p.source}: {p.name} has collapsed prototypes: {audit.num_unique} of {p.k} are unique "
        f"({100 * audit.unique_fraction:.1f} %) at epsilon {audit.redundancy.epsilon:g}; "
        f"the most repeated ones occur {', '.join(map(str, largest))} times.\n{failures}"
    )
