r"""The grammar of thresholds.

::

    metric:-5%      fails if it falls by more than 5 % of the baseline
    metric:+0       fails if it rises at all
    metric:0.01     fails if it gets worse by more than 0.01; either way where no way is worse
    metric<0.9      fails if it is below 0.9; no baseline needed; also <= > >=
    trend.metric:-5%   the first three between neighbouring checkpoints of a run: it fails if the
                       metric falls by more than 5 % from one to the next

Spaces do not matter. The number is a decimal, with an exponent if you like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from collapse_audit.errors import ParameterError
from collapse_audit.gate.metrics import Metric, find_metric

Number: TypeAlias = int | float
Operator: TypeAlias = Literal["<", "<=", ">", ">="]

# at most 30 digits and two of exponent: any such number is a finite float64
_NUMBER: Final = r"(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?"
_CHANGE: Final = re.compile(
    rf"(?P<metric>[^:<>=\s]+)\s*:\s*(?P<sign>[+-]?)\s*(?P<number>{_NUMBER})\s*(?P<percent>%?)"
)
_GATE: Final = re.compile(
    rf"(?P<metric>[^:<>=\s]+)\s*(?P<operator><=|>=|<|>)\s*(?P<number>-?(?:{_NUMBER}))"
)
_TREND: Final = "trend."
_HINT: Final = "Write metric:-5%, metric:+0, metric:0.01, metric<0.9 or trend.metric:-5%."


@dataclass(frozen=True, slots=True)
class Gate:
    """An absolute limit: the check fails if ``value operator number`` holds."""

    text: str  # as written
    metric: Metric
    operator: Operator
    number: Fraction

    def fails(self, value: Number) -> bool:
        """Whether a value is on the wrong side of the limit; within the tolerance it equals it."""
        gap = Fraction(value) - self.number
        if abs(gap) <= _slack(self.metric, value, self.number):
            return "=" in self.operator
        return gap < 0 if "<" in self.operator else gap > 0

    @property
    def limit(self) -> str:
        """The condition under which it passes, such as ``>= 0.9``."""
        passes = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[self.operator]
        return f"{passes} {float(self.number):g}"


@dataclass(frozen=True, slots=True)
class Change:
    """A limit on the change from a baseline."""

    text: str  # as written
    metric: Metric
    amount: Fraction  # largest change that passes, in units of the metric or as a share
    relative: bool  # whether the amount is a share of the baseline
    direction: Literal["up", "down"] | None  # which change counts; ``None``: both
    trend: bool = False  # whether it is one between neighbouring checkpoints of a run

    def fails(self, value: Number, baseline: Number) -> bool:
        """Whether a value changed by more than the amount from its baseline."""
        # Integers are compared exactly, also with percentages; other values up to the metric's
        # tolerance. Nothing is divided by the baseline: of a baseline of zero no share is more than
        # zero, so every change counts.
        change = Fraction(value) - Fraction(baseline)
        allowed = self._allowed(baseline) + _slack(self.metric, value, baseline)
        up, down = change > allowed, -change > allowed
        return {"up": up, "down": down, None: up or down}[self.direction]

    def limit(self, baseline: Number) -> str:
        """The condition under which it passes, such as ``>= 950``, for a reader: not exact."""
        base, allowed = Fraction(baseline), self._allowed(baseline)
        if self.direction == "down":
            return f">= {float(base - allowed):.6g}"
        if self.direction == "up":
            return f"<= {float(base + allowed):.6g}"
        return f"{float(base - allowed):.6g} to {float(base + allowed):.6g}"

    def _allowed(self, baseline: Number) -> Fraction:
        return self.amount * abs(Fraction(baseline)) if self.relative else self.amount


Threshold: TypeAlias = Gate | Change


def parse_threshold(text: str) -> Threshold:
    """A gate, which needs no baseline, or a change, in the grammar of this module."""
    # A ParameterError if it is malformed, names no metric, or could never fail.
    if (match := _GATE.fullmatch(text.strip())) and not text.strip().startswith(_TREND):
        operator: Operator = match["operator"]  # type: ignore[assignment]
        gate = Gate(text, find_metric(match["metric"]), operator, Fraction(match["number"]))
        low, high = gate.metric.low, gate.metric.high
        if (always := gate.fails(low)) == gate.fails(high):
            bounds = f"from {low} to {high}" if high == 1 else f"{low} or more"
            raise ParameterError(
                f"{text!r} {'always fails' if always else 'can never fail'}: "
                f"{gate.metric.path} is {bounds}.",
                hint="Name a limit that some heads meet and others do not.",
            )
        return gate
    trend = text.strip().startswith(_TREND)
    match = _CHANGE.fullmatch(text.strip().removeprefix(_TREND))
    if match is None:
        raise ParameterError(f"{text!r} is not a threshold.", hint=_HINT)
    metric = find_metric(match["metric"])
    relative = bool(match["percent"])
    amount = Fraction(match["number"]) / (100 if relative else 1)
    signs: dict[str, Literal["up", "down"] | None] = {"+": "up", "-": "down", "": metric.worse}
    direction = signs[match["sign"]]
    if relative and direction == "down" and amount >= 1 and metric.low == 0:
        raise ParameterError(
            f"{text!r} can never fail: {metric.path} is never negative.",
            hint="A fall is at most 100 % of the baseline.",
        )
    return Change(text, metric, amount, relative, direction, trend)


def _slack(metric: Metric, *values: Number | Fraction) -> Fraction:
    """How far apart two values of a metric may be and still count as equal."""
    if metric.tolerance == 0:
        return Fraction(0)
    return Fraction(metric.tolerance) * max(Fraction(1), *(abs(Fraction(v)) for v in values))
