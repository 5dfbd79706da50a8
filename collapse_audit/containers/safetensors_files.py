"""Safetensors: one file, or the files of one distributed run.

The format is a length, a JSON header and the bytes (https://github.com/huggingface/safetensors).
It is read here directly because the library reads neither bfloat16 into numpy nor from anything
but a local file, and because its message for a header that promises more than the file holds does
not say how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from collapse_audit.containers.byte_source import ByteSource
from collapse_audit.containers.json_text import parse_json
from collapse_audit.containers.limits import DIMENSIONS, INDEX_BYTES, TENSORS
from collapse_audit.containers.pickled import key_name, natural
from collapse_audit.containers.pieces import Piece, gathered
from collapse_audit.containers.tensors import (
    WIDTHS,
    Checkpoint,
    StoredTensor,
    Values,
    as_values,
    not_read,
    shaped,
)
from collapse_audit.errors import CheckpointError
from collapse_audit.words import megabytes, printable

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
# What torch.distributed.checkpoint writes into the header of each file of a distributed run.
_SHARDING = "DCP_SHARDING_INFO"


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one file."""

    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]  # text that the writer put beside them
    unread: tuple[str, ...] = ()  # types of the others


def read_safetensors(source: ByteSource, name: str) -> Checkpoint:
    """Describe the tensors of one file; each is read when asked for."""
    # those of types that no head is read in (complex, four bits) are only named
    header = read_header(source, name)
    found = Checkpoint.flat(name, "safetensors", source.size, header.tensors)
    return replace(found, metadata=header.metadata, unread=header.unread)


def read_safetensors_pieces(files: Mapping[str, ByteSource], name: str) -> Checkpoint:
    """Describe a distributed run, whose files hold tensors or pieces that are joined when read."""
    pieces: dict[str, list[Piece]] = {}
    types: dict[str, str] = {}
    other: dict[str, None] = {}
    size = 0
    for shard, source in files.items():
        header = read_header(source, f"{name}: {printable(shard)}")
        size += source.size
        other |= dict.fromkeys(header.unread)
        try:
            info = parse_json(header.metadata.get(_SHARDING, "{}").encode())
            offsets = {
                key: tuple(map(natural, value["saved_offsets"])) for key, value in info.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(f"{name}: {printable(shard)}", f"{_SHARDING}: {error}") from error
        for tensor in header.tensors:
            start = offsets.get(tensor.key, (0,) * len(tensor.shape))
            piece = Piece(start, tensor.shape, tensor.read, (shard, tensor.storage))
            pieces.setdefault(tensor.key, []).append(piece)
            if types.setdefault(tensor.key, tensor.dtype) != tensor.dtype:
                raise _damaged(f"{name}: {printable(shard)}", f"{tensor.key!r} has two types")
    tensors = [gathered((key,), types[key], parts, name) for key, parts in pieces.items()]
    return replace(Checkpoint.flat(name, "sharded", size, tensors), unread=tuple(other))


def read_header(source: ByteSource, name: str) -> Header:
    """The tensors of one file, not yet read, and its metadata; a CheckpointError if damaged."""
    length = int.from_bytes(source.read(0, min(8, source.size)), "little")
    if 8 + length > source.size:
        raise _damaged(
            name, f"it declares a header of {length:,} bytes, the file has {source.size:,}"
        )
    if length > INDEX_BYTES:
        raise _damaged(name, f"it declares a header of {megabytes(length)}")
    try:
        header = parse_json(source.read(8, length))
        about = header.pop("__metadata__", None) or {}
        entries = {key: _described(entry) for key, entry in header.items()}
        metadata = {str(key): str(value) for key, value in about.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(name, f"its header cannot be read ({printable(error)})") from error
    if len(entries) > TENSORS:
        raise _damaged(name, f"its header names over {TENSORS:,} tensors")
    start, available = 8 + length, source.size - 8 - length
    _check_places(entries, available, name)
    tensors = []
    for key, (kind, shape, begin, end) in entries.items():
        if kind not in _TYPES:
            continue
        dtype = _TYPES[kind]
        if end - begin != WIDTHS[dtype] * math.prod(shape):
            raise _damaged(
                name,
                f"{printable(key)!r} has shape {printable(list(shape))} of {kind} "
                f"but {end - begin:,} bytes",
            )

        def read(
            dtype: str = dtype, shape: tuple[int, ...] = shape, at: int = start + begin,
            n: int = end - begin,
        ) -> Values:  # fmt: skip
            return shaped(as_values(source.read(at, n), dtype), shape)

        tensors.append(StoredTensor((key_name(key),), shape, dtype, (begin, end), read))
    other = not_read(kind for kind, *_ in entries.values() if kind not in _TYPES)
    return Header(tuple(tensors), metadata, other)


def _described(entry: dict[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, first byte and end of one header entry, checked to be what they should be."""
    kind, shape = entry["dtype"], entry["shape"]
    begin, end = entry["data_offsets"]
    numbers = [*shape, begin, end]
    if not isinstance(kind, str) or any(
        type(n) is not int or not 0 <= n < 1 << 63 for n in numbers
    ):
        raise ValueError("shapes and offsets must be natural numbers")
    if len(shape) > DIMENSIONS:
        raise ValueError(f"a tensor has over {DIMENSIONS} dimensions")
    if begin > end:
        raise ValueError("a tensor ends before it begins")
    return kind, tuple(shape), begin, end


def _check_places(
    entries: Mapping[str, tuple[str, tuple[int, ...], int, int]], available: int, name: str
) -> None:
    """Refuse tensors behind the end of the file, and tensors that share bytes."""
    last = 0
    for key, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin < last and begin < end:
            raise _damaged(name, f"{printable(key)!r} overlaps another tensor")
        last = max(last, end)
    if last > available:
        raise _damaged(
            name, f"its header declares {megabytes(last)} of data, the file has {available:,} bytes"
        )


def _damaged(name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: a damaged or truncated safetensors file: {what}.",
        hint="Download it again and compare its size with the source.",
    )
