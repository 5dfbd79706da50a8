"""What can hold a loss at ln K, seen in the head and the targets of a look."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from collapse_audit.checkpoints.causes import (
    ALL_EQUAL,
    centre_dominates,
    centre_not_finite,
    scale_not_one,
)
from collapse_audit.monitor.incremental import Counted
from collapse_audit.monitor.observation import AlarmKind
from collapse_audit.monitor.weights import Stored

_UNIFORM = 1e-3  # nats below ln K
ONE_STORAGE = (
    "teacher and student are one storage: the teacher is no average of the student, and both "
    "change together."
)


def causes_in_head(
    stored: Stored, counted: Counted, centre: Tensor | None
) -> dict[AlarmKind, str | None]:
    """Of the watched head: prototypes that are all equal, and a centre that is none."""
    weight, scale = stored
    found: dict[AlarmKind, str | None] = {
        "all_equal": f"{ALL_EQUAL}." if counted.num_unique == 1 else None
    }
    if centre is not None:
        values = centre.detach().float().cpu().numpy()
        if scale is None:
            norms = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32)
        else:
            norms = scale.float().abs()
        found["centre_not_finite"] = centre_not_finite(values)
        found["centre_dominates"] = centre_dominates(values, float(norms.max()))
    return found


def targets_uniform(mean_entropy: float, k: int) -> str | None:
    """What is wrong with targets (mean entropy in nats) that prefer no prototype."""
    if mean_entropy < math.log(k) - _UNIFORM:
        return None
    return (
        f"the targets are uniform: their mean entropy is {mean_entropy:.4f} of ln K = "
        f"{math.log(k):.4f}. The teacher's temperature is too high, or its features are all one."
    )


def causes_in_training(
    stored: Stored, turned: Tensor | None, *, stuck: bool, fixed_scale: bool
) -> dict[AlarmKind, str | None]:
    """Of the head that is trained: a layer that does not move, and a scale fixed off 1."""
    still = stuck and turned is not None and not bool(turned.any())
    found: dict[AlarmKind, str | None] = {
        "frozen": "no prototype has turned since the last look: the last layer is frozen "
        "(freeze_last_layer does so at the start), not in the optimiser, or without a gradient."
        if still
        else None
    }
    if fixed_scale and stored[1] is not None:
        found["scale_not_one"] = scale_not_one(stored[1].float().cpu().numpy())
    return found
