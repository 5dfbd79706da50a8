"""Describe the tensors of a remote file from its index alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from collapse_audit.checkpoints.pickle_index import read_pickle_index
from collapse_audit.checkpoints.pickle_values import Options, TensorRef
from collapse_audit.checkpoints.ranged_zip import RangedZip
from collapse_audit.checkpoints.tensors import Container, megabytes, printable
from collapse_audit.errors import CheckpointError
from collapse_audit.remote.remote_files import FileVersion, RemoteFile

_MAX_PICKLE_BYTES = 16 * 1024**2  # those of published checkpoints have 20 kB to 1 MB
_MAX_HEADER_BYTES = 32 * 1024**2
_MAX_DEPTH, _MAX_KEY = 12, 1000  # as for local files
_WIDTHS = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RangedTensor:
    """A tensor of a remote file: what it is and where its bytes are.

    Attributes:
        path: Dictionary keys that lead to it.
        shape: Its shape.
        dtype: Type of its values.
        strides: Distance to the next value along each dimension, in values.
        storage: Equal for two tensors exactly if they are the same memory of the file.
        base: Start of the block that holds it: of the local header of a zip member, else of the
            bytes themselves.
        offset: Bytes from the start of that block's content to its first value.
        block: Bytes of the block's content.
        crc: Checksum of the block, if known.
        little: Whether its values are little-endian.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...]
    storage: str
    base: int
    offset: int
    block: int
    crc: int | None = None
    little: bool = True

    @property
    def key(self) -> str:
        """The path as one string, ``/`` between nested dictionaries."""
        return "/".join(self.path)

    @property
    def span(self) -> int:
        """Bytes from its first to behind its last value."""
        if 0 in self.shape:
            return 0
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        return (last + 1) * _WIDTHS[self.dtype]

    def check(self, shown: str) -> None:
        """Refuse a tensor that the file cannot hold.

        Args:
            shown: What to call the file in messages.

        Raises:
            CheckpointError: If its values lie outside its block, or are more than the block has.
        """
        values = math.prod(self.shape) * _WIDTHS[self.dtype]
        if self.offset + self.span > self.block or values > self.block:
            raise CheckpointError(
                f"{shown}: {printable(self.key)!r} has shape {printable(list(self.shape))}, "
                f"but its storage has only {self.block:,} bytes.",
                hint="The file is damaged, or holds an expanded view: save the tensor itself.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class RangedIndex:
    """What is in a remote file.

    Attributes:
        container: How the file is packed.
        tensors: Its tensors, in file order.
        top_level: Keys of the outermost dictionary.
        options: Names of the training options that were saved beside the weights.
        version: State of the file.
    """

    container: Container
    tensors: tuple[RangedTensor, ...]
    top_level: tuple[str, ...]
    options: tuple[str, ...]
    version: FileVersion


def read_index(file: RemoteFile) -> RangedIndex | None:
    """Read the index of a remote file.

    Args:
        file: The file; its server must allow ranges.

    Returns:
        What is in it; ``None`` for containers that must be fetched whole (legacy, numpy).

    Raises:
        CheckpointError: If the index is damaged or absurd.
        UnsafePickleError: If it names something outside the allow-list.
    """
    if file.version.size is None:
        return None
    if file.head.startswith(b"PK\x03\x04"):
        return _torch_index(file)
    if file.head[8:9] == b"{":
        return _safetensors_index(file)
    return None


def _torch_index(file: RemoteFile) -> RangedIndex | None:
    archive = RangedZip(file)
    names = [name for name in archive.members if name.rpartition("/")[2] == "data.pkl"]
    if len(names) != 1:
        return None
    folder = names[0].removesuffix("data.pkl")
    loaded = read_pickle_index(archive.read(names[0], _MAX_PICKLE_BYTES), file.shown)
    little = archive.read(f"{folder}byteorder", 16) != b"big"
    tree = loaded if isinstance(loaded, Mapping) else {"prototypes": loaded}
    tensors: dict[str, RangedTensor] = {}
    for path, tensor in _walk(tree, (), set()):
        member = archive.members.get(f"{folder}data/{tensor.storage.key}")
        if tensor.dtype not in _WIDTHS:
            continue
        if member is None:
            raise CheckpointError(
                f"{file.shown}: {printable('/'.join(path))!r} is in a storage that the file "
                "does not hold.",
                hint="The file is damaged: compare its size with the source.",
            )
        offset = tensor.offset * _WIDTHS[tensor.dtype]
        view = (tensor.storage.key, tensor.offset, tensor.shape, tensor.strides)
        found = RangedTensor(
            path, tensor.shape, tensor.dtype, tensor.strides, repr(view),
            member.header_offset, offset, member.size, member.crc, little,
        )  # fmt: skip
        tensors.setdefault(found.key, found)
    args = tree.get("args")
    options = args.values if isinstance(args, Options) else args
    return RangedIndex(
        container="zip",
        tensors=tuple(tensors.values()),
        top_level=tuple(printable(key) for key in tree),
        options=tuple(map(str, options)) if isinstance(options, Mapping) else (),
        version=file.version,
    )


def _walk(
    node: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], TensorRef]]:
    """Every tensor below a node; each dictionary once, for they may hold one another."""
    if isinstance(node, TensorRef):
        yield path, node
    elif isinstance(node, Mapping | list | tuple) and len(path) < _MAX_DEPTH:
        if id(node) in seen:
            return
        seen.add(id(node))
        children = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, child in children:
            if isinstance(child, TensorRef | Mapping | list | tuple):
                yield from _walk(child, (*path, printable(key, _MAX_KEY)), seen)


def _safetensors_index(file: RemoteFile) -> RangedIndex:
    size = file.version.size or 0
    length = int.from_bytes(file.head[:8], "little")
    if length > min(_MAX_HEADER_BYTES, size - 8):
        raise _damaged(file, f"it declares a header of {length:,} bytes, the file has {size:,}")
    try:
        header = json.loads(file.read(8, length))
        tensors = tuple(
            _described(key, entry, 8 + length)
            for key, entry in header.items()
            if key != "__metadata__" and entry["dtype"] in _DTYPES
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"its header cannot be read ({printable(error)})") from None
    for tensor in tensors:
        if tensor.base + tensor.block > size:
            raise _damaged(
                file,
                f"its header declares {megabytes(tensor.base + tensor.block)}, "
                f"the file has {size:,} bytes",
            )
    keys = tuple(tensor.key for tensor in tensors)
    return RangedIndex("safetensors", tensors, keys, (), file.version)


def _described(key: str, entry: dict[str, Any], data: int) -> RangedTensor:
    """One entry of the header, checked to be what it should be."""
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
        raise ValueError("shapes and offsets must be natural numbers")
    dtype = _DTYPES[entry["dtype"]]
    if end - begin != math.prod(shape) * _WIDTHS[dtype]:
        raise ValueError(f"{printable(key)} has shape {shape} but {end - begin:,} bytes")
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return RangedTensor(
        (printable(key),), tuple(shape), dtype, strides, f"{begin}:{end}",
        data + begin, 0, end - begin,
    )  # fmt: skip


def _damaged(file: RemoteFile, what: str) -> CheckpointError:
    return CheckpointError(
        f"{file.shown}: a damaged or truncated safetensors file: {what}.",
        hint="Compare its size with the source.",
    )
