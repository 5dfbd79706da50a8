"""What MLCDAccumulator accepts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.errors import ParameterError
from collapse_audit.mlcd.statistics import Counts, prior_masses

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def check_options(
    temperature: float, assignment: str, dtype: str, prior: str, smallest: int
) -> None:
    """Refuse options outside their range; ``smallest`` of the counts must be positive."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ParameterError(f"temperature must be a positive number, got {temperature}.")
    if assignment not in ("softmax", "sinkhorn"):
        raise ParameterError(f"assignment must be 'softmax' or 'sinkhorn', got {assignment!r}.")
    if dtype not in DTYPES:
        raise ParameterError(f"dtype must be 'float32' or 'float64', got {dtype!r}.")
    if smallest < 1:
        raise ParameterError(f"sinkhorn_iterations and tile must be at least 1, got {smallest}.")
    prior_masses(prior, 2)


def check_groups(groups: npt.ArrayLike | None, k: int) -> Counts | None:
    """Group numbers of k prototypes, without gaps."""
    if groups is None:
        return None
    array = np.asarray(groups)
    if array.shape != (k,) or array.dtype.kind not in "iu":
        raise ParameterError(
            f"groups must be {k} integers, got {array.dtype} of shape {array.shape}."
        )
    if array.min() < 0 or (np.bincount(array) == 0).any():
        raise ParameterError("groups must be numbered 0 to m - 1 without gaps.")
    return array.astype(np.int64)


def check_centre(centre: npt.ArrayLike | None, k: int) -> npt.NDArray[np.float64] | None:
    """One finite number per prototype; ``None`` if there is none yet or at all."""
    if isinstance(centre, str) and centre != "estimate":
        raise ParameterError(f"centre must be 'estimate', an array or None, got {centre!r}.")
    if centre is None or isinstance(centre, str):
        return None
    array = np.asarray(centre, dtype=np.float64).reshape(-1)
    if array.shape != (k,) or not np.isfinite(array).all():
        raise ParameterError(
            f"the centre must be {k} finite numbers, one per prototype, got {array.size}.",
            hint="Use `centre=estimate` if the file holds none.",
        )
    return array
