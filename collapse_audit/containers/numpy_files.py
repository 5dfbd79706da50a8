"""Matrices saved with numpy.save or numpy.savez; pickled objects in them are never loaded."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy_format

from collapse_audit.containers.byte_source import ByteSource
from collapse_audit.containers.limits import DIMENSIONS, FILES
from collapse_audit.containers.pickled import key_name, natural
from collapse_audit.containers.tensors import Checkpoint, StoredTensor, Values
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
    """Describe the one array of an ``.npy`` file; it is called ``prototypes``.

    Args:
        source: The file.
        name: What to call it in messages.

    Returns:
        The array, not yet read.

    Raises:
        CheckpointError: If the file is damaged, truncated or holds Python objects.
    """
    window = Window(source, name, limit=2 * _HEADER_BYTES, first=min(1024, source.size))
    shape, order, dtype, start = _header(window, name)
    _check(name, shape, dtype, source.size - start)

    def read() -> Values:
        data = source.read(start, math.prod(shape) * dtype.itemsize)
        return _array(data, shape=shape, order=order, dtype=dtype)

    tensor = StoredTensor(("prototypes",), shape, dtype.name, 0, read)
    return Checkpoint.flat(name, "npy", source.size, [tensor])


def read_npz(archive: ZipArchive, size: int) -> Checkpoint:
    """Describe the arrays of an ``.npz`` file.

    Args:
        archive: The file.
        size: Its bytes.

    Returns:
        The arrays under the names they were saved with, not yet read. Arrays of Python objects
        are left out.

    Raises:
        CheckpointError: If a member is damaged, truncated or unpacks to more than any head has.
    """  # noqa: DOC501  (made by a function below)
    if len(archive.members) > FILES:
        raise _damaged(archive.name, f"over {FILES:,} arrays")
    tensors = []
    for info in archive.members.values():
        key = key_name(info.filename.removesuffix(".npy"))
        where = f"{archive.name}: {key}"
        try:
            with archive.open(info) as file:
                shape, order, dtype, start = _header(file, where)
        except DAMAGE as error:
            raise _damaged(where, printable(error)) from error
        if dtype.hasobject:
            continue
        _check(where, shape, dtype, info.file_size - start)
        array = partial(_array, shape=shape, order=order, dtype=dtype)
        read = partial(_read_member, archive, info, start, math.prod(shape) * dtype.itemsize, array)
        tensors.append(StoredTensor((key,), shape, dtype.name, info.header_offset, read))
    return Checkpoint.flat(archive.name, "npz", size, tensors)


def _read_member(
    archive: ZipArchive,
    info: zipfile.ZipInfo,
    start: int,
    length: int,
    array: Callable[[bytes], Values],
) -> Values:
    return array(archive.read_part(info, start, length))


def _array(data: bytes, *, shape: tuple[int, ...], order: bool, dtype: np.dtype[Any]) -> Values:
    """The values in native byte order, rows first."""
    values: Values = np.frombuffer(data, dtype).reshape(shape, order="F" if order else "C")
    return np.ascontiguousarray(values.astype(dtype.newbyteorder("="), copy=False)).reshape(shape)


def _header(
    file: IO[bytes] | Window, name: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and where the values begin."""
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
    return sizes, bool(order), dtype, end


def _check(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], stored: int) -> None:
    if dtype.hasobject:
        raise CheckpointError(
            f"{name}: an array of pickled Python objects, which are never executed.",
            hint="Save the weight matrix as floating-point numbers.",
        )
    declared = math.prod(shape) * dtype.itemsize
    if declared > stored:
        raise _damaged(name, f"the header declares {declared:,} bytes, the file has {stored:,}")


def _damaged(name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: a damaged or truncated numpy file ({what}).", hint="Save or download it again."
    )
