"""pytest plugin: gate a head in a test suite.

Installed with the package and found by pytest itself::

    def test_the_released_head_has_not_collapsed(collapse_audit):
        collapse_audit.assert_no_collapse("head.safetensors", min_unique_fraction=0.95)

Nothing heavy is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.prototypes import Prototypes

Head: TypeAlias = "str | Path | npt.ArrayLike | torch.Tensor | Prototypes | CollapseAudit"


def assert_no_collapse(
    head: Head,
    *,
    min_unique_fraction: float = 0.9,
    fail_on: Iterable[str] = (),
    baseline: str | Path | None = None,
    **options: Any,
) -> CollapseAudit:
    """Fail the test if too many prototypes of a head repeat each other.

    Args:
        head: What :func:`collapse_audit.audit` takes, the folder or a glob of a run, whose newest
            checkpoint is taken, or an audit that is already there.
        min_unique_fraction: Smallest M / K that passes, from 0 to 1; 0.9 is where the training
            monitor raises its first alarm.
        fail_on: Further thresholds, such as ``"redundancy_factors.max:+0"``, or of a run
            ``"trend.unique_fraction:-5%"``.
        baseline: A saved report to compare with. Unless a threshold says how, M must not fall and
            the largest redundancy factor must not rise.
        **options: Of :func:`collapse_audit.audit`, such as ``epsilon`` or ``branch``, for a head
            that is no audit yet. By default it counts over several epsilons if a threshold asks
            for that.

    Returns:
        The audit, if nothing failed.

    Raises:
        ParameterError: If the fraction is out of range, a threshold is malformed, or there are
            options for an audit that is already there.
    """
    __tracebackhide__ = True
    from collapse_audit.auditing import audit
    from collapse_audit.errors import ParameterError
    from collapse_audit.gate import check
    from collapse_audit.gate.checking import DEFAULT_THRESHOLDS
    from collapse_audit.gate.files import read_report
    from collapse_audit.gate.metrics import find_metric
    from collapse_audit.gate.thresholds import Change, Gate, Threshold, parse_threshold
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.history import audit_history, newest_checkpoint

    if not 0 <= min_unique_fraction <= 1:
        raise ParameterError(f"min_unique_fraction must be from 0 to 1, got {min_unique_fraction}.")
    limit = f"unique_fraction<{min_unique_fraction}"
    smallest = Fraction(str(min_unique_fraction))  # parsed, 0 would be refused: it never fails
    thresholds: list[Threshold] = [Gate(limit, find_metric("unique_fraction"), "<", smallest)]
    thresholds += map(parse_threshold, fail_on)
    if baseline is not None and not any(
        isinstance(one, Change) and not one.trend for one in thresholds
    ):
        thresholds += map(parse_threshold, DEFAULT_THRESHOLDS)
    run = None
    if isinstance(head, str | Path):
        if any(isinstance(one, Change) and one.trend for one in thresholds):
            known = {name: options[name] for name in options if name not in ("sweep", "nearest")}
            run = audit_history(head, **known)
        head = newest_checkpoint(head)
    if not isinstance(head, CollapseAudit):
        sweep = any(one.metric.group == "sweep" for one in thresholds)
        head = audit(head, **{"sweep": sweep, **options})
    elif options:
        raise ParameterError(f"an audit that is already there takes no {', '.join(options)}.")
    old = None if baseline is None else read_report(Path(baseline))
    verdict = check(head, old, thresholds, run=run)
    if not verdict.passed:
        pytest.fail(_explain(head, str(verdict)), pytrace=False)
    return head


@pytest.fixture
def collapse_audit() -> Any:
    """``collapse_audit.assert_no_collapse(head, ...)``."""
    return SimpleNamespace(assert_no_collapse=assert_no_collapse)


def _explain(audit: CollapseAudit, failures: str) -> str:
    """What a reader of the test log wants to know first."""
    found = audit.redundancy
    at = f"{'epsilon' if found.radius is None else 'radius'} {found.threshold:g}"
    p, largest = audit.prototypes, audit.redundancy_factors[:5].tolist()
    return (
        f"{p.source}: {p.name} has collapsed prototypes: {audit.num_unique} of {p.k} are unique "
        f"({100 * audit.unique_fraction:.1f} %) at {at}; "
        f"the most repeated ones occur {', '.join(map(str, largest))} times.\n{failures}"
    )
