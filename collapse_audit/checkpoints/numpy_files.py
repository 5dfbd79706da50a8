"""Matrices saved with numpy.save or numpy.savez; pickled objects in them are never loaded."""

from __future__ import annotations

import math
import warnings
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy_format
import numpy.typing as npt

from collapse_audit.checkpoints.tensors import Checkpoint, StoredTensor, megabytes, printable
from collapse_audit.errors import CheckpointError

# K = 262144, D = 512 in float64, the largest head known, is as large as this.
_MAX_UNPACKED_BYTES = 1024**3


def read_numpy_file(path: Path) -> Checkpoint:
    """Describe the one array of an ``.npy`` file; it is called ``prototypes``.

    Args:
        path: The file.

    Returns:
        The array, not yet read.

    Raises:
        CheckpointError: If the file is damaged, truncated or holds Python objects.
    """  # noqa: DOC501  (raised through _damaged)
    try:
        with path.open("rb") as file:
            shape, dtype = _read_header(file)
            stored = path.stat().st_size - file.tell()
    except (ValueError, EOFError, OSError) as error:
        raise _damaged(path, printable(error)) from error
    _check_size(path, shape, dtype, stored)
    read = partial(_read_npy, path)
    return Checkpoint.of(path, "npy", [StoredTensor(("prototypes",), shape, dtype.name, 0, read)])


def read_npz_file(path: Path) -> Checkpoint:
    """Describe the arrays of an ``.npz`` file.

    Args:
        path: The file.

    Returns:
        The arrays under the names they were saved with, not yet read. Arrays of Python objects
        are left out.

    Raises:
        CheckpointError: If a member is damaged, truncated or unpacks to more than 1 GiB.
    """  # noqa: DOC501  (_damaged makes one)
    tensors = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = printable(member.filename.removesuffix(".npy"))
            try:
                with archive.open(member) as file:
                    shape, dtype = _read_header(file)
                    stored = member.file_size - file.tell()
            except _DAMAGE as error:
                raise _damaged(path, f"{name}: {printable(error)}") from error
            if dtype.hasobject:
                continue
            _check_size(path, shape, dtype, stored)
            packed = member.compress_type != zipfile.ZIP_STORED
            if packed and member.file_size > _MAX_UNPACKED_BYTES:
                raise CheckpointError(
                    f"{printable(path)}: {name} unpacks to {megabytes(member.file_size)}.",
                    hint="Save it with numpy.savez instead of numpy.savez_compressed.",
                )
            read = partial(_read_member, path, member.filename)
            tensors.append(StoredTensor((name,), shape, dtype.name, name, read))
    return Checkpoint.of(path, "npz", tensors)


# how a damaged member shows itself, apart from a wrong header
_DAMAGE = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,  # also of a compression that zipfile does not know
    zipfile.BadZipFile,
    zlib.error,
)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy_format.read_magic(file)
    reader = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    if version not in reader:
        raise ValueError(f"numpy format {version[0]}.{version[1]} is not known")
    try:
        with warnings.catch_warnings(action="ignore"):  # about headers written by Python 2
            shape, _, dtype = reader[version](file)
    except Exception as error:
        # numpy parses the header as Python literals, which fail in more ways than it promises
        raise ValueError(f"its header cannot be read: {error}") from error
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"shape {shape}")
    return shape, dtype


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], stored: int) -> None:
    if dtype.hasobject:
        raise CheckpointError(
            f"{printable(path)}: an array of pickled Python objects, which are never executed.",
            hint="Save the weight matrix as floating-point numbers.",
        )
    declared = math.prod(shape) * dtype.itemsize
    if declared > stored:
        raise _damaged(path, f"the header declares {declared:,} bytes, the file has {stored:,}")


def _read_npy(path: Path) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _read_member(path: Path, member: str) -> npt.NDArray[Any]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            values: npt.NDArray[Any] = npy_format.read_array(file, allow_pickle=False)
    except _DAMAGE as error:  # zip members carry a checksum
        raise _damaged(path, f"{printable(member)}: {printable(error)}") from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{printable(path)}: a damaged or truncated numpy file ({what}).",
        hint="Save or download it again.",
    )
