"""What every reader hands over: the tensors of a file, described but not yet read."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Container: TypeAlias = Literal["zip", "legacy", "safetensors", "npy", "npz"]
Values: TypeAlias = "npt.NDArray[Any] | torch.Tensor"

FLOATING = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        path: Dictionary keys that lead to it; the last one usually has dots of its own.
        shape: Its shape.
        dtype: Type it is stored in, such as ``"bfloat16"``.
        storage: Equal for two tensors exactly if they are the same memory of the file.
        read: Reads the values, and nothing but them; bfloat16 may come back as the float32 that
            has the same values.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    storage: Hashable
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
    """The contents of a file.

    Attributes:
        path: The file.
        container: How it is packed.
        tensors: Every tensor under its key, in file order.
        top_level: Keys of the outermost dictionary, also those without tensors.
        options: Names of the training options that were saved beside the weights (``args``).
    """

    path: Path
    container: Container
    tensors: dict[str, StoredTensor]
    top_level: tuple[str, ...]
    options: frozenset[str] = frozenset()

    @classmethod
    def of(cls, path: Path, container: Container, tensors: Iterable[StoredTensor]) -> Checkpoint:
        """A file that is one flat dictionary of tensors."""
        by_key = {tensor.key: tensor for tensor in tensors}
        return cls(path, container, by_key, tuple(by_key))


def printable(text: object, limit: int = 200) -> str:
    """One line that is safe to print, whatever a file calls its keys.

    Args:
        text: A key, a path or somebody else's message.
        limit: Longest line returned, in characters.

    Returns:
        The text with control characters escaped, cut at ``limit``.
    """
    line = str(text)
    if not line.isprintable():
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def widen_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 values of bfloat16 bit patterns; exact, because bfloat16 is the upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def megabytes(size: int) -> str:
    """A size in bytes for people: decimal units, as download pages have them."""
    return f"{size:,} bytes" if size < 100_000 else f"{size / 1e6:,.1f} MB"
