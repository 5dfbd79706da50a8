"""Why a loss stays at ln K: what can be read from a layer, a centre, or a checkpoint of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.checkpoints.structure import STATES
from collapse_audit.containers.tensors import FLOATING, Checkpoint, StoredTensor
from collapse_audit.errors import CollapseAuditError
from collapse_audit.words import printable

_CENTRE = re.compile(r"(?:.+[./])?center(?:2|_grid)?")
_TOLERANCE = 1e-3  # of a float16 beside 1
ALL_EQUAL = "all prototypes point one way: all logits are alike, and the loss goes to ln K"


def scale_not_one(scale: npt.ArrayLike) -> str | None:
    """What is wrong with the g (k) of a layer whose norms should have been fixed at 1, if it is."""
    off = np.abs(np.asarray(scale, dtype=np.float64).reshape(-1) - 1)
    if (off <= _TOLERANCE).all():
        return None
    return (
        f"weight_g is fixed, but not at 1: {int((off > _TOLERANCE).sum())} of {off.size} scales "
        "differ. norm_last_layer fills it with 1 before it freezes it."
    )


def centre_not_finite(centre: npt.ArrayLike) -> str | None:
    """What is wrong with a centre (k) that holds NaN or infinite values."""
    bad = ~np.isfinite(np.asarray(centre, dtype=np.float64).reshape(-1))
    if not bad.any():
        return None
    return (
        f"the centre is not finite in {int(bad.sum())} of {bad.size} places: every target that it "
        "is taken from is NaN, and stays so. Start from an earlier checkpoint."
    )


def centre_dominates(centre: npt.ArrayLike, largest_norm: float) -> str | None:
    """What is wrong with a centre (k) that no mean of logits can be, on features of unit norm."""
    # |<x, w_k>| <= ||w_k|| for a unit x, and so for every mean of them
    values = np.abs(np.asarray(centre, dtype=np.float64))
    largest = float(values[np.isfinite(values)].max(initial=0))
    if not largest > largest_norm * (1 + _TOLERANCE):
        return None
    return (
        f"the centre dominates: it reaches {largest:.3g}, and a logit of a unit feature at most "
        f"{largest_norm:.3g}. The targets are the centre's and not the image's; a sum over ranks "
        "that was not divided by their number does this."
    )


def centres(checkpoint: Checkpoint) -> Iterator[StoredTensor]:
    """The centres that a training saved, by their name."""
    for tensor in checkpoint.tensors.values():
        if _CENTRE.fullmatch(tensor.key) and tensor.dtype in FLOATING:
            yield tensor


def notes_on_training(checkpoint: Checkpoint, heads: Sequence[HeadLocation]) -> Iterator[str]:
    """What a file tells of a stuck training: its options, its centres and scales, no matrix."""
    # equal prototypes are seen by an audit, which reads the matrix; uniform targets in no file
    epochs, epoch = (checkpoint.options.get(key) for key in ("freeze_last_layer", "epoch"))
    if isinstance(epochs, int) and isinstance(epoch, int) and 0 < epoch <= epochs:
        yield (
            f"the last layer is frozen until now: freeze_last_layer is {epochs}, and the file is "
            f"of epoch {epoch}"
        )
    else:
        yield from _not_optimised(checkpoint, heads)
    longest: dict[int, float | None] = {}  # prototype of the heads with a K, where a scale tells
    for head in heads:
        longest.setdefault(head.k, None)
        stored = None if head.scale_key is None else checkpoint.tensors[head.scale_key]
        if stored is None or stored.size != head.k or (scale := _read(stored)) is None:
            continue
        longest[head.k] = max(longest[head.k] or 0, float(np.abs(scale).max(initial=0)))
        if checkpoint.options.get("norm_last_layer") is True and (problem := scale_not_one(scale)):
            yield f"{printable(stored.key, 80)}: {problem}"
    for tensor in centres(checkpoint):
        if tensor.size not in longest or (centre := _read(tensor)) is None:
            continue
        problem, norm = centre_not_finite(centre), longest[tensor.size]
        if problem is None and norm is not None:
            problem = centre_dominates(centre, norm)
        if problem:
            yield f"{printable(tensor.key, 80)}: {problem}"


def _not_optimised(checkpoint: Checkpoint, heads: Sequence[HeadLocation]) -> Iterator[str]:
    """Last layers that are trained, and of whose shape an optimiser's state holds no matrix."""
    held, weights = set[tuple[int, ...]](), set[tuple[int, ...]]()
    for tensor in checkpoint.tensors.values():
        if len(tensor.shape) > 1:
            (held if STATES.intersection(tensor.path[:-1]) else weights).add(tensor.shape)
    if not held & weights:  # no state, or one that is sharded or factored
        return
    for head in heads:
        if head.branch != "teacher" and checkpoint.tensors[head.weight_key].shape not in held:
            yield (
                f"{printable(head.weight_key, 80)}: the optimiser has a state of other matrices, "
                "and none of the last layer: it is frozen until now, not in the optimiser, or "
                "without a gradient"
            )


def _read(tensor: StoredTensor) -> npt.NDArray[np.float64] | None:
    """A vector's values; a damaged file is described as far as its index tells."""
    try:
        return tensor.read().astype(np.float64)
    except CollapseAuditError:
        return None
