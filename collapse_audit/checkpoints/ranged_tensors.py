"""Read single tensors of a remote file."""

from __future__ import annotations

import hashlib
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.ranged_files import RangedIndex, RangedTensor
from collapse_audit.checkpoints.ranged_zip import content_start
from collapse_audit.checkpoints.tensors import Checkpoint, StoredTensor, widen_bfloat16
from collapse_audit.errors import SourceError
from collapse_audit.remote import Remote, RemoteSettings, check_and_record
from collapse_audit.remote.remote_files import RemoteFile


class RangedReader:
    """Reads tensors of one remote file."""

    def __init__(
        self, remote: Remote, file: RemoteFile, index: RangedIndex, settings: RemoteSettings
    ) -> None:
        self._remote = remote
        self._file = file
        self._index = index
        self._settings = settings

    def checkpoint(self) -> Checkpoint:
        """The file as every other reader describes one.

        Returns:
            Its tensors; each is fetched when it is read.
        """
        tensors = [
            StoredTensor(t.path, t.shape, t.dtype, t.storage, partial(self._values, t))
            for t in self._index.tensors
        ]
        return Checkpoint(
            path=Path(self._remote.key),
            container=self._index.container,
            tensors={tensor.key: tensor for tensor in tensors},
            top_level=self._index.top_level,
            options=frozenset(self._index.options),
        )

    def _values(self, tensor: RangedTensor) -> npt.NDArray[Any]:
        """The values of a tensor."""
        tensor.check(self._remote.name)
        start = tensor.base
        if self._index.container == "zip":
            start = content_start(self._file, tensor.base, tensor.block)
        raw = self._file.read(start + tensor.offset, tensor.span)
        # torch can be told to save without checksums, and then writes another number
        if tensor.crc and tensor.span == tensor.block and zlib.crc32(raw) != tensor.crc:
            raise SourceError(
                f"{self._remote.name}: {tensor.key!r} does not have the checksum of the index.",
                hint="The file is damaged: compare its size with the source.",
            )
        data = _contiguous(tensor, raw)
        digest = hashlib.sha256(data).hexdigest()
        check_and_record(self._remote, {f"tensor:{tensor.key}": digest}, self._settings)
        bits = np.dtype("uint16" if tensor.dtype == "bfloat16" else tensor.dtype)
        values: npt.NDArray[Any] = np.frombuffer(data, bits.newbyteorder("<"))
        values = values.reshape(tensor.shape)
        return widen_bfloat16(values) if tensor.dtype == "bfloat16" else values


def _contiguous(tensor: RangedTensor, raw: bytes) -> memoryview:
    bits = np.dtype("uint16" if tensor.dtype == "bfloat16" else tensor.dtype)
    stored = bits.newbyteorder("<" if tensor.little else ">")
    flat = np.frombuffer(raw, stored)
    steps = [step * stored.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)
    values = np.ascontiguousarray(view, dtype=bits.newbyteorder("<"))
    return values.reshape(-1).view(np.uint8).data
