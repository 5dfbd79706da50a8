"""Tensors as views of stored blocks: bounds checked, values in one contiguous array."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from collapse_audit.containers.limits import EXPANDED_BYTES
from collapse_audit.containers.pickled import TensorRef
from collapse_audit.containers.tensors import WIDTHS, Values, as_values, shaped
from collapse_audit.errors import CheckpointError
from collapse_audit.words import printable


def read_view(
    tensor: TensorRef,
    block: int,  # bytes of the storage that the file holds
    read: Callable[[int, int], bytes],  # a part of the storage: first byte, number of bytes
    *,
    name: str,  # file and key, for messages
    little: bool = True,
) -> Values:
    """Read the values of a tensor, and of its storage nothing but the span they lie in."""
    width = WIDTHS[tensor.dtype]
    wanted = math.prod(tensor.shape) * width
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    span = (last + 1) * width if wanted else 0  # from the first to the last value
    offset = tensor.offset * width
    stored = tensor.storage.root_numel * WIDTHS.get(tensor.storage.dtype, width)
    if wanted and (offset + span > min(block, stored) or stored > block):
        raise CheckpointError(
            f"{name}: has shape {printable(list(tensor.shape))}, "
            f"but its storage has only {block:,} bytes.",
            hint="The file is damaged or truncated: compare its size with the source.",
        )
    if wanted > max(span, EXPANDED_BYTES):
        raise CheckpointError(
            f"{name}: a tensor of shape {printable(list(tensor.shape))} "
            f"over only {span:,} stored bytes.",
            hint="It is an expanded view of few values: save the tensor itself (tensor.clone()).",
        )
    # torch turns the bytes of the storage round, and one of single bytes has nothing to turn
    little = little or WIDTHS.get(tensor.storage.dtype) == 1
    flat = as_values(read(offset, span) if wanted else b"", tensor.dtype, little=little)
    steps = [step * flat.itemsize for step in tensor.strides]
    if not wanted:
        return shaped(flat, tensor.shape)
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)
    return np.ascontiguousarray(view).reshape(tensor.shape)
