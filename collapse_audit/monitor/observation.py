"""What the monitor saw at one step, as values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

AlarmKind: TypeAlias = Literal[
    "unique_fraction",
    "loss_is_ln_k",
    "loss_is_zero",
    "loss_not_finite",
    "one_storage",
    "frozen",
    "all_equal",
    "scale_not_one",
    "centre_not_finite",
    "centre_dominates",
    "targets_uniform",
    "not_auditable",
    "no_mlcd",
    "not_written",
]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that somebody should look at now.

    Attributes:
        step: When it was seen.
        kind: What it is about.
        message: One line for a reader.
    """

    step: int
    kind: AlarmKind
    message: str


@dataclass(frozen=True, slots=True)
class BranchState:
    """The prototypes of one network at one step.

    Attributes:
        num_unique: M, exactly as an audit counts it.
        unique_fraction: M / K.
        n_eff: Effective number of prototypes: the sum of 1 / n_i, with n_i the prototypes closer
            than epsilon to prototype i, itself included.
        components: Connected components of the duplicate graph.
        largest: Largest redundancy factor.
        compared: Prototypes that had to be compared again; K in a full look.
        nearest_cosine: Quantiles and mean of the cosine to the nearest other prototype; ``None``
            unless the look was full.
        turned_mean: Mean angle the prototypes turned by since the last look, degrees; ``None`` at
            the first.
        turned_max: The largest such angle.
    """

    num_unique: int
    unique_fraction: float
    n_eff: float
    components: int
    largest: int
    compared: int
    nearest_cosine: Mapping[str, float] | None
    turned_mean: float | None
    turned_max: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, under the names of a report where it has them."""
        return {
            "unique": {
                "greedy": self.num_unique,
                "n_eff": self.n_eff,
                "components": self.components,
            },
            "unique_fraction": self.unique_fraction,
            "redundancy_factors": {"max": self.largest},
            "compared": self.compared,
            "nearest_cosine": self.nearest_cosine and dict(self.nearest_cosine),
            "turned_degrees": {"mean": self.turned_mean, "max": self.turned_max},
        }


@dataclass(frozen=True, slots=True)
class Observation:
    """What the monitor saw at one step.

    Attributes:
        step: The step.
        k: Number of prototypes, K.
        head: The watched head; the teacher's, where there are two.
        student: The student's, if it is watched too.
        student_cosine: Mean cosine of the student's prototypes with the teacher's, one by one.
        loss: The loss, if it was shown.
        mlcd: Latent class distribution of the batch that was shown, in nats.
        alarms: Raised at this step.
        seconds: What the look cost.
    """

    step: int
    k: int
    head: BranchState
    student: BranchState | None
    student_cosine: float | None
    loss: float | None
    mlcd: Mapping[str, float] | None
    alarms: tuple[Alarm, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """One line of the log, as plain values; what is not finite, which JSON has not, is null."""
        values = {
            "step": self.step,
            "k": self.k,
            **self.head.to_dict(),
            "student": None if self.student is None else self.student.to_dict(),
            "student_cosine": self.student_cosine,
            "loss": self.loss,
            "mlcd": self.mlcd and dict(self.mlcd),
            "alarms": [{"kind": alarm.kind, "message": alarm.message} for alarm in self.alarms],
            "seconds": self.seconds,
        }
        return {key: _finite(value) for key, value in values.items()}

    def to_scalars(self, prefix: str = "prototypes/") -> dict[str, float]:
        """Flat numbers for a tracker, such as ``prototypes/unique_fraction``: what was measured."""
        measured = {key: v for key, v in self.to_dict().items() if key not in ("step", "alarms")}
        return {f"{prefix}{name}": value for name, value in _leaves(measured, "")}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _leaves(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        elif value is not None:
            yield path + key, float(value)
