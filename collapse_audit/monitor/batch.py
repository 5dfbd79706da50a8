"""What a training shows of one step, and the latent class distribution of its batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from collapse_audit.errors import ParameterError
from collapse_audit.monitor.weights import Stored
from collapse_audit.prototypes import Prototypes


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Of one step; no tensor has a gradient."""

    loss: float | None
    logits: Tensor | None  # n x k, before centre and temperature
    features: Tensor | None  # n x d
    centre: Tensor | None  # k values


def mlcd_of_batch(
    stored: Stored, groups: npt.NDArray[np.int64], shown: Shown, temperature: float | None
) -> dict[str, float] | None:
    """Latent class distribution of one batch, over all and over the unique prototypes."""
    if shown.logits is None and shown.features is None:
        return None
    if temperature is None:
        raise ParameterError(
            "the MLCD of a batch needs the temperature of the head.",
            hint="Pass `temperature=0.04` to PrototypeMonitor, or show it no logits.",
        )
    from collapse_audit.mlcd import MLCDAccumulator

    accumulator = MLCDAccumulator(
        Prototypes.from_weight(stored[0], scale=stored[1]),
        temperature=temperature,
        centre=None if shown.centre is None else shown.centre.float().cpu().reshape(-1),
        groups=groups,
    )
    if shown.logits is not None:
        accumulator.update_logits(shown.logits.float())
    elif shown.features is not None:
        accumulator.update(shown.features.float())
    found = accumulator.result()
    levels = {"k": found.k, "m": found.m}
    return {
        "n": found.n,
        "mutual_information": found.mutual_information,
        "mean_entropy": found.mean_entropy,
        **{f"{name}.entropy": level.entropy for name, level in levels.items() if level},
        **{f"{name}.perplexity": level.perplexity for name, level in levels.items() if level},
    }
