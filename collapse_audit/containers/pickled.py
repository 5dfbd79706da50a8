"""What the index of a torch file is made of: tensors by reference, and objects that stay names."""

from __future__ import annotations

import hashlib
import math
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from collapse_audit.containers.limits import DEPTH, DIMENSIONS, ENTRIES, KEY_CHARACTERS
from collapse_audit.errors import CheckpointError
from collapse_audit.words import printable

STORAGE_TYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "UntypedStorage": "uint8", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
}  # fmt: skip

_ARRAY_TYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16",
    "i1": "int8", "u1": "uint8", "b1": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """A block of values in the file."""

    key: str  # among the blocks of the file
    dtype: str
    numel: int
    offset: int  # first value, for a view of a larger block (files before torch 0.4)
    root_numel: int  # of the whole block
    data: bytes | None = None  # its bytes, where they stand in the pickle itself


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor as a view of a storage, counted in values."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # 0 along dimensions of one value


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """Something that the pickle wants to import from a module; here it stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Opaque:
    """An object of a type that is not known here: its data, and nothing that it could do."""

    kind: str  # name of its type, or of the function that would have made it
    state: Any = None  # what it would have been given to restore itself
    items: dict[Any, Any] = field(default_factory=dict)  # put into it, if it is a dictionary
    arguments: tuple[Any, ...] = ()  # of the call that would have made it

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """Its attributes, where its state is a plain dictionary."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # (attributes, slots)
            return ChainMap(_mapping(state[1]), _mapping(state[0]))
        return _mapping(state)

    def __repr__(self) -> str:
        return self.kind  # what it holds may hold itself, or unfold without end


Node: TypeAlias = "Mapping[Any, Any] | list[Any] | tuple[Any, ...] | Opaque"


def natural(number: Any) -> int:
    """A whole number from 0 to 2^63 - 1 (``True`` is none), or a ``ValueError``."""
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise ValueError("not a natural number")
    return number


def storage_of(identifier: Any) -> StorageRef:
    """A storage from (``"storage"``, type, key, device, values[, view]), as torch writes it."""
    kind, storage_type, key, _device, numel = identifier[:5]
    if kind != "storage" or not isinstance(storage_type, Name) or not isinstance(key, str):
        raise ValueError("not a storage")
    dtype = STORAGE_TYPES.get(storage_type.name, storage_type.name.removesuffix("Storage").lower())
    whole = natural(numel)
    if view := identifier[5] if len(identifier) > 5 else None:
        _key, offset, part = view
        return StorageRef(key, dtype, natural(part), natural(offset), whole)
    return StorageRef(key, dtype, whole, 0, whole)


def tensor_of(arguments: tuple[Any, ...], dtype: Any = None) -> TensorRef:
    """A tensor from (storage, offset, shape, strides, ...), as torch's functions take them."""
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, StorageRef) or len(shape) != len(strides):
        raise ValueError("not a tensor")
    if len(shape) > DIMENSIONS:
        raise ValueError("too many dimensions")
    held = dtype.name if isinstance(dtype, Name) else storage.dtype
    if storage.dtype not in {held, "uint8"}:
        raise ValueError("a storage that is described twice, and not alike")
    sizes = tuple(map(natural, shape))
    steps = tuple(0 if n == 1 else natural(step) for n, step in zip(sizes, strides, strict=True))
    return TensorRef(
        storage=storage,
        dtype=held,
        offset=natural(offset) + storage.offset,
        shape=sizes,
        strides=steps,
    )


def tensor_of_array(array: Any, dtype: Any) -> TensorRef | None:
    """A tensor whose values stand in the pickle, if they do as numpy writes an array of a type."""
    match array, dtype:
        case (
            Opaque(
                kind="numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct",
                state=(
                    _,
                    tuple(shape),
                    Opaque(kind="numpy.dtype", arguments=(str(code), *_), state=(_, "<" | "|", *_)),
                    bool(columns_first),
                    raw,
                ),
            ),
            Name(name=name),
        ):
            pass
        case _:
            return None
    held, sizes = _ARRAY_TYPES.get(code), tuple(map(natural, shape))
    count = math.prod(sizes)
    match raw:  # protocols before 3 write bytes as a call
        case Opaque(kind="_codecs.encode", arguments=(str(text), _)):
            raw = text.encode("latin-1")
        case Opaque() if not count:
            raw = b""
    if held is None or not isinstance(raw, bytes) or len(raw) != count * int(code[1:]):
        return None
    if (held, name) == ("float32", "bfloat16") and not any(raw[::4]) and not any(raw[1::4]):
        raw, held = np.frombuffer(raw, np.uint16)[1::2].tobytes(), name  # numpy has no bfloat16
    if held != name or len(sizes) > DIMENSIONS:
        return None
    faster = [math.prod(sizes[:i] if columns_first else sizes[i + 1 :]) for i in range(len(sizes))]
    block = StorageRef(hashlib.sha256(raw).hexdigest(), held, count, 0, count, raw)
    return TensorRef(block, held, 0, sizes, tuple(faster))


def tensors_below(root: Node) -> Iterator[tuple[tuple[str, ...], TensorRef]]:
    """Every tensor of an index, with the keys that lead to it; of modules, their state dicts."""
    yield from _walk(root, (), Counter(), frozenset())


def _walk(
    node: Any, path: tuple[str, ...], entered: Counter[int], above: frozenset[int]
) -> Iterator[tuple[tuple[str, ...], TensorRef]]:
    if sum(map(len, path)) > KEY_CHARACTERS + DEPTH:
        raise CheckpointError(
            f"{printable('/'.join(path), 80)}: over {KEY_CHARACTERS:,} characters of keys.",
            hint="Save the state dict of the network alone.",
        )
    if isinstance(node, TensorRef):
        yield path, node
    elif (
        isinstance(node, dict | list | tuple | Opaque)
        and len(path) < DEPTH
        and id(node) not in above
        and _may_enter(node, entered)
    ):
        if is_module(node):
            prefix = f"{path[-1]}." if path else ""
            yield from _of_module(node, path[:-1], prefix, entered, 0)
        held = node.items if isinstance(node, Opaque) else node
        for key, child in held.items() if isinstance(held, dict) else enumerate(held):
            if isinstance(child, TensorRef | dict | list | tuple | Opaque):
                yield from _walk(child, (*path, key_name(key)), entered, above | {id(node)})


def _may_enter(node: object, entered: Counter[int]) -> bool:
    """Whether a node under several keys is entered again: they may hold one another."""
    entered[id(node)] += 1
    return entered[id(node)] <= ENTRIES


def is_module(node: Any) -> bool:
    """Whether an object is a network: an ``nn.Module`` saved whole, or one of TorchScript."""
    return isinstance(node, Opaque) and (
        "_parameters" in node.attributes or node.kind.startswith("__torch__.")
    )


def _of_module(
    module: Any, path: tuple[str, ...], prefix: str, entered: Counter[int], depth: int
) -> Iterator[tuple[tuple[str, ...], TensorRef]]:
    """The state dict of a module that was saved whole."""
    if depth >= DEPTH or len(prefix) > KEY_CHARACTERS:
        return
    groups = [module.attributes.get(name) for name in ("_parameters", "_buffers", "_modules")]
    if module.kind.startswith("__torch__."):
        groups.append(module.state)
    for group in groups:
        for key, value in _mapping(group).items() if _may_enter(group, entered) else ():
            name = f"{prefix}{key_name(key)}"
            if isinstance(value, TensorRef):
                yield (*path, name), value
            elif is_module(value) and _may_enter(value, entered):
                yield from _of_module(value, path, f"{name}.", entered, depth + 1)


def key_name(key: object) -> str:
    """A dictionary key as part of a path: never empty, and safe to print."""
    if isinstance(key, Opaque):
        key = f"<{key.kind}>"
    elif isinstance(key, bytes) and len(key) > KEY_CHARACTERS:
        return _long_name(key)
    text = str(key)
    if len(text) <= KEY_CHARACTERS // 2:
        line = printable(text, None) or "''"
        if len(line) <= KEY_CHARACTERS // 2:
            return line
    return _long_name(text)


@lru_cache(maxsize=8)  # one string of megabytes may be the key of thousands of dictionaries
def _long_name(name: str | bytes) -> str:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    part = KEY_CHARACTERS // 5  # the end tells what the tensor is
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    start, end = (printable(piece, None) for piece in (text[:part], text[-part:]))
    return f"{start[:part]}…{digest}…{end[-part:]}"


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else value.items if isinstance(value, Opaque) else {}
