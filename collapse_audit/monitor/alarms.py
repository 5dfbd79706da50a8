"""When a look is worth an interruption."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from collapse_audit.monitor.observation import Alarm, AlarmKind

# dino issue 43, dinov2 issue 407 and dinov3 issue 199 report a loss of ln K to 1e-3 or closer.
LOSS_TOLERANCE = 1e-3


class Alarms:
    """Raises each alarm once, when its condition begins, and again only after it was over."""

    def __init__(self, fractions: Sequence[float]) -> None:
        self._fractions = sorted(fractions, reverse=True)
        self._raised: set[object] = set()
        self._near: str | None = None

    def check(self, step: int, k: int, num_unique: int, loss: float | None) -> tuple[Alarm, ...]:
        """The alarms whose condition began at this look, at M = ``num_unique``."""
        return (*self._unique(step, k, num_unique), *self._loss(step, k, loss))

    @property
    def at_ln_k(self) -> bool:
        """Whether the loss was at ln K when it was last shown, and at the look before."""
        return "loss_is_ln_k" in self._raised

    def causes(self, step: int, found: Mapping[AlarmKind, str | None]) -> tuple[Alarm, ...]:
        """An alarm for each cause that begins; ``None`` says that one was looked for in vain."""
        begins = {kind: self._begins(kind, meaning is not None) for kind, meaning in found.items()}
        return tuple(Alarm(step, k, f"step {step}: {found[k]}") for k in found if begins[k])

    def problem(self, kind: AlarmKind, step: int, error: Exception | None) -> tuple[Alarm, ...]:
        """An alarm when something begins to fail; ``None`` says that it works."""
        begins = self._begins(kind, error is not None)
        return (Alarm(step, kind, f"step {step}: {error or type(error)}"),) if begins else ()

    def _unique(self, step: int, k: int, num_unique: int) -> Iterator[Alarm]:
        for fraction in self._fractions:
            if self._begins(fraction, num_unique < fraction * k):
                yield Alarm(
                    step,
                    "unique_fraction",
                    f"step {step}: {num_unique} of {k} prototypes are unique, fewer than "
                    f"{100 * fraction:g} %: the head is collapsing.",
                )

    def _loss(self, step: int, k: int, loss: float | None) -> Iterator[Alarm]:
        """Two looks in a row: one alone may be passing through, as at the start of a training."""
        if loss is None:
            return
        if self._begins("loss_not_finite", not math.isfinite(loss)):
            yield Alarm(step, "loss_not_finite", f"step {step}: the loss is {loss}.")
        conditions: dict[AlarmKind, tuple[float, str]] = {
            "loss_is_ln_k": (
                math.log(k),
                f", which is ln K for K = {k}: what a uniform student output costs whatever the "
                "teacher says. Nothing is learnt; at the very start of a training this is normal.",
            ),
            "loss_is_zero": (
                0.0,
                ": teacher and student agree on one class for everything, or see the same crop.",
            ),
        }
        near = next((n for n, (v, _) in conditions.items() if abs(loss - v) < LOSS_TOLERANCE), None)
        again, self._near = near is not None and near == self._near, near
        for kind, (_, meaning) in conditions.items():
            if self._begins(kind, again and near == kind):
                yield Alarm(step, kind, f"step {step}: the loss is {loss:.4f}{meaning}")

    def _begins(self, condition: object, holds: bool) -> bool:
        """Whether a condition holds that did not before."""
        begins = holds and condition not in self._raised
        (self._raised.add if holds else self._raised.discard)(condition)
        return begins
