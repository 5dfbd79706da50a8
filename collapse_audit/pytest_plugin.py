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

    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.prototypes import Branch, Prototypes

Head: TypeAlias = "str | Path | npt.ArrayLike | torch.Tensor | Prototypes | CollapseAudit"


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
        head: What :func:`collapse_audit.audit` takes, or an audit that is already there.
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
    from collapse_audit.auditing import audit
    from collapse_audit.gate import check, read_report
    from collapse_audit.head_audit import CollapseAudit

    if not isinstance(head, CollapseAudit):
        head = audit(head, epsilon=epsilon, branch=branch, sweep=False)
    verdict = check(
        head,
        None if baseline is None else read_report(Path(baseline)),
        [*([f"unique_fraction<{min_unique_fraction}"] if min_unique_fraction else []), *fail_on],
    )
    if not verdict.passed:
        pytest.fail(_explain(head, str(verdict)), pytrace=False)
    return head


@pytest.fixture
def collapse_audit() -> Any:
    """``collapse_audit.assert_no_collapse(head, ...)``."""
    return SimpleNamespace(assert_no_collapse=assert_no_collapse)


def _explain(audit: CollapseAudit, failures: str) -> str:
    """What a reader of the test log wants to know first."""
    p, largest = audit.prototypes, audit.redundancy_factors[:5].tolist()
    return (
        f"{p.source}: {p.name} has collapsed prototypes: {audit.num_unique} of {p.k} are unique "
        f"({100 * audit.unique_fraction:.1f} %) at epsilon {audit.redundancy.epsilon:g}; "
        f"the most repeated ones occur {', '.join(map(str, largest))} times.\n{failures}"
    )
