"""Matrices saved with numpy.save or numpy.savez; pickled objects in them are never loaded."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.lib.format as npy_format

from collapse_audit.containers.byte_source import ByteSource
from collapse_audit.containers.limits import DIMENSIONS, FILES
from collapse_audit.containers.pickled import key_name, natural
from collapse_audit.containers.tensors import Checkpoint, StoredTensor, Values, shaped
from collapse_audit.containers.window import Window
from collapse_audit.containers.zip_archive import DAMAGE, ZipArchive
from collapse_audit.errors import CheckpointError, CollapseAuditError
from collapse_audit.words import printable

_HEADER_BYTES = 1 << 16  # numpy itself reads at most 10,000 characters
_READERS = {
    (1, 0): (npy_format.read_array_header_1_0, 2),
    (2, 0): (npy_format.read_array_header_2_0, 4),
}


def read_npy(source: ByteSource, name: str) -> Checkpoint:
    """Describe the one array of an ``.npy`` file; it is called ``prototypes``."""
    window = Window(source, name, limit=2 * _HEADER_BYTES, first=min(1024, source.size))
    header = _header(window, name)
    tensor = _tensor(name, "prototypes", header, source.read, storage=0, size=source.size)
    return Checkpoint.flat(name, "npy", source.size, [tensor])


def read_npz(archive: ZipArchive, size: int) -> Checkpoint:
    """Describe the arrays of an ``.npz`` file of so many bytes, except those of Python objects."""
    if len(archive.members) > FILES:
        raise _damaged(archive.name, f"over {FILES:,} arrays")
    tensors = []
    for info in archive.members.values():
        key = key_name(info.filename.removesuffix(".npy"))
        where = f"{archive.name}: {key}"
        try:
            with archive.open(info) as file:
                header = _header(file, where)
        except DAMAGE as error:
            raise _damaged(where, printable(error)) from error
        if header.dtype.hasobject:
            continue
        read, place = partial(archive.read_part, info), info.header_offset
        tensors.append(_tensor(where, key, header, read, storage=place, size=info.file_size))
    return Checkpoint.flat(archive.name, "npz", size, tensors)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype[Any]
    start: int  # of the values, in bytes


def _header(file: IO[bytes] | Window, name: str) -> _Header:
    try:
        start = file.read(12)
        reader, width = _READERS[npy_format.read_magic(io.BytesIO(start))]
        length = int.from_bytes(start[8 : 8 + width], "little")
        end = 8 + width + min(length, _HEADER_BYTES)
        text = io.BytesIO(start[8:] + file.read(end - len(start)))
        with warnings.catch_warnings(action="ignore"):  # about headers written by Python 2
            shape, order, dtype = reader(text)
        sizes = tuple(map(natural, shape))
    except CollapseAuditError:
        raise
    except Exception as error:
        # numpy parses the header as Python literals, which fail in more ways than it promises
        what = str(error).partition(":")[0]  # what follows may be an address in memory
        raise _damaged(name, f"its header cannot be read: {printable(what, 80)}") from error
    if len(sizes) > DIMENSIONS:
        raise _damaged(name, "an impossible shape")
    return _Header(sizes, bool(order), dtype, end)


def _tensor(
    name: str,  # for messages
    key: str,
    header: _Header,
    read: Callable[[int, int], bytes],
    *,
    storage: int,
    size: int,  # bytes of the whole ``.npy``
) -> StoredTensor:
    shape, columns_first, dtype, start = header
    if dtype.hasobject:
        raise CheckpointError(
            f"{name}: an array of pickled Python objects, which are never executed.",
            hint="Save the weight matrix as floating-point numbers.",
        )
    length = math.prod(shape) * dtype.itemsize
    if length > size - start:
        raise _damaged(name, f"the header declares {length:,} bytes, the file has {size - start:,}")

    def values() -> Values:  # in native byte order, rows first
        held = np.frombuffer(read(start, length), dtype)
        if not held.size:
            return shaped(held, shape)
        held = held.reshape(shape, order="F" if columns_first else "C")
        return np.ascontiguousarray(held.astype(dtype.newbyteorder("="), copy=False)).reshape(shape)

    return StoredTensor((key,), shape, dtype.name, storage, values)


def _damaged(name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: a damaged or truncated numpy file ({what}).", hint="Save or download it again."
    )
