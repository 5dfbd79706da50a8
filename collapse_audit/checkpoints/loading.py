"""A checkpoint that is open -> the heads asked for -> their prototypes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.containers.tensors import Checkpoint, StoredTensor, Values
from collapse_audit.errors import PrototypeError
from collapse_audit.prototypes import Prototypes, check_usage
from collapse_audit.words import printable

_NAMES_SHOWN = 3
_LEAST_USAGE = 1e-5  # by which Mimi divides at the least (core_vq.py, epsilon)
_SCALE = re.compile(r"_?(?:weight_)?scale(?:_inv|_weight)?")


def load_located(
    checkpoint: Checkpoint,
    heads: Iterable[HeadLocation],
    spec: str,
    *,
    family: str | None = None,
    zero_rows: bool = False,
) -> tuple[Prototypes, ...]:
    """Read the prototypes of heads; a tensor that several of them share is read once."""
    # spec: what to call the checkpoint in messages and reports. Prototypes that are not finite, of
    # zero norm (but for zero_rows) or fewer than two are a PrototypeError.
    chosen = tuple(heads)
    stacks = {head.weight_key for head in chosen if head.index is not None}
    held = {key: _digested(checkpoint.tensors[key]) for key in stacks}
    return tuple(
        _prototypes_of(checkpoint, head, spec, family, held, zero_rows=zero_rows) for head in chosen
    )


def _prototypes_of(
    checkpoint: Checkpoint,
    head: HeadLocation,
    spec: str,
    family: str | None,
    held: dict[str, tuple[Values, str]],
    *,
    zero_rows: bool,
) -> Prototypes:
    """Read the tensors of one head, but for those that are held already."""
    digested = {
        key: held[key] if key in held else _digested(checkpoint.tensors[key])
        for key in head.tensor_keys
    }
    digests = tuple((key, digest) for key, (_, digest) in digested.items())
    read = {key: values for key, (values, _) in digested.items()}
    weight = read[head.weight_key]
    if head.index is not None:
        stack = weight.swapaxes(0, 1) if head.across else weight.reshape(-1, head.k, head.d)
        weight = np.ascontiguousarray(stack[head.index])
    weight = weight.reshape(weight.shape[:2])
    if head.transposed:
        weight = np.ascontiguousarray(weight.T)
    scale = None if head.scale_key is None else read[head.scale_key]
    if scale is not None and scale.size == 1 < len(weight):  # weight norm over the whole matrix
        lengths = np.linalg.norm(weight.astype(np.float64), axis=1)
        scale = scale.astype(np.float64).reshape(()) * lengths / np.linalg.norm(lengths)
    try:
        usage = None if head.usage_key is None else _usage_of(head, read)
        if usage is not None and head.divided:
            weight = weight / np.maximum(usage, _LEAST_USAGE).astype(np.float32)[:, None]
        prototypes = Prototypes.from_weight(
            weight,
            scale=scale,
            bias=None if head.bias_key is None else read[head.bias_key],
            usage=usage,
            name=head.name,
            branch=head.branch,
            tensor_keys=head.tensor_keys,
            source=spec,
            zero_rows=zero_rows,
        )
    except PrototypeError as error:
        raise PrototypeError(f"{spec}: {error.message}", hint=error.hint) from error
    return replace(
        prototypes,
        dtype=head.dtype,  # as stored: bfloat16 and float8 were widened on the way
        family=family,
        tensor_sha256=digests,
        usage=None if usage is None or not usage.any() else usage,
        notes=(
            *head.notes,
            *_unused(usage),
            *_scales_beside(checkpoint, head),
            *notes_on(checkpoint),
        ),
    )


def _usage_of(head: HeadLocation, read: Mapping[str, Values]) -> npt.NDArray[np.float64]:
    """The usage of one head's prototypes, out of that of its stack."""
    usage, number = read[head.usage_key or ""], read[head.weight_key].size // (head.k * head.d)
    if usage.size != number * head.k:
        name = printable((head.usage_key or "").rpartition(".")[2], 60)
        raise PrototypeError(
            f"{head.name}: {name} has {usage.size:,} values for {number * head.k:,} codes.",
            hint="Its tensors are not of one codebook: compare the file with its source.",
        )
    return check_usage(usage.reshape(number, head.k)[head.index or 0], head.k, head.name)


def _unused(usage: npt.NDArray[np.float64] | None) -> tuple[str, ...]:
    none = usage is not None and not usage.any()
    return ("the usage beside it is zero throughout: training counted nothing",) if none else ()


def _scales_beside(checkpoint: Checkpoint, head: HeadLocation) -> tuple[str, ...]:
    """A word about scales of weights of eight bits; a single number turns no prototype."""
    if not head.dtype.startswith("float8"):
        return ()
    stem = head.weight_key.removesuffix("weight")
    return tuple(
        f"the scale {printable(key, 60)} beside the float8 weight is not applied: where it differs "
        "within a prototype, the directions are not those of the network"
        for key, tensor in checkpoint.tensors.items()
        if key.startswith(stem) and _SCALE.fullmatch(key, len(stem)) and tensor.size != 1
    )


def _digested(tensor: StoredTensor) -> tuple[Values, str]:
    """Its values, and their SHA-256 in little-endian order and rows first, however stored."""
    values = tensor.read()
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return values, hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()


def notes_on(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The notes of a container, and a word about the objects in it that were not understood."""
    names = checkpoint.unread
    if not names:
        return checkpoint.notes
    shown = ", ".join(printable(name, 60) for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (
        *checkpoint.notes,
        f"objects of unknown types beside the weights were not read: {shown}{more}",
    )
