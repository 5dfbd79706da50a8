"""What every reader hands over: the tensors of a checkpoint, described but not yet read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.words import printable

Container: TypeAlias = Literal["zip", "legacy", "safetensors", "sharded", "dcp", "npy", "npz"]
Values: TypeAlias = npt.NDArray[Any]

# Floats of eight bits: bits of the fraction, and the bias of the exponent.
_FLOAT8 = {
    "float8_e4m3fn": (3, 7), "float8_e4m3fnuz": (3, 8),
    "float8_e5m2": (2, 15), "float8_e5m2fnuz": (2, 16),
}  # fmt: skip
#: Bytes of one value, for every type that a tensor of a checkpoint is read in.
WIDTHS = dict.fromkeys(_FLOAT8, 1) | {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
}  # fmt: skip
FLOATING = frozenset({"float16", "bfloat16", "float32", "float64", *_FLOAT8})


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """One tensor of a checkpoint."""

    # dictionary keys that lead to it; the last one usually has dots of its own
    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str  # that it is stored in, such as ``bfloat16``
    storage: Hashable  # equal for two tensors exactly if they are the same values of the same file
    # reads the values, and nothing but them: a numpy array of the shape, native byte order;
    # bfloat16 and float8 come as the float32 that has the same values
    read: Callable[[], Values]

    @property
    def key(self) -> str:
        """The path as one string, ``/`` between nested dictionaries."""
        return "/".join(self.path)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_float_matrix(self) -> bool:
        """Whether it could be a prototype layer at all."""
        return len(self.shape) == 2 and 0 not in self.shape and self.dtype in FLOATING


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The tensors of a checkpoint: of one file, or of several that belong together."""

    name: str  # in messages
    container: Container
    size: int  # bytes of all its files
    tensors: dict[str, StoredTensor]  # by key, in file order
    top_level: tuple[str, ...]  # keys of the outermost dictionary, also those without tensors
    # plain values that a training saved beside the weights (``args``)
    options: Mapping[str, Any] = field(default_factory=dict)
    # text that the container itself carries (safetensors)
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what a reader of the result should know of the container
    unread: tuple[str, ...] = ()  # types of the objects beside the tensors that were not read

    @classmethod
    def flat(
        cls, name: str, container: Container, size: int, tensors: Iterable[StoredTensor]
    ) -> Checkpoint:
        """A checkpoint that is one flat dictionary of tensors."""
        found = by_key(tensors)
        return cls(name, container, size, found, tuple(found))


def by_key(tensors: Iterable[StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors under their keys; those of equal keys (``1`` and ``"1"``) are kept apart."""
    found: dict[str, StoredTensor] = {}
    uses: Counter[str] = Counter()
    for tensor in tensors:
        named = tensor
        while named.key in found:
            uses[tensor.key] += 1
            first = f"{tensor.path[0]}#{uses[tensor.key] + 1}"
            named = replace(tensor, path=(first, *tensor.path[1:]))
        found[named.key] = named
    return found


def not_read(kinds: Iterable[str]) -> tuple[str, ...]:
    """What to say of tensors of types that no head is read in, each type once."""
    return tuple(f"tensors of {printable(kind, 40)}" for kind in dict.fromkeys(kinds))


def as_values(raw: bytes | memoryview, dtype: str, *, little: bool = True) -> Values:
    """Contiguous bytes as a flat array; those of bfloat16 and float8 as float32."""
    if dtype in _FLOAT8:
        return _values_of_codes(dtype).take(np.frombuffer(raw, np.uint8))
    bits = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    stored = np.frombuffer(raw, bits.newbyteorder("<" if little else ">"))
    values: Values = stored.astype(bits, copy=False)
    return widen_bfloat16(values) if dtype == "bfloat16" else values


def shaped(values: Values, shape: tuple[int, ...]) -> Values:
    """Values in a shape; where there are none and numpy has no such shape, of small sizes."""
    try:
        return values.reshape(shape)
    except ValueError:  # 0 by 2^62
        if values.size:
            raise
        return np.empty([min(n, 1) for n in shape], values.dtype)


def widen_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 values of bfloat16 bit patterns; exact, because bfloat16 is the upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@cache
def _values_of_codes(dtype: str) -> npt.NDArray[np.float32]:
    """The float32 values of the 256 codes of a type of eight bits; exact."""
    bits, bias = _FLOAT8[dtype]
    codes = np.arange(256)
    exponent, fraction = (codes & 127) >> bits, codes & ((1 << bits) - 1)
    fraction += (exponent > 0) << bits
    steps = np.maximum(exponent, 1) - bias - bits
    values: npt.NDArray[np.float32] = np.ldexp(fraction.astype(np.float32), steps)
    values[128:] *= -1
    if dtype.endswith("uz"):  # finite, with an unsigned zero
        values[128] = np.nan
    elif bits == 3:  # finite
        values[127::128] = np.nan
    else:
        values[124::128] = np.inf, -np.inf
        values[(codes & 127) > 124] = np.nan
    return values
