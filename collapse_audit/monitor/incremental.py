r"""The exact M of every look, at the price of what changed since the last full one.

After a full look the angle :math:`\theta_i` of each prototype to its nearest other one is known.
If prototype i has turned by :math:`\delta_i` since, then by the triangle inequality of angles no
other one is closer now than :math:`\theta_i - \delta_i - \max_j \delta_j`. Where that is beyond
the threshold, i has no duplicate, so it is a leader of its own and no one else's. The greedy cover
of all prototypes is therefore the greedy cover of the rest plus one group for each of these, and
only the rest has to be compared again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from collapse_audit.head_audit import CollapseAudit, audit_prototypes
from collapse_audit.monitor.weights import Stored, unit_rows
from collapse_audit.prototypes import Prototypes, check_epsilon

# Far above the rounding of the angles in float32 (1e-6): it only makes a few rows be compared
# again that need not be, and never changes a count.
_MARGIN = 1e-3
# A full look when this share of the prototypes was left open on top of those that the last full
# look left open: from then on the incremental path would cost as much.
_STALE = 0.25
# One prototype that turned this far, in radians, leaves nearly all others open. A row that became
# zero counts as turned by 60 degrees, so the full audit gets to see and refuse it.
_LEAP = 1.0
_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """The groups of duplicates at one moment."""

    groups: npt.NDArray[np.int64]  # of each prototype (k), numbered by falling size
    num_unique: int  # M, equal to that of an audit of the same weights
    n_eff: float  # effective number of prototypes
    components: int  # connected components of the duplicate graph
    largest: int  # largest redundancy factor
    compared: int  # prototypes that were compared anew; k in a full look
    nearest_cosine: Mapping[str, Any] | None  # quantiles of a full look; no tensor is kept
    turned: Tensor | None  # angle turned by since the last look, if any, radians (k)


@dataclass(slots=True, eq=False)
class _Reference:
    unit: Tensor
    nearest: Tensor
    open: int


class IncrementalCover:
    """Counts the unique prototypes of a head that changes a little at a time."""

    # It keeps two copies of the prototypes in float32 on their device: those of the last full look
    # and those of the last look.

    def __init__(self, epsilon: float) -> None:
        self._epsilon = check_epsilon(epsilon)
        self._threshold = math.acos(1 - self._epsilon)
        self._reference: _Reference | None = None
        self._last: Tensor | None = None

    @torch.no_grad()
    def look(self, stored: Stored) -> Counted:
        """Count the unique prototypes now: the same as an audit gives, whichever path was taken."""
        weight, last = stored[0], self._last
        if self._reference is None or last is None or weight.shape != last.shape:
            return self._full(stored, None)  # also where a head of another K took its place
        turned, drift = self._turned(stored, last, self._reference.unit)
        nearest, furthest = self._reference.nearest, drift.max()
        if not furthest < _LEAP:  # also NaN
            return self._full(stored, turned)
        is_open = nearest - drift - furthest <= self._threshold + _MARGIN
        rest = torch.nonzero(is_open).squeeze(1)
        if len(rest) > self._reference.open + _STALE * len(nearest):
            return self._full(stored, turned)
        return self._incremental(stored, rest, turned)

    def mean_cosine(self, other: IncrementalCover) -> float | None:
        """Mean cosine of the prototypes with another head's, one by one, at the last look."""
        mine, theirs = self._last, other._last
        if mine is None or theirs is None or mine.shape != theirs.shape:
            return None
        return float(torch.einsum("kd,kd->k", mine, theirs).mean())

    def _full(self, stored: Stored, turned: Tensor | None) -> Counted:
        audit = self._audit(stored, nearest=True)
        found = audit.redundancy.nearest
        # zeros, were there none, would leave every prototype open: slow, but never wrong
        angle = torch.zeros(audit.prototypes.k) if found is None else torch.from_numpy(found.angle)
        unit = unit_rows(stored, slice(None))
        self._reference = _Reference(
            unit=unit,
            nearest=angle.to(unit.device, torch.float32),
            open=int((angle <= self._threshold + _MARGIN).sum()),
        )
        self._last = unit.clone()
        return self._counted(audit, audit.groups, audit.prototypes.k, turned, audit)

    def _incremental(self, stored: Stored, rest: Tensor, turned: Tensor) -> Counted:
        k = len(stored[0])
        groups = np.arange(k, dtype=np.int64)
        if len(rest) < 2:
            return Counted(groups, k, float(k), k, 1, len(rest), None, turned)
        weight, scale = stored
        audit = self._audit((weight[rest], None if scale is None else scale[rest]), nearest=False)
        index = rest.cpu().numpy()
        alone = np.ones(k, dtype=bool)
        alone[index] = False
        groups[index] = audit.groups
        groups[alone] = audit.num_unique + np.arange(k - len(index))
        return self._counted(audit, groups, len(index), turned, None)

    def _counted(
        self,
        audit: CollapseAudit,
        groups: npt.NDArray[np.int64],
        compared: int,
        turned: Tensor | None,
        full: CollapseAudit | None,
    ) -> Counted:
        alone = len(groups) - compared
        return Counted(
            groups=groups,
            num_unique=audit.num_unique + alone,
            n_eff=audit.n_eff.value + alone,
            components=audit.redundancy.components + alone,
            largest=int(audit.redundancy_factors[0]),
            compared=compared,
            nearest_cosine=None if full is None else full.head_report()["nearest_cosine"],
            turned=turned,
        )

    def _audit(self, stored: Stored, *, nearest: bool) -> CollapseAudit:
        prototypes = Prototypes.from_weight(stored[0], scale=stored[1])
        return audit_prototypes(prototypes, epsilon=self._epsilon, sweep=False, nearest=nearest)

    def _turned(self, stored: Stored, last: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Angles turned by since the last look, which becomes this one, and since the full one."""
        turned, drift = torch.empty(len(last)), torch.empty(len(last))
        turned, drift = turned.to(last.device), drift.to(last.device)
        for start in range(0, len(last), _BLOCK):
            rows = slice(start, start + _BLOCK)
            unit = unit_rows(stored, rows)
            turned[rows] = _angle(unit, last[rows])
            drift[rows] = _angle(unit, reference[rows])
            last[rows] = unit
        return turned, drift


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Angles between unit rows by their chords, exact also where a cosine would round to 1."""
    return 2 * torch.asin(((a - b).norm(dim=1) / 2).clamp(max=1))
