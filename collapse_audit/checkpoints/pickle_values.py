"""What the index of a torch file is made of: tensors by reference, and names that stay names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_MAX_DIMENSIONS = 64  # as in torch

STORAGE_TYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "UntypedStorage": "uint8",
}  # fmt: skip
# What genuine checkpoints name. All of it builds data, and here it does not even do that.
ALLOWED = re.compile(
    r"""collections\ (?:OrderedDict|Counter)
      | argparse\ Namespace
      | (?:__builtin__|builtins)\ (?:set|bytearray|complex)
      | _codecs\ encode
      | numpy\.(?:_core|core)\.multiarray\ scalar
      | numpy\ dtype
      | torch\ (?:Size|Tensor|device|strided|contiguous_format|preserve_format|\w+Storage
                |b?float\w*|q?u?int\w*|complex\w*|double|half|long|short|bool)
      | torch\._utils\ _rebuild_\w+
      | torch\._tensor\ _rebuild_from_type_v2
      | torch\.nn\.parameter\ Parameter
      | torch\.storage\ (?:Untyped|Typed)Storage
      | torch\.serialization\ _get_layout""",
    re.VERBOSE,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """A block of values in the file.

    Attributes:
        key: Its name among the members of the archive.
        dtype: Type of its values.
        numel: How many there are.
    """

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A tensor as a view of a storage, counted in values.

    Attributes:
        storage: The storage.
        dtype: Type of the values.
        offset: First value.
        shape: Its shape.
        strides: Distance to the next value along each dimension.
    """

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Options:
    """An ``argparse.Namespace`` of the file.

    Attributes:
        values: Its options.
    """

    values: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A name that the pickle wants to import."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Something without tensors that need not be understood."""


def natural(number: Any) -> int:
    """A number that counts something.

    Args:
        number: What the pickle gives.

    Returns:
        It.

    Raises:
        ValueError: If it is no whole number of at least 0; ``True`` is none.
    """
    if type(number) is not int or number < 0:
        raise ValueError("not a natural number")
    return number


def tensor_of(arguments: tuple[Any, ...], dtype: Any) -> TensorRef:
    """A tensor from (storage, offset, shape, strides, ...), as torch's own functions take them."""
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, StorageRef) or len(shape) != len(strides):
        raise ValueError("not a tensor")
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError("too many dimensions")
    return TensorRef(
        storage=storage,
        dtype=dtype.name if isinstance(dtype, Name) else storage.dtype,
        offset=natural(offset),
        shape=tuple(map(natural, shape)),
        strides=tuple(map(natural, strides)),
    )
