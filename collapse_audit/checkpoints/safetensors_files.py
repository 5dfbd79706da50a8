"""Safetensors files, read with numpy alone.

The format is a length, a JSON header and the bytes (https://github.com/huggingface/safetensors).
It is read here directly because the library's numpy reader knows no bfloat16, and because its
message for a header that promises more than the file holds does not say how much.
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.tensors import (
    Checkpoint,
    StoredTensor,
    megabytes,
    printable,
    widen_bfloat16,
)
from collapse_audit.errors import CheckpointError

# The format allows 100 MB, which as Python objects are gigabytes. A thousand tensors need 0.1 MB.
_MAX_HEADER_BYTES = 16 * 1024**2
# name in the header -> name here, bytes per value
_TYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}


def read_safetensors_file(path: Path) -> Checkpoint:
    """Read the header of a safetensors file; its tensors are read one by one when asked for.

    Args:
        path: The file.

    Returns:
        Its tensors. Those of types that no head is stored in (float8, complex) are left out.

    Raises:
        CheckpointError: If the header is damaged or promises bytes that the file does not have.
    """  # noqa: DOC501  (raised through _damaged)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            raise _damaged(path, f"it declares a header of {length:,} bytes, the file has {size:,}")
        if length > _MAX_HEADER_BYTES:
            raise _damaged(path, f"it declares a header of {megabytes(length)}")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
        described = {key: _describe(entry) for key, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header cannot be read ({printable(error)})") from error

    start, available = 8 + length, size - 8 - length
    declared = max((end for _, _, _, end in described.values()), default=0)
    if declared > available:
        raise _damaged(
            path,
            f"its header declares {megabytes(declared)} of data, the file has {available:,} bytes",
        )
    tensors = []
    for key, (kind, shape, begin, end) in described.items():
        if kind not in _TYPES:
            continue
        dtype, width = _TYPES[kind]
        if end - begin != width * math.prod(shape):
            raise _damaged(
                path,
                f"{printable(key)!r} has shape {list(shape)} of {kind} but {end - begin:,} bytes",
            )
        read = partial(_read, path, dtype, shape, start + begin)
        tensors.append(StoredTensor((printable(key),), shape, dtype, (begin, end), read))
    return Checkpoint.of(path, "safetensors", tensors)


def _describe(entry: dict[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, first byte and end of one header entry, checked to be what they should be."""
    kind, shape = entry["dtype"], entry["shape"]
    begin, end = entry["data_offsets"]
    numbers = [*shape, begin, end]
    if not isinstance(kind, str) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("shapes and offsets must be natural numbers")
    if begin > end:
        raise ValueError("a tensor ends before it begins")
    return kind, tuple(shape), begin, end


def _read(path: Path, dtype: str, shape: tuple[int, ...], offset: int) -> npt.NDArray[Any]:
    stored = np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")
    values = np.fromfile(path, stored, count=math.prod(shape), offset=offset).reshape(shape)
    return widen_bfloat16(values) if dtype == "bfloat16" else values


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{printable(path)}: a damaged or truncated safetensors file: {what}.",
        hint="Download it again and compare its size with the source.",
    )
